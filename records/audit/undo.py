"""Undo audited changes by new changes, which are audited like all others and can be undone too."""

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import QuerySet
from django.utils.text import capfirst

from records import context
from records.audit.models import AuditEntry
from records.audit.reversal import Reversal, is_empty, reversals
from records.audit.steps import grouped_steps
from records.db.constraints import violation_of
from records.db.expressions import AnyOf
from records.exceptions import ConflictError, FieldError
from records.models import Record
from records.models.values import as_json

MAX_ENTRIES = 100_000
MAX_NAMED_CONFLICTS = 20

#: Key of a row → the locked row.
LockedRows = dict[tuple[Any, Any], Record]


def undo(entries: QuerySet[AuditEntry], user: Any) -> int:
    """Set the rows of these entries back to what they were before them; return the number of rows.

    All rows or none. Rows that need the same write share its statements; many-to-many relations are written row by row.
    Raise ConflictError if a row has changed since or cannot be set back, and PermissionDenied if `user` may not change
    the rows.
    """
    selected = list(entries.order_by("id")[: MAX_ENTRIES + 1])
    if len(selected) > MAX_ENTRIES:
        raise ConflictError(f"More than {MAX_ENTRIES:,} changes cannot be undone at once.")
    rows = reversals(selected)
    try:
        with transaction.atomic(), context.record_as("undo"):
            _raise_conflicts(rows, _lock_permitted(rows, user), is_single=len(selected) == 1)
            for step, group in grouped_steps(rows):
                step.write(group)
    except ValidationError as error:
        raise ConflictError(error.messages[0]) from None
    except models.ProtectedError as error:
        raise ConflictError(f"Nothing was undone: {error.args[0]}") from None
    except IntegrityError as error:
        raise _lost_race(error) from None
    return len(rows)


def _lost_race(error: IntegrityError) -> ConflictError:
    violation = violation_of(error)
    if violation is None:
        return ConflictError("Nothing was undone: what a row referred to is gone, or an old value is taken.")
    errors = [FieldError(violation.model, violation.field, violation.message)]
    return ConflictError("Nothing was undone: an old value is taken.", errors)


def _lock_permitted(rows: list[Reversal], user: Any) -> LockedRows:
    """Lock the rows and return them. Raise PermissionDenied if `user` may not undo their changes."""
    locked: LockedRows = {}
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model is model]
        _raise_unless_permitted(own, model, user)
        chosen = model.all_objects.filter(AnyOf("pk", [row.key for row in own]))
        for instance in chosen.select_for_update(of=("self",), no_key=True).order_by("pk"):
            locked[model, instance.pk] = instance
        # Behind the lock: which rows are forbidden may depend on what others have just changed.
        if forbidden := model.forbidden_keys(user, {row.key: () if row.is_new else row.before for row in own}):
            raise PermissionDenied(f"You may not change {model._meta.verbose_name} {min(forbidden)} so.")
    return locked


def _raise_unless_permitted(rows: Iterable[Reversal], model: Any, user: Any) -> None:
    verbs = {"delete" if row.is_new or row.before.get("deleted_at") else "change" for row in rows}
    if not all(user.may(verb, model) for verb in verbs):
        raise PermissionDenied(f"You may not {' and '.join(sorted(verbs))} {model._meta.verbose_name_plural}.")


def _raise_conflicts(rows: list[Reversal], locked: LockedRows, *, is_single: bool) -> None:
    """Raise ConflictError if a row differs from what the entries left. With `is_single`, errors do not name the row."""
    for row in rows:
        instance = locked.get((row.model, row.key))
        if instance is None:
            raise ConflictError(f"There is no {row} any more.")
        row.compare(instance)
    changed = [row for row in rows if row.conflicts]
    if not changed:
        return
    errors = [
        FieldError(
            row.model,
            name,
            f"It was {_as_text(expected)} then and is {_as_text(current)} now.",
            "" if is_single else f"{row.model._meta.db_table}.{row.key}",
        )
        for row in changed
        for name, (expected, current) in row.conflicts.items()
    ]
    others = f" So have {len(changed) - 1:,} others." if len(changed) > 1 else ""
    message = f"{capfirst(str(changed[0]))} has changed since.{others} Nothing was undone."
    raise ConflictError(message, errors[:MAX_NAMED_CONFLICTS])


def _as_text(value: Any) -> str:
    return "empty" if is_empty(value) else str(as_json(value))
