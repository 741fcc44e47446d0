"""Creates rows of any model, for tests in which their values do not matter."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count

from django.db import models

from records.models.querysets import BOOKKEEPING

_numbers = count(1)


def any_value(field):
    """Return a valid value for a field, a different one each time."""
    number = next(_numbers)
    if field.choices:
        return field.choices[number % len(field.choices)][0]
    if isinstance(field, models.ForeignKey):
        return create_row(field.related_model).pk
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
        models.CharField: f"A{number:02}",  # a username has at least three characters
        models.TextField: f"A{number}",
    }
    return next(value for kind, value in samples.items() if isinstance(field, kind))


def build_row(model, **values):
    """Return an unsaved row with these values and any values in the other required columns."""
    for field in model.same_owner_fields():
        # The referenced row must have the same owner.
        owner, its_owner = (owned._meta.get_field(owned.owned_by) for owned in (model, field.related_model))
        if owner.name not in values:
            values[owner.name] = create_row(owner.related_model)
        if not field.null and field.name not in values:
            values[field.name] = create_row(field.related_model, **{its_owner.name: values[owner.name]})
    required = [
        field
        for field in model._meta.concrete_fields
        if not (field.primary_key or field.has_default() or field.null or getattr(field, "auto_now_add", False))
        and not (values.keys() | BOOKKEEPING | {"slug"}) & {field.name, field.attname}
    ]
    return model(**{field.attname: any_value(field) for field in required}, **values)


def create_row(model, **values):
    """Create a row with these values and any values in the other required columns."""
    row = build_row(model, **values)
    row.save()
    return row
