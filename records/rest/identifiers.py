"""Ids of rows in paths, and the error for rows that do not exist."""

import re
import uuid
from typing import Any

from django.db import models
from django.utils.text import capfirst
from rest_framework.exceptions import NotFound

from records.db.validators import BIGINT_MAX
from records.http.hints import excerpt


def not_found(model: type[models.Model], text: str) -> NotFound:
    """Return the error for a row that does not exist or that the user cannot see."""
    return NotFound(f"{capfirst(model._meta.verbose_name)} with ID {excerpt(text)} not found")


def parse_id(model: type[models.Model], text: str) -> Any:
    """Return the id in a path as the type of the primary key; raise NotFound if no row can have it."""
    if isinstance(model._meta.pk, models.UUIDField):
        try:
            return uuid.UUID(text)
        except ValueError:
            raise not_found(model, text) from None
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > BIGINT_MAX:
        raise not_found(model, text)
    return int(text)
