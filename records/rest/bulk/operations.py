"""Creating, changing and deleting many rows: check all, then write those that are not refused."""

import copy
from abc import ABC, abstractmethod
from functools import cached_property
from http import HTTPStatus
from typing import Any, ClassVar

from django.db import Error, IntegrityError, OperationalError, connections, models, router, transaction
from rest_framework.exceptions import APIException, ValidationError

from records.db.availability import DEADLOCK, sqlstate
from records.db.expressions import AnyOf
from records.exceptions import ConflictError
from records.rest.bulk.rows import Batch, Row, precondition_error
from records.rest.checks import Candidate, check
from records.rest.errors import ConflictResponse, from_constraint
from records.rest.identifiers import not_found

#: How often to check and write again if concurrent requests take what was free.
MAX_ATTEMPTS = 3


class Operation(ABC):
    """A write of the rows of a batch, for a viewset."""

    #: Status of the response if all rows are written.
    success: ClassVar[HTTPStatus] = HTTPStatus.OK
    #: Status of each row where others may be refused.
    row_success: ClassVar[HTTPStatus] = HTTPStatus.OK

    def __init__(self, view: Any, batch: Batch) -> None:
        self.view = view
        self.model = view.model
        self.batch = batch

    def run(self) -> list[dict[str, Any]]:
        """Write the rows, and return the response of each that was written, in the order of the request."""
        self.prepare()
        with transaction.atomic():
            self.check()
            self.batch.raise_if_refused()
            self._write_checked()
            self.batch.raise_if_refused()
            return self.items()

    def items(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.view.written_rows([row.written for row in self.batch])
        return items

    @abstractmethod
    def prepare(self) -> None:
        """Refuse rows for what needs no transaction."""

    @abstractmethod
    def check(self) -> None:
        """Refuse rows that cannot be written."""

    @abstractmethod
    def check_again(self) -> None:
        """Refuse rows that cannot be written any more, because a concurrent request was faster."""

    @abstractmethod
    def write(self, rows: list[Row]) -> None:
        """Write these rows. This is called again if the database has refused it."""

    def _write_checked(self) -> None:
        for _ in range(MAX_ATTEMPTS):
            if self._try_to_write(list(self.batch)) is None:
                return
            self.check_again()
            self.batch.raise_if_refused()
        self._write_halves(list(self.batch))

    def _write_halves(self, rows: list[Row]) -> None:
        """Write these rows, and refuse those that cause a conflict which no check finds."""
        conflict = self._try_to_write(rows)
        if conflict is None:
            return
        if len(rows) == 1:
            rows[0].refuse(conflict)
            return
        middle = len(rows) // 2
        self._write_halves(rows[:middle])
        self._write_halves(rows[middle:])

    def _try_to_write(self, rows: list[Row]) -> APIException | None:
        """Write these rows or none; return the error if they conflict with what is stored."""
        if not rows:
            return None
        try:
            with transaction.atomic():
                self.write(rows)
                self._check_references()
        except Error as error:
            if (conflict := _conflict_of(error)) is None:
                raise
            return conflict
        return None

    def _check_references(self) -> None:
        """Raise IntegrityError for references to rows that are gone, which PostgreSQL would check at the end."""
        connection = connections[router.db_for_write(self.model)]
        has_references = any(isinstance(column, models.ForeignKey) for column in self.model._meta.concrete_fields)
        if has_references and connection.vendor == "postgresql":
            connection.check_constraints()


class ValidatedRows(Operation):
    """An operation whose rows have values."""

    #: Whether a row may leave out fields.
    is_partial: ClassVar[bool]

    @cached_property
    def serializer(self) -> Any:
        """One serializer for all rows, because building its fields takes longer than validating a row."""
        return self.view.get_serializer(partial=self.is_partial)

    def validate(self, row: Row) -> None:
        self.serializer.instance = row.stored
        try:
            row.attrs = self.serializer.validate_values(row.data)
        except ValidationError as error:
            row.refuse(error)
            return
        added = self.view.added_values(row.attrs) if row.stored is None else {}
        row.candidate = self.serializer.candidate(row.attrs, **added)
        row.attrs = {**row.attrs, **added}

    def refuse_invalid(self) -> None:
        """Refuse rows with values that the database does not accept."""
        rows = list(self.batch)
        check([row.candidate for row in rows], self.model, self.view.request.user)
        for row in rows:
            if row.candidate.errors:
                row.refuse(self.serializer.by_field(row.candidate.errors))

    def check_again(self) -> None:
        # Also the columns that were not sent: the default of one may be taken.
        columns = [column.attname for column in self.model._meta.concrete_fields if not column.primary_key]
        for row in self.batch:
            row.candidate = Candidate(row.candidate.row, columns, row.candidate.stored)
        self.refuse_invalid()


class StoredRows(Operation):
    """An operation on rows that exist."""

    #: Whether an item may be an id instead of an object.
    allow_bare_keys: ClassVar[bool] = False

    def prepare(self) -> None:
        self.batch.read_keys(self.model, allow_bare=self.allow_bare_keys)

    def lock(self) -> None:
        """Lock the rows. Refuse those that the user may not see or change, and those that have another version."""
        rows = [row for row in self.batch.rows if row.key is not None]
        visible = self.view.get_queryset().filter(AnyOf("pk", [row.key for row in rows]))
        # In the order of keys, so that concurrent requests wait for each other instead of deadlocking.
        locked = visible.select_for_update(of=("self",), no_key=True).order_by("pk")
        stored = {instance.pk: instance for instance in locked}
        for row in rows:
            row.stored = stored.get(row.key)
            if row.stored is None:
                row.refuse(not_found(self.model, str(row.key)))
        refused = self.view.refused_rows([row.stored for row in rows if row.stored is not None])
        for row in self.batch:
            if error := refused.get(row.key) or precondition_error(row):
                row.refuse(error)


class Create(ValidatedRows):
    success = row_success = HTTPStatus.CREATED
    is_partial = False

    def prepare(self) -> None:
        self.batch.limit(getattr(self.serializer.Meta, "row_limits", {}))
        for row in self.batch:
            if row.is_object():
                self.validate(row)

    def check(self) -> None:
        self.refuse_invalid()

    def write(self, rows: list[Row]) -> None:
        for row in rows:
            row.written = self.serializer.build(row.attrs)
        self.model.objects.bulk_create([row.written for row in rows])


class Update(StoredRows, ValidatedRows):
    is_partial = True

    def check(self) -> None:
        self.lock()
        for row in self.batch:
            self.validate(row)
        refused = self.view.refused_changes([row.candidate for row in self.batch])
        for row in self.batch:
            if error := refused.get(row.key):
                row.refuse(error)
        self.refuse_invalid()

    def write(self, rows: list[Row]) -> None:
        for row in rows:
            row.written = copy.copy(row.stored)  # a copy, because the database may refuse it
            self.serializer.assign(row.written, row.attrs)
        self.model.all_objects.bulk_save([row.written for row in rows])


class Delete(StoredRows):
    row_success = HTTPStatus.NO_CONTENT
    allow_bare_keys = True

    def prepare(self) -> None:
        super().prepare()
        self.options = self.view.deletion_options()

    def check(self) -> None:
        self.lock()
        self.check_again()

    def check_again(self) -> None:
        keys = [row.key for row in self.batch]
        reasons = self.model.all_objects.protection_of(keys, permanently=not self.model.is_soft_deletable)
        for row in self.batch:
            if row.key in reasons:
                row.refuse(ConflictResponse(ConflictError(reasons[row.key])))

    def items(self) -> list[dict[str, Any]]:
        return [{} for _ in self.batch]

    def write(self, rows: list[Row]) -> None:
        self.model.all_objects.filter(AnyOf("pk", [row.key for row in rows])).delete(**self.options)


def _conflict_of(error: Error) -> APIException | None:
    """Return the error of the API for a write that lost a race; None if it failed for another reason."""
    if isinstance(error, models.ProtectedError):
        return ConflictResponse(ConflictError(error.args[0]))
    if isinstance(error, IntegrityError):
        return from_constraint(error)
    if isinstance(error, OperationalError) and sqlstate(error) == DEADLOCK:
        return ConflictResponse(ConflictError("Another request changed the same rows at the same time."))
    return None
