"""Sentences about changes that the audit log recorded."""

from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.utils.formats import localize
from django.utils.text import Truncator
from django.utils.timezone import is_aware, localtime

from records.audit.models import AuditEntry
from records.models.soft_deletion import DELETION_STATE
from records.models.values import as_json, from_json

#: Entries that a description of changes reads at most.
MAX_ENTRIES = 100
MAX_VALUE_LENGTH = 80
#: Actions whose entries have no values, because the log keeps no passwords.
PASSWORD_ACTIONS = ("password_change", "password_reset")


def with_usernames(entries: QuerySet[Any]) -> QuerySet[Any]:
    """Annotate each entry with the `username` of its actor, or null if the user no longer exists."""
    user_model: Any = get_user_model()
    usernames = user_model.all_objects.filter(pk=OuterRef("user_id")).values(user_model.USERNAME_FIELD)
    annotated: QuerySet[Any] = entries.annotate(username=Subquery(usernames[:1]))
    return annotated


def describe_changes(model: Any, key: Any, after: int) -> list[str]:
    """Return a sentence for each field of the row that the entries after this id changed, the latest first."""
    entries = AuditEntry.objects.of_row(model, key).filter(pk__gt=after, outcome=AuditEntry.Outcome.SUCCESS)
    entries = entries.exclude(Q(changes={}) & ~Q(action__in=PASSWORD_ACTIONS))
    return [
        line for entry in with_usernames(entries).order_by("-id")[:MAX_ENTRIES] for line in _sentences(model, entry)
    ]


def _sentences(model: Any, entry: Any) -> Iterator[str]:
    by = f"by {_actor(entry)} {_age(entry.at)}"
    if not entry.changes:
        yield f"Password changed {by}"
    if "deleted_at" in entry.changes:
        yield f"{'Deleted' if entry.changes['deleted_at'][1] else 'Restored'} {by}"
    for name, (old, new) in entry.changes.items():
        if name not in DELETION_STATE:
            label, *texts = _label_and_texts(model, name, old, new)
            yield f"Changed {by}: {label} {' → '.join(texts)}"


def _actor(entry: Any) -> str:
    if entry.username:
        return str(entry.username)
    is_command = entry.user_id is None and entry.ip is None and entry.request_id is not None
    return "a command" if is_command else "somebody"


def _age(moment: datetime) -> str:
    text = naturaltime(moment).replace("\xa0", " ")
    return "just now" if text == "now" else text


def _label_and_texts(model: Any, name: str, *values: Any) -> tuple[str, ...]:
    try:
        column = model._meta.get_field(name)
    except FieldDoesNotExist:
        return (name, *(_shortened(str(value)) for value in values))  # a column that was removed since
    return (str(column.verbose_name), *(value_text(column, value) for value in values))


def value_text(column: Any, value: Any) -> str:
    """Return a value of a column, or its JSON in an entry, as a reader expects it: labels and names, not keys."""
    if value is None or value == "" or value == []:
        return "(empty)"
    if column.is_relation:
        return _shortened(", ".join(_names(column, value if isinstance(value, list) else [value])))
    if column.choices:
        return str(dict(column.flatchoices).get(value, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    try:
        stored = from_json(column, value)
    except ValidationError:
        return _shortened(str(value))  # the type of the column has changed since
    if isinstance(stored, datetime) and is_aware(stored):
        stored = localtime(stored)
    if isinstance(stored, (date, time)):
        return str(localize(stored))
    return _shortened(str(as_json(value)))


def _names(column: Any, values: list[Any]) -> list[str]:
    """Return the referenced rows as text, and the keys of those that no longer exist."""
    target = column.related_model
    try:
        keys = [value.pk if isinstance(value, target) else target._meta.pk.to_python(value) for value in values]
    except ValidationError:
        return [str(value) for value in values]
    rows = target._base_manager.in_bulk(keys[:MAX_ENTRIES])
    return [str(rows.get(key, key)) for key in keys]


def _shortened(text: str) -> str:
    return Truncator(text).chars(MAX_VALUE_LENGTH)
