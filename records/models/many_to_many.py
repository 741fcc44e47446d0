"""Auditing of many-to-many relations, such as a person's groups."""

from collections import defaultdict
from typing import Any

from django.db.models.signals import m2m_changed
from django.dispatch import receiver

from records.models.changes import Change
from records.models.record import Record


@receiver(m2m_changed)
def _log_relation(sender, instance, action, reverse, model, pk_set, using, **kwargs) -> None:
    """What a record is related to, such as a person's groups, is told like one of its columns."""
    if action not in {"post_add", "pre_remove", "pre_clear"}:
        return
    record = model if reverse else type(instance)
    relation = next((each for each in record._meta.many_to_many if each.remote_field.through is sender), None)
    if relation is None or not issubclass(record, Record):
        return
    from_field, to_field = relation.m2m_field_name(), relation.m2m_reverse_field_name()
    links = sender._base_manager.using(using)
    links = links.filter(**{f"{to_field if reverse else from_field}_id": instance.pk})
    changed = set(links.values_list(f"{from_field}_id", f"{to_field}_id"))
    if pk_set is not None:
        changed = {pair for pair in changed if pair[0 if reverse else 1] in pk_set}
    rows = record.all_objects.using(using).filter(pk__in={row for row, _ in changed})
    present: dict[Any, set] = defaultdict(set)
    for row, other in (
        sender._base_manager.using(using)
        .filter(**{f"{from_field}__in": rows})
        .values_list(f"{from_field}_id", f"{to_field}_id")
    ):
        present[row].add(other)
    changes = []
    for row in rows:
        others = {other for key, other in changed if key == row.pk}
        without = sorted(present[row.pk] - others)
        values = [without, sorted(present[row.pk])]
        pair = values if action == "post_add" else values[::-1]
        changes.append(Change(row.pk, row._owner_id(), {relation.name: pair}))
    record.announce("update", changes, using)
