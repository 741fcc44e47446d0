"""The query parameters of a list: all known by name, all combined with AND, none ignored."""

from datetime import UTC, date, datetime, time
from typing import Any, ClassVar

import django_filters
from django import forms
from django.db.models import Q, QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request

from records.db.validators import BIGINT_MAX


class PlainDigitsMixin:
    """Digits as people write them: to Python, `1_0` and `١٠` are 10 as well."""

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and ("_" in value or not value.isascii()):
            raise forms.ValidationError("Enter a number.", code="invalid")
        return super().to_python(value)  # type: ignore[misc]


class BigIntegerFormField(PlainDigitsMixin, forms.IntegerField):
    def __init__(self, **kwargs) -> None:
        super().__init__(min_value=-BIGINT_MAX - 1, max_value=BIGINT_MAX, **kwargs)


class ExactDecimalFormField(PlainDigitsMixin, forms.DecimalField):
    """As many digits as the column holds; SQLite would round what is beyond, PostgreSQL would not."""

    def __init__(self, **kwargs) -> None:
        super().__init__(max_digits=15, decimal_places=4, **kwargs)


class FloatFormField(PlainDigitsMixin, forms.FloatField):
    """Finite numbers, as Django has it."""


class StrictBooleanFormField(forms.Field):
    def to_python(self, value: Any) -> bool | None:
        if value in self.empty_values:
            return None
        if str(value).lower() not in {"true", "false", "1", "0"}:
            raise forms.ValidationError("Must be true or false.")
        return str(value).lower() in {"true", "1"}


class InstantFormField(django_filters.fields.IsoDateTimeField):
    def to_python(self, value: Any) -> datetime | None:
        # An unescaped "+" of a time zone arrives as a blank.
        text = value.strip().replace(" ", "+") if isinstance(value, str) and "T" in value else value
        try:
            instant = super().to_python(text)
            return instant.astimezone(UTC) if instant else None
        except OverflowError:
            raise forms.ValidationError("Enter a valid date/time.") from None


class IntegerFilter(django_filters.NumberFilter):
    schema: ClassVar[dict[str, str]] = {"type": "integer", "format": "int64"}
    field_class: type[forms.Field] = BigIntegerFormField

    def get_max_validator(self):
        return None  # the field has its own bounds


class DecimalFilter(IntegerFilter):
    schema: ClassVar[dict[str, str]] = {"type": "number"}
    field_class = ExactDecimalFormField


class FloatFilter(IntegerFilter):
    schema: ClassVar[dict[str, str]] = {"type": "number", "format": "double"}
    field_class = FloatFormField


class BooleanFilter(django_filters.Filter):
    """Django writes `= false` as NOT, and that meets no index of SQLite: hence `in`."""

    schema: ClassVar[dict[str, str]] = {"type": "boolean"}
    field_class = StrictBooleanFormField

    def filter(self, qs: QuerySet, value: bool | None) -> QuerySet:
        if value is None or self.method is not None:
            return super().filter(qs, value)
        return qs.filter(**{f"{self.field_name}__in": [value]})


class InstantFilter(django_filters.Filter):
    """ISO 8601; without a time zone UTC is meant."""

    schema: ClassVar[dict[str, str]] = {"type": "string", "format": "date-time"}
    field_class = InstantFormField


class DateFilter(django_filters.Filter):
    schema: ClassVar[dict[str, str]] = {"type": "string", "format": "date"}
    field_class = forms.DateField

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, input_formats=["%Y-%m-%d"], **kwargs)


class DayFilter(DateFilter):
    """A day in UTC, as the range of its instants: `__date` would pass the index by."""

    def filter(self, qs: QuerySet, value: date | None) -> QuerySet:
        if value is None:
            return qs
        start, end = (datetime.combine(value, moment, UTC) for moment in (time.min, time.max))
        return qs.filter(**{f"{self.field_name}__gte": start, f"{self.field_name}__lte": end})


