"""Constraints with their messages, and indexes."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from django.apps import apps
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.contrib.postgres.operations import TrigramExtension
from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, IntegrityError, models
from django.db.models import F, Q
from django.db.models.functions import Upper

from records.db.expressions import SearchGrams
from records.db.groups import UTCDay
from records.db.uniqueness import Match, matches


def constraint_fields(constraint: models.BaseConstraint) -> list[str]:
    """Return the names of the fields that a constraint refers to."""
    if isinstance(constraint, models.CheckConstraint):
        return sorted(constraint.condition.referenced_base_fields) if isinstance(constraint.condition, Q) else []
    expressions: Any = getattr(constraint, "expressions", ())
    references = [node.name for expression in expressions for node in expression.flatten() if isinstance(node, F)]  # type: ignore[attr-defined]
    return [*getattr(constraint, "fields", ()), *references]


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
    """A unique constraint over all rows, including deleted ones, so that restoring a row cannot violate it.

    Forms and the API report its message under the field that it refers to.
    """

    def validate(self, model: Any, instance: Any, exclude: Any = None, using: str = DEFAULT_DB_ALIAS) -> None:
        names = constraint_fields(self)
        if set(names) & set(exclude or ()):
            return
        match = self.matches([instance], using)[0]
        if match is None or match.pk is None or (match.pk == instance.pk and not instance._state.adding):
            return
        raise ValidationError({names[0]: self.get_violation_error_message()})

    def matches(self, rows: Sequence[Any], using: str = DEFAULT_DB_ALIAS) -> list[Match | None]:
        """Return the values that each row has in this constraint, and the stored row that holds them, by one query.

        None stands for rows with a null, which violate no unique constraint.
        """
        if not rows:
            return []
        model = type(rows[0])
        columns = [model._meta.get_field(name) for name in constraint_fields(self)]
        compared = [row for row in rows if all(getattr(row, column.attname) is not None for column in columns)]
        if not compared:
            return [None] * len(rows)
        expressions: Any = self.expressions or [F(name) for name in self.fields]
        found = zip(compared, matches(model, expressions, columns, compared, using), strict=True)
        by_row = {id(row): match for row, match in found}
        return [by_row.get(id(row)) for row in rows]


class SearchIndex(models.Index):
    """The index for `search` over `fields`: trigrams on PostgreSQL, an ordinary index on SQLite, which scans it."""

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        if schema_editor.connection.vendor != "postgresql":
            return super().create_sql(model, schema_editor, using, **kwargs)
        # Django's __icontains compares by UPPER.
        operators = _trigram_operators(schema_editor)
        trigrams = (OpClass(Upper(name), name=operators) for name in self.fields)
        return GinIndex(*trigrams, name=self.name, condition=self.condition).create_sql(model, schema_editor)


class ShortSearchIndex(models.Index):
    """The index for searches of one or two letters, which have no trigram. On SQLite, it is empty.

    It contains every different letter and pair of letters of each field.
    """

    #: Restricted, because starting parallel workers takes longer than reading the index.
    FUNCTION = """
        CREATE FUNCTION search_grams(value text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL RESTRICTED AS $$
            SELECT string_to_array(upper(value), NULL)
                || ARRAY(SELECT substr(upper(value), start, 2) FROM generate_series(1, length(value) - 1) AS start)
        $$
    """

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        if schema_editor.connection.vendor != "postgresql":
            empty = models.Index(fields=self.fields[:1], name=self.name, condition=Q(created_at=None))
            return empty.create_sql(model, schema_editor, using, **kwargs)
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("SELECT to_regprocedure('search_grams(text)') IS NULL")
            [is_missing] = cursor.fetchone()
        if is_missing:
            schema_editor.execute(self.FUNCTION, params=None)
        grams = [SearchGrams(name) for name in self.fields]
        return GinIndex(*grams, name=self.name).create_sql(model, schema_editor, using, **kwargs)


def _trigram_operators(schema_editor: Any) -> str:
    """Return the qualified name of pg_trgm's operator class: its schema may be missing from the search_path."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_trgm'")
        row = cursor.fetchone()
    return f"{row[0]}.gin_trgm_ops" if row else "gin_trgm_ops"


class Trigrams(TrigramExtension):
    """Create the extension that SearchIndex needs. Reversing keeps it, because other applications may use it."""

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        pass


def sort_index(*fields: str, name: str) -> models.Index:
    """Return an index on `fields` and `id`, which every sort order ends with."""
    return models.Index(fields=[*fields, "id"], name=name)


def live_index(*fields: str, name: str, condition: Q | None = None) -> models.Index:
    """Return an index on `fields` and `id` over the live rows."""
    return models.Index(fields=[*fields, "id"], name=name, condition=Q(deleted_at=None) & (condition or Q()))


def day_index(name: str) -> models.Index:
    """Return an index on the day of creation in UTC and `id` over the live rows."""
    return models.Index(UTCDay("created_at"), "id", name=name, condition=Q(deleted_at=None))


def deleted_index(name: str) -> models.Index:
    return models.Index(fields=["id"], name=name, condition=Q(deleted_at__isnull=False))
