"""Change lists of large tables: bounded counts, and filters that an index serves."""

from datetime import UTC
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest, FieldDoesNotExist, ValidationError
from django.core.paginator import Page, Paginator
from django.db import models
from django.http import HttpRequest
from django.utils.functional import cached_property

from records.admin_site import WRITE_CONFLICTS, remember_conflict
from records.db.validators import BIGINT_MAX
from records.rest.pagination.counting import MAX_EXACT_COUNT, can_estimate, estimated_count
from records.rest.pagination.parameters import MAX_OFFSET
from records.rest.search import has_short_index, is_short, matching_values, search_rows

#: Rows up to which the database joins the rows before a page too.
MAX_JOINED_OFFSET = 1_000
#: Each word of a search is a condition of the query.
MAX_SEARCH_WORDS = 20
#: Lookups that a query string may use in addition to those of the list's own filters. An index serves each of them.
#: Lookups that may run for long, such as regular expressions, are missing.
ALLOWED_LOOKUPS = {"exact", "in", "gt", "gte", "lt", "lte", "isnull", "isempty"}
LAST_PAGE_MESSAGE = "This list shows its first {:,} rows only. Use a filter, the search or another sort to see others."


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Count at most as many rows as the API does; beyond that, use PostgreSQL's estimate or, on SQLite, the bound.

    The pages end where the offsets of the API end, because the database reads all rows before a page.
    """

    @cached_property
    def num_pages(self) -> int:
        return min(super().num_pages, self.max_pages)

    def page(self, number: Any) -> Page:  # type: ignore[type-arg]
        """Return a page. On deep ones, read only the keys of the rows before it, without the joins of the list."""
        page = super().page(number)
        rows: Any = self.object_list
        start = (page.number - 1) * self.per_page
        if start > MAX_JOINED_OFFSET:
            keys = rows.values_list("pk", flat=True)[start : start + self.per_page]
            page.object_list = rows.filter(pk__in=list(keys))
        return page

    @property
    def max_pages(self) -> int:
        return MAX_OFFSET // self.per_page

    @property
    def omits_rows(self) -> bool:
        return self.count > self.max_pages * self.per_page

    @cached_property
    def count(self) -> int:
        queryset: Any = self.object_list
        limit = MAX_EXACT_COUNT if can_estimate(queryset) else MAX_OFFSET
        counted: int = queryset.order_by()[: limit + 1].count()
        if counted <= limit:
            return counted
        return max(counted, estimated_count(queryset)) if can_estimate(queryset) else counted


class BoundedChangeList(ChangeList):
    """Sort only by what an index serves, and end at the last page of the paginator."""

    formset: Any = None
    _result_list: Any = None

    @property
    def result_list(self) -> Any:
        is_submitted = self.formset is not None and self.formset.is_bound
        return self._submitted_rows if is_submitted else self._result_list

    @result_list.setter
    def result_list(self, rows: Any) -> None:
        self._result_list = rows

    @cached_property
    def _submitted_rows(self) -> list[Any]:
        """Return the rows of the submitted forms. The list may contain them in another order or no longer."""
        instances = [form.instance for form in self.formset.initial_forms]
        rows = self.root_queryset.filter(pk__in=[row.pk for row in instances if row.pk is not None])
        stored = {row.pk: row for row in self.apply_select_related(rows)}
        return [stored.get(row.pk, row) for row in instances]

    def get_ordering_field(self, field_name: Any) -> Any:
        return super().get_ordering_field(field_name) if field_name in (self.sortable_by or ()) else None

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[Any]:
        """Return the keys, with the last one, the primary key, in the direction of the key before it.

        One index serves both then. In the other direction, PostgreSQL sorts all rows with the same value.
        """
        *keys, last = dict.fromkeys(super().get_ordering(request, queryset))
        if keys and isinstance(last, str) and last.removeprefix("-") in {"pk", self.opts.pk.name}:
            last = last.removeprefix("-")
            return [*keys, f"-{last}" if _is_descending(keys[-1]) else last]
        return [*keys, last]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if self.paginator.omits_rows and self.page_num >= self.paginator.num_pages:
            rows = self.paginator.num_pages * self.paginator.per_page
            messages.warning(request, LAST_PAGE_MESSAGE.format(rows))


def _is_descending(key: Any) -> bool:
    return key.startswith("-") if isinstance(key, str) else bool(getattr(key, "descending", False))


def _indexed_columns(model: Any) -> set[str]:
    """Return the names of the columns by which an index sorts the rows of the model."""
    opts = model._meta
    groups = [*(index.fields for index in opts.indexes), *(item.fields for item in opts.total_unique_constraints)]
    columns = {fields[0].removeprefix("-") for fields in groups if fields}
    return columns | {field.name for field in opts.concrete_fields if field.unique or field.db_index}


class DeletedFilter(admin.SimpleListFilter):
    title = "deletion"
    parameter_name = "deleted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "Deleted")]

    def choices(self, changelist: Any) -> Any:
        live, *others = super().choices(changelist)
        return [{**live, "display": "Not deleted"}, *others]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.deleted() if self.value() == "1" else queryset.live()


def is_comparable(field: Any, text: str, *, is_strict: bool = False) -> bool:
    """Return True if both databases can compare the column with this value.

    Unless `is_strict`, text that the column cannot parse passes: Django ignores such a filter and redirects to the
    unfiltered list.
    """
    if "\0" in text:
        return False
    column = field.target_field if field.is_relation else field
    try:
        return _is_in_range(column, column.to_python(text))
    except OverflowError:
        return False
    except (ValueError, TypeError, AttributeError, ValidationError):
        return not is_strict and not isinstance(column, models.GenericIPAddressField)


def _is_in_range(column: Any, value: Any) -> bool:
    if isinstance(column, models.IntegerField):
        return abs(int(value)) <= BIGINT_MAX
    if isinstance(column, models.DecimalField):
        return bool(abs(value) < 10 ** (column.max_digits - column.decimal_places))
    if isinstance(column, models.DateTimeField):
        value.astimezone(UTC)  # raises OverflowError
    if isinstance(column, models.GenericIPAddressField):
        column.run_validators(value)
    return True


def resolve_lookup(opts: Any, lookup: str) -> tuple[Any, list[str]]:
    """Return the last field on the path of a lookup, or None, and the parts behind it."""
    field: Any = None
    parts = lookup.split("__")
    while opts is not None and parts:
        try:
            field = opts.get_field(parts[0])
        except FieldDoesNotExist:
            break
        opts, parts = getattr(field.related_model, "_meta", None), parts[1:]
    return field, parts


def _is_valid_filter(field: Any, name: str, value: str) -> bool:
    if name in {"isnull", "isempty"}:
        return True
    values = value.split(",") if name == "in" else [value]
    return all(is_comparable(field, text) for text in values)


def refuse_long_search(search_term: str) -> None:
    if len(search_term.split()) > MAX_SEARCH_WORDS:
        raise BadRequest(f"A search has at most {MAX_SEARCH_WORDS} words.")


class BoundedChangeListMixin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Show a change list without counting the whole table, and refuse filters that no index serves."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each facet counts the whole table
    list_per_page = 50
    #: The search field, if it is the only one, has an index over live rows, and many rows have the same value.
    repeating_search_field: str | None = None

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

    def get_sortable_by(self, request: HttpRequest) -> list[Any]:
        columns = _indexed_columns(self.model)
        return [name for name in super().get_sortable_by(request) if self._sort_column(name) in columns]

    def _sort_column(self, name: Any) -> str:
        """Return the name of the column that a column of the list is sorted by, "" if it cannot be sorted."""
        attribute = name if callable(name) else getattr(self, name, getattr(self.model, name, None))
        column = getattr(attribute, "admin_order_field", name)
        return str(column).removeprefix("-") if isinstance(column, str) else ""

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        if not super().lookup_allowed(lookup, value, request):
            return False
        if lookup in {getattr(item, "parameter_name", None) for item in self.get_list_filter(request)}:
            return True
        field, parts = resolve_lookup(self.opts, lookup)
        if field is None:
            return True  # Django redirects to the unfiltered list
        [name, *others] = parts or ["exact"]
        is_permitted = name in ALLOWED_LOOKUPS and not others and field.name not in (self.exclude or ())
        return is_permitted and _is_valid_filter(field, name, value)

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        refuse_long_search(search_term)
        words = search_term.split()
        others = [word for word in words if not is_short(word)]
        if len(others) == len(words) or not self._has_short_search(queryset, request):
            return super().get_search_results(request, queryset, search_term)
        for word in words:
            queryset = self._search_word(queryset, word) if is_short(word) else queryset
        return super().get_search_results(request, queryset, " ".join(others))

    def _has_short_search(self, rows: Any, request: HttpRequest) -> bool:
        """Return True if an index finds rows by one or two letters. Django's own search reads the whole table."""
        if has_short_index(rows, self.search_fields):
            return True
        return self.repeating_search_field is not None and request.GET.get(DeletedFilter.parameter_name) != "1"

    def _search_word(self, rows: Any, word: str) -> Any:
        column = self.repeating_search_field
        values = matching_values(rows, column, word) if column else None
        return (
            search_rows(rows, self.search_fields, word) if values is None else rows.filter(**{f"{column}__in": values})
        )

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        try:
            return super().changelist_view(request, extra_context)
        except WRITE_CONFLICTS as error:
            if "_save" not in request.POST:
                raise
            # Validate again: the forms of the list now see the values of the other request.
            remember_conflict(request, error)
            return super().changelist_view(request, extra_context)
