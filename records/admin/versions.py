"""Forms that know the version of the row with which they were opened.

A form carries a signed summary of the row: its version, and a digest of the value of each field. When it is submitted,
the summary shows whether the row has changed since, and which fields the user has edited. Hidden copies of the values
would show the same, but double the size of the request.
"""

from dataclasses import dataclass, replace
from typing import Any

from django import forms
from django.core import signing
from django.core.exceptions import ValidationError
from django.forms.formsets import DELETION_FIELD_NAME
from django.template.loader import render_to_string
from django.utils.functional import cached_property, lazy

from records.admin.form_values import digest, digest_of_stored, submitted_value
from records.admin.log_text import describe_changes, value_text
from records.audit.models import AuditEntry
from records.models import Record

#: Name of the hidden field.
OPENED = "opened_version"
#: Code of the errors of a form whose row has changed.
CONFLICT = "conflict"
#: Changes that a form lists.
MAX_LINES = 10


@dataclass(frozen=True)
class OpenedRow:
    """A row as a form displayed it."""

    version: int | None
    is_deleted: bool
    #: Name of each field → digest of its value.
    digests: dict[str, str]
    #: Id of the latest audit entry, of any row.
    last_entry: int = 0

    def sign(self, row: Any) -> str:
        values = [self.version, self.is_deleted, self.digests, self.last_entry]
        return signing.dumps(values, salt=_salt(row), compress=True)

    @classmethod
    def from_signed(cls, text: str | None, row: Any) -> "OpenedRow | None":
        """Return the row with which a form was opened, or None if the text is no signature for this row."""
        try:
            return cls(*signing.loads(text or "", salt=_salt(row)))
        except signing.BadSignature:
            return None


def _salt(row: Any) -> str:
    return f"records.admin.versions:{row._meta.label_lower}:{row.pk}"


class LogPosition:
    """The id of the latest audit entry, read once for all forms of a page, after their rows.

    An entry that was being written then may have a lower id: its change is found by the version, but not described.
    """

    @cached_property
    def last_entry(self) -> int:
        return AuditEntry.objects.order_by("-id").values_list("id", flat=True).first() or 0


class OpenedField(forms.CharField):
    """The hidden field. Every page carries the row as it is now, also one that displays errors."""

    widget = forms.HiddenInput

    def bound_data(self, data: Any, initial: Any) -> Any:
        return initial

    def has_changed(self, initial: Any, data: Any) -> bool:
        return False


@dataclass(frozen=True)
class ConcurrentChange:
    """What others have changed in a row since a form was opened."""

    headline: str
    lines: list[str]
    remaining: int

    def __str__(self) -> str:
        return render_to_string("records/concurrent_change.html", {"change": self})

    @classmethod
    def between(cls, opened: OpenedRow | None, stored: OpenedRow, row: Any) -> "ConcurrentChange":
        name = row._meta.verbose_name
        if opened is None:
            headline = f"Nothing was saved: the form does not say which version of this {name} it was opened with."
            return cls(headline, [], 0)
        what = "was changed"
        if stored.is_deleted != opened.is_deleted:
            what = "was deleted" if stored.is_deleted else "was restored"
        lines = describe_changes(type(row), row.pk, opened.last_entry) if isinstance(row, Record) else []
        lines = lines or ["Changed by somebody: the audit log does not say who and what"]
        headline = f"Nothing was saved: this {name} {what} after the form was opened."
        return cls(headline, lines[:MAX_LINES], len(lines[MAX_LINES:]))


