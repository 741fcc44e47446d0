"""What a table holds to, beyond its columns: constraints, indexes, and their messages."""

import re
from functools import cache
from typing import Any, NamedTuple

from django.apps import apps
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.contrib.postgres.operations import TrigramExtension
from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, IntegrityError, models
from django.db.models import F, Q, Value
from django.db.models.functions import Upper
from django.db.models.lookups import Exact


def constraint_fields(constraint: models.BaseConstraint) -> list[str]:
    """The names of the fields that a constraint is about."""
    if isinstance(constraint, models.CheckConstraint):
        return sorted(constraint.condition.referenced_base_fields) if isinstance(constraint.condition, Q) else []
    expressions: Any = getattr(constraint, "expressions", ())
    named = [node.name for expression in expressions for node in expression.flatten() if isinstance(node, F)]  # type: ignore[attr-defined]
    return [*getattr(constraint, "fields", ()), *named]


class Violation(NamedTuple):
    """A constraint that a write violated: the column it is about ("" if it has none) and its message."""

    model: type[models.Model]
    field: str
    message: str


def violation_of(error: IntegrityError) -> Violation | None:
    """Return the violated constraint of a model; None for foreign keys and constraints of other tables."""
    model, constraint = _constraints_by_name().get(_violated_name(error), (None, None))
    if model is None or constraint is None:
        return None
    columns = [model._meta.get_field(name).attname for name in constraint_fields(constraint)[:1]]
    return Violation(model, columns[0] if columns else "", str(constraint.get_violation_error_message()))


def _violated_name(error: IntegrityError) -> str:
    diagnostics = getattr(error.__cause__, "diag", None)
    if diagnostics is not None:
        return diagnostics.constraint_name or ""
    # SQLite: "CHECK constraint failed: NAME", "UNIQUE constraint failed: index 'NAME'".
    match = re.search(r"constraint failed: (?:index ')?(\w+)", str(error))
    return match[1] if match else ""


@cache
def _constraints_by_name() -> dict[str, tuple[Any, models.BaseConstraint]]:
    return {
        constraint.name: (model, constraint) for model in apps.get_models() for constraint in model._meta.constraints
    }


class Unique(models.UniqueConstraint):
    """Unique among all rows, deleted ones too: what a deleted row holds stays reserved for its restoring.

    Its message goes to the field that it is about, in forms and in the API.
    """

    def validate(self, model, instance, exclude=None, using=DEFAULT_DB_ALIAS) -> None:
        values = {name: getattr(instance, model._meta.get_field(name).attname) for name in constraint_fields(self)}
        if any(value is None or name in (exclude or ()) for name, value in values.items()):
            return
        given = {F(name): Value(value, model._meta.get_field(name)) for name, value in values.items()}
        rows = model._base_manager.using(using)
        expressions: Any = self.expressions or [F(name) for name in self.fields]
        for expression in expressions:
            rows = rows.filter(Exact(expression, expression.replace_expressions(given)))
        if not instance._state.adding:
            rows = rows.exclude(pk=instance.pk)
        if rows.exists():
            raise ValidationError({constraint_fields(self)[0]: self.get_violation_error_message()})


class SearchIndex(models.Index):
    """Behind `search` over `fields`: trigrams on PostgreSQL; elsewhere an ordinary index, which is merely scanned."""

    def create_sql(self, model, schema_editor, using="", **kwargs):
        if schema_editor.connection.vendor != "postgresql":
            return super().create_sql(model, schema_editor, using, **kwargs)
        # UPPER is what Django's __icontains compares by.
        operators = _trigram_operators(schema_editor)
        trigrams = (OpClass(Upper(name), name=operators) for name in self.fields)
        return GinIndex(*trigrams, name=self.name, condition=self.condition).create_sql(model, schema_editor)


def _trigram_operators(schema_editor) -> str:
    """Return the name of pg_trgm's operator class: with its schema, which need not be in the search_path."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_trgm'")
        found = cursor.fetchone()
    return f"{found[0]}.gin_trgm_ops" if found else "gin_trgm_ops"


class Trigrams(TrigramExtension):
    """What a SearchIndex needs of PostgreSQL. It stays when migrations are undone: others may use it too."""

    def database_backwards(self, app_label, schema_editor, from_state, to_state) -> None:
        pass


def sort_index(*fields: str, name: str) -> models.Index:
    """An index with `id` behind `fields`, as in every sort."""
    return models.Index(fields=[*fields, "id"], name=name)


def live_index(*fields: str, name: str, condition: Q | None = None) -> models.Index:
    """The same over the live rows."""
    return models.Index(fields=[*fields, "id"], name=name, condition=Q(deleted_at=None) & (condition or Q()))


def deleted_index(name: str) -> models.Index:
    return models.Index(fields=["id"], name=name, condition=Q(deleted_at__isnull=False))