class TextFilter(django_filters.CharFilter):
    pass


class ChoiceFilter(django_filters.ChoiceFilter):
    pass


class UUIDFilter(django_filters.UUIDFilter):
    schema: ClassVar[dict[str, str]] = {"type": "string", "format": "uuid"}


class AnyCaseFilter(django_filters.CharFilter):
    """Equal whatever the case, by the index of the unique constraint over Lower(...)."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, lookup_expr="lower", **kwargs)

    def filter(self, qs: QuerySet, value: str | None) -> QuerySet:
        return super().filter(qs, value.lower() if value else value)


class AnyOfFilter(django_filters.BaseInFilter, django_filters.CharFilter):
    """Comma-separated values."""


class StrictFilterSet(django_filters.FilterSet):
    """A parameter that is given must say something: empty is an error."""

    base_filters: dict[str, Any]

    def __init__(self, data=None, *args, **kwargs) -> None:
        # Only what is asked for: copying every filter for every request took a quarter of a list's time.
        given = data or {}
        self.base_filters = {name: each for name, each in self.base_filters.items() if name in given}
        super().__init__(data, *args, **kwargs)

    @property
    def errors(self):
        errors = super().errors
        for name in self.filters:
            if self.data.get(name) == "":
                errors.setdefault(name, forms.utils.ErrorList(["This value may not be empty."]))
        return errors

    def is_valid(self) -> bool:
        return not self.errors


class RecordFilterSet(StrictFilterSet):
    """Filters that every record has."""

    created_at__gte = InstantFilter(field_name="created_at", lookup_expr="gte", help_text="Created then or later.")
    created_at__lte = InstantFilter(field_name="created_at", lookup_expr="lte", help_text="Created then or earlier.")
    created_at__date = DayFilter(field_name="created_at", help_text="Created on that day (UTC).")
    date_created = DayFilter(field_name="created_at", help_text="The same as `created_at__date`.")
    date_created__gte = InstantFilter(
        field_name="created_at", lookup_expr="gte", help_text="The same as `created_at__gte`."
    )
    date_created__lte = InstantFilter(
        field_name="created_at", lookup_expr="lte", help_text="The same as `created_at__lte`."
    )


class SoftDeletableFilterSet(RecordFilterSet):
    is_deleted = BooleanFilter(
        method="keep", help_text="For those who may see deleted rows: `true` shows only the deleted ones."
    )

    def keep(self, queryset: QuerySet, name: str, value: bool) -> QuerySet:
        return queryset  # the view chose between the live and the deleted rows already


class RecordFilterBackend(DjangoFilterBackend):
    @staticmethod
    def parameter_names(view: Any) -> frozenset[str]:
        """Return the names of the query parameters that the filter set of the view declares."""
        return frozenset(view.filterset_class.base_filters if view.filterset_class else ())

    def to_html(self, request: Request, queryset: QuerySet, view: Any) -> str:
        return ""  # its form sends every empty field along


class SearchBackend(BaseFilterBackend):
    """`search`: text that any of the view's `search_fields` contains, whatever the case."""

    parameter = "search"

    @classmethod
    def parameter_names(cls, view: Any) -> frozenset[str]:
        return frozenset({cls.parameter} if getattr(view, "search_fields", ()) else ())

    def filter_queryset(self, request: Request, queryset: QuerySet, view: Any) -> QuerySet:
        text = request.query_params.get(self.parameter, "").strip()
        fields = getattr(view, "search_fields", ())
        if not text or not fields:
            return queryset
        condition = Q()
        for name in fields:
            condition |= Q(**{f"{name}__icontains": text})
        return queryset.filter(condition)

    def get_schema_operation_parameters(self, view: Any) -> list[dict]:
        if not getattr(view, "search_fields", ()):
            return []
        return [
            {
                "name": self.parameter,
                "in": "query",
                "required": False,
                "description": f"Text in {', '.join(view.search_fields)}, whatever the case.",
                "schema": {"type": "string"},
            }
        ]
