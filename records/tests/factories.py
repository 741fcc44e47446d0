"""Rows of any kind, for tests that do not care what is in them."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count

from django.db import models

from records.models.querysets import BOOKKEEPING

_numbers = count(1)


def any_value(field):
    """Something that the database takes, and another one each time."""
    number = next(_numbers)
    if field.choices:
        return field.choices[number % len(field.choices)][0]
    if isinstance(field, models.ForeignKey):
        return made(field.related_model).pk
    now = datetime.now(UTC)
    samples = {
        models.EmailField: f"a{number}@example.com",
        models.URLField: f"https://example.com/{number}",
        models.UUIDField: uuid.uuid4(),
        models.DateTimeField: now,
        models.DateField: now.date().replace(year=1000 + number % 8000, day=1),
        models.BooleanField: number % 2 == 0,
        models.DecimalField: Decimal(number),
        models.JSONField: {"number": number},
        models.SmallIntegerField: number % 100,
        models.IntegerField: number,
        models.FloatField: number / 2,
        models.CharField: f"A{number:02}",  # a username has three characters at least
        models.TextField: f"A{number}",
    }
    return next(value for kind, value in samples.items() if isinstance(field, kind))


def unsaved(model, **given):
    for field in model.same_owner_fields():
        # What a row refers to is of the same owner.
        owner, its_owner = (each._meta.get_field(each.owned_by) for each in (model, field.related_model))
        if owner.name not in given:
            given[owner.name] = made(owner.related_model)
        if not field.null and field.name not in given:
            given[field.name] = made(field.related_model, **{its_owner.name: given[owner.name]})
    required = [
        field
        for field in model._meta.concrete_fields
        if not (field.primary_key or field.has_default() or field.null or getattr(field, "auto_now_add", False))
        and not (given.keys() | BOOKKEEPING | {"slug"}) & {field.name, field.attname}
    ]
    return model(**{field.attname: any_value(field) for field in required}, **given)


def made(model, **given):
    row = unsaved(model, **given)
    row.save()
    return row
