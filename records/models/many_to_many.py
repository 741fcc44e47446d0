"""Auditing of many-to-many relations: a person's groups are audited like one of their columns."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.db.models.signals import m2m_changed, pre_delete

from records.models.changes import Change
from records.models.record import Record


def connect_signals() -> None:
    """Connect the receivers; to be called when all models are loaded."""
    m2m_changed.connect(_announce_links)
    records = [model for model in apps.get_models() if issubclass(model, Record)]
    for target in {relation.related_model for model in records for relation in model._meta.many_to_many}:
        pre_delete.connect(_remove_links, sender=target)


def _remove_links(sender: Any, instance: Any, **kwargs: Any) -> None:
    # Before Django deletes the rows that link a group to its members, which sends no signal.
    for relation in sender._meta.related_objects:
        if relation.many_to_many and issubclass(relation.related_model, Record):
            getattr(instance, relation.get_accessor_name()).clear()


def _announce_links(
    sender: Any, instance: Any, action: str, reverse: bool, model: Any, pk_set: Any, using: str, **kwargs: Any
) -> None:
    if action not in {"post_add", "pre_remove", "pre_clear"}:
        return
    record: Any = model if reverse else type(instance)
    relation = _relation_through(sender, record)
    if relation is None:
        return
    columns = f"{relation.m2m_field_name()}_id", f"{relation.m2m_reverse_field_name()}_id"
    own, other = columns[::-1] if reverse else columns
    links = sender._base_manager.using(using)
    of_instance = links.filter(**{own: instance.pk})
    if pk_set is not None:
        of_instance = of_instance.filter(**{f"{other}__in": pk_set})
    changed = _targets_by_row(of_instance.values_list(*columns))
    linked = _targets_by_row(links.filter(**{f"{columns[0]}__in": list(changed)}).values_list(*columns))
    changes = []
    for row in record.all_objects.using(using).filter(pk__in=list(changed)):
        pair = [sorted(linked[row.pk] - changed[row.pk]), sorted(linked[row.pk])]
        changes.append(Change(row.pk, row.owner_pk, {relation.name: pair if action == "post_add" else pair[::-1]}))
    record.announce("update", changes, using)


def _relation_through(through: Any, model: Any) -> Any:
    """Return the many-to-many field of a record that uses this table; None if there is none."""
    if not issubclass(model, Record):
        return None
    relations: Iterable[Any] = model._meta.many_to_many
    return next((relation for relation in relations if relation.remote_field.through is through), None)


def _targets_by_row(links: Iterable[tuple[Any, Any]]) -> dict[Any, set[Any]]:
    targets: dict[Any, set[Any]] = defaultdict(set)
    for row, target in links:
        targets[row].add(target)
    return targets