class VersionedForm(forms.ModelForm):  # type: ignore[type-arg]
    """A form that saves nothing if its row has changed since it was opened.

    It is displayed again then: with the input of the user in the fields that they edited, with the stored values in all
    others, and for the version that is stored now.
    """

    #: Whether the form is a row of a list or of an inline. Those submit all rows: only edited ones are checked.
    is_row = False
    #: Whether the form was submitted for a row that was removed since, or moved to another form.
    is_gone = False
    concurrent_change: ConcurrentChange | None = None
    log_position: LogPosition

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log_position = LogPosition()
        if not self.instance._state.adding:
            for field in self.fields.values():
                field.show_hidden_initial = False  # Django would compare the input with it, not with the stored value
            # Lazy: a form that is saved needs no new signature.
            self.fields[OPENED] = OpenedField(required=False, initial=lazy(lambda: self.signature, str)())

    @cached_property
    def stored(self) -> OpenedRow:
        """Return the row as it is stored now."""
        digests = {
            name: digest_of_stored(field, self.initial[name])
            for name, field in self.fields.items()
            if name in self.initial and not field.disabled
        }
        return OpenedRow(
            version=self.instance.version if isinstance(self.instance, Record) else None,
            is_deleted=bool(getattr(self.instance, "is_deleted", False)),
            digests=digests,
        )

    @cached_property
    def signature(self) -> str:
        last_entry = self.log_position.last_entry if isinstance(self.instance, Record) else 0
        return replace(self.stored, last_entry=last_entry).sign(self.instance)

    @cached_property
    def opened(self) -> OpenedRow | None:
        """Return the row with which the form was opened, or None if the form does not say so."""
        return OpenedRow.from_signed(self[OPENED].data, self.instance)

    @cached_property
    def is_stale(self) -> bool:
        """Whether the row has changed since the form was opened, or may have."""
        if OPENED not in self.fields:
            return False
        if self.opened is None or self.opened.version != self.stored.version:
            return True
        # Changes of many-to-many relations do not raise the version.
        return any(self._is_changed_by_others(name) for name in self.opened.digests)

    def is_edited(self, name: str) -> bool:
        """Return True if the user has changed the field, as far as the form says."""
        if self.opened is None or name not in self.opened.digests:
            return True
        try:
            return digest(submitted_value(self[name])) != self.opened.digests[name]
        except ValidationError:
            return True

    def refuse_if_stale(self) -> bool:
        """Add errors and return True if saving the form could overwrite what others have changed."""
        if self.is_gone:
            self.add_error(
                None, f"This {self.instance._meta.verbose_name} is not in the list any more. Reload the page."
            )
            return True
        if not self.is_stale:
            return False
        # Also in a row that is not refused: if the page is displayed again, the next save must not restore old values.
        for name in self.stored.digests.keys() - set(self.changed_data):
            self._display_stored(name)
        if not self._has_effect():
            return False
        self.concurrent_change = ConcurrentChange.between(self.opened, self.stored, self.instance)
        for name in self.changed_data:
            if self.opened is None or self._is_changed_by_others(name):
                self._add_stored(name)
        text = str(self.concurrent_change) if self.is_row else self.concurrent_change.headline
        self.add_error(None, ValidationError(text, code=CONFLICT))
        return True

    @property
    def has_other_errors(self) -> bool:
        """Whether the form has errors besides those about the concurrent change."""
        return any(error.code != CONFLICT for errors in self.errors.as_data().values() for error in errors)

    def _has_effect(self) -> bool:
        is_deletion = bool(self.cleaned_data.get(DELETION_FIELD_NAME))
        return not self.is_row or self.opened is None or bool(self.changed_data) or is_deletion

    def _is_changed_by_others(self, name: str) -> bool:
        opened = self.opened.digests if self.opened else {}
        stored = self.stored.digests
        return name in opened and name in stored and opened[name] != stored[name]

    def _display_stored(self, name: str) -> None:
        field: Any = self.fields[name]
        field.bound_data = lambda data, initial: initial
        self.errors.pop(name, None)

    def _add_stored(self, name: str) -> None:
        """Display the stored value of a field next to the input of the user."""
        if name not in self.stored.digests:
            return  # not a field of the row
        column = self.instance._meta.get_field(name)
        is_secret = column.name in getattr(self.instance, "secret_fields", ())
        text = "a value that is not displayed" if is_secret else value_text(column, self.initial[name])
        self.add_error(name, ValidationError(f"Stored now: {text}", code=CONFLICT))
