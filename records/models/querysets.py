"""Query sets that audit what they write."""

from collections import Counter
from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Any, Self

from django.db import NotSupportedError, connections, models, router, transaction
from django.db.models import Exists, F, OuterRef, ProtectedError, Value
from django.utils import timezone

from records.db.expressions import AnyOf, IsDistinctFrom
from records.models.changes import Change, rows_purged
from records.models.relations import is_record, protects_target
from records.models.values import as_json, as_stored

#: They change with every change, and say nothing of it.
BOOKKEEPING = frozenset({"version", "updated_at"})


class RecordQuerySet(models.QuerySet):
    model: Any
    _db: str | None

    def visible_to(self, user) -> Self:
        """The rows that `user` may see: all if they are public, and for staff with view permission; else their own.

        None of them goes with another row that is deleted.
        """
        fates = self.model.parent_deletion_lookups()
        if self.model.is_public or user.may("view", self.model):
            return self.filter(**dict.fromkeys(fates))
        if self.model.owned_by is None:
            return self.none()
        own = f"{self.model._meta.get_field(self.model.owned_by).name}__deleted_at"  # the caller is not
        return self.filter(**{self.model.owned_by: user.pk}, **{name: None for name in fates if name != own})

    def update(self, **values) -> int:
        """Change the rows that are not so already, and tell the log: three statements, or four with expressions.

        Returns, as Django does, how many rows there are to which it applied.
        """
        return self._write(values)

    update.alters_data = True  # type: ignore[attr-defined]

    def _write(self, values: dict[str, Any], action: str | None = None) -> int:
        if not values:
            return self.count()
        fields = {self.model._meta.get_field(name): value for name, value in values.items()}
        audited = [field for field in fields if field.name not in BOOKKEEPING]
        with transaction.atomic(using=self._write_alias(), savepoint=False):
            before = self._locked_values(audited)
            if not before:
                return 0
            # Others may have made rows meanwhile that it applies to: what is not locked stays as it is.
            rows = (self if self.query.annotations else self._everything()).filter(AnyOf("pk", before))
            if audited:
                rows = rows.filter(reduce(or_, (_differs(field, fields[field]) for field in audited)))
            stamps = {"updated_at": timezone.now(), **values, "version": F("version") + 1}
            models.QuerySet.update(rows, **stamps)
            if any(hasattr(fields[field], "resolve_expression") for field in audited):
                after = self._everything().filter(AnyOf("pk", before))._values_by_key(audited)
            else:
                stored = tuple(as_stored(field, fields[field]) for field in audited)
                after = dict.fromkeys(before, (None, stored))
            changes = [
                change
                for key, (owner_id, old) in before.items()
                if (change := self.model._change(key, owner_id, audited, old, after[key][1]))
            ]
            self.model.announce(action or self.model.audit_action(audited), changes, self._write_alias())
        return len(before)

    def _locked_values(self, fields: list[models.Field], *, for_removal: bool = False) -> dict[Any, tuple]:
        """Key → owner's id and values of these columns, of rows that nobody else changes meanwhile; nor refers to,
        for their removal."""
        query, rows = self.query, self
        if query.distinct or query.group_by is not None or query.combinator:
            rows = self._everything().filter(pk__in=self.order_by().values("pk"))
        locked = rows.select_for_update(of=("self",), no_key=not for_removal)
        return locked.order_by("pk")._values_by_key(fields)

    def _values_by_key(self, fields: list[models.Field]) -> dict[Any, tuple]:
        names = [field.attname for field in fields]
        if self.model.owned_by is None:
            return {key: (None, values) for key, *values in self.values_list("pk", *names)}
        return {key: (owner, values) for key, owner, *values in self.values_list("pk", self.model.owned_by, *names)}

    def _everything(self) -> Self:
        return self.model.all_objects.using(self._write_alias())

    def _write_alias(self) -> str:
        return self._db or router.db_for_write(self.model)

    def bulk_create(self, objs, batch_size=None, ignore_conflicts=False, update_conflicts=False, **kwargs):
        if ignore_conflicts or update_conflicts:
            raise NotSupportedError("Which rows were made or changed is not told, so that the log could not tell it.")
        using, objs = self._write_alias(), list(objs)
        self.model.prepare_for_insert(objs)
        unsettled = (using, True) if connections[using].in_atomic_block else None
        with transaction.atomic(using=using, savepoint=False):
            made = super().bulk_create(objs, batch_size, **kwargs)
            self.model._log_creation(made, using)
        for row in made:
            row.__dict__["_unsettled"] = unsettled
        return made

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        """Remove the rows for good, and all that belongs to them; the log keeps their values."""
        return self._remove("delete")

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def purge(self) -> tuple[int, dict[str, int]]:
        """The same, with what the log knows of people: it keeps no value of these rows, of no time."""
        return self._remove("purge")

    purge.alters_data = True  # type: ignore[attr-defined]

    def _remove(self, action: str) -> tuple[int, dict[str, int]]:
        kept = self.model.audited_fields() if action == "delete" else []
        with transaction.atomic(using=self._write_alias()):
            # Locked against new references too: what belongs to the rows is found below, and told of.
            before = self._locked_values(kept, for_removal=True)
            if not before:
                return 0, {}
            self._raise_if_protected(before, for_good=True)
            counts: Counter[str] = Counter()
            for field in self._references():
                rows = field.model.all_objects.using(self._write_alias()).filter(AnyOf(field.name, before))
                match field.remote_field.on_delete:
                    case models.CASCADE:
                        counts.update(rows._remove(action)[1])
                    case models.SET_NULL:
                        rows.update(**{field.name: None})
                    case models.SET_DEFAULT:
                        rows.update(**{field.name: field.get_default()})
            counts.update(models.QuerySet.delete(self._everything().filter(AnyOf("pk", before)))[1])
            self.model.announce(
                action,
                [
                    Change(
                        key,
                        owner,
                        {field.attname: [as_json(old), None] for field, old in zip(kept, values, strict=True)},
                    )
                    for key, (owner, values) in before.items()
                ],
                self._write_alias(),
            )
            if action == "purge":
                rows_purged.send(self.model, keys=list(before), using=self._write_alias())
        return sum(counts.values()), dict(counts)

    def _references(self) -> list[Any]:
        """The foreign keys by which records point to ours."""
        relations: Any = self.model._meta.related_objects
        return [each.field for each in relations if not each.many_to_many and is_record(each.related_model)]

    def held_by(self, keys: Iterable[Any], *, for_good: bool) -> list[str]:
        """What keeps these rows from being deleted: "3 products", deleted ones too where it is for good."""
        found = []
        for field in filter(protects_target, self._references()):
            rows = field.model.all_objects if for_good else field.model.objects
            if count := rows.using(self._write_alias()).filter(AnyOf(field.name, keys)).count():
                kind = field.model._meta
                found.append(f"{count:,} {kind.verbose_name if count == 1 else kind.verbose_name_plural}")
        return found

    def _raise_if_protected(self, keys: Iterable[Any], *, for_good: bool) -> None:
        if held_by := self.held_by(keys, for_good=for_good):
            raise ProtectedError(f"The {self.model._meta.verbose_name} is in use by {' and '.join(held_by)}.", set())

    def _unprotected(self) -> Self:
        rows = self
        for field in filter(protects_target, self._references()):
            rows = rows.filter(~Exists(field.model.all_objects.filter(**{field.name: OuterRef("pk")})))
        return rows


def _unaudited(model: type[models.Model], using: str) -> models.QuerySet:
    """Django's own, which tells the log nothing: for those who do."""
    return models.QuerySet(model, using=using)


def _differs(field: models.Field, value: Any) -> IsDistinctFrom:
    if not hasattr(value, "resolve_expression"):
        value = Value(value.pk if isinstance(value, models.Model) else value, field)
    return IsDistinctFrom(F(field.attname), value)


def _differ(field: models.Field, stored: Any, present: Any) -> bool:
    """Whether the database would hold something else: "175.50" is what it has as Decimal("175.5")."""
    if hasattr(present, "resolve_expression"):
        return True
    return stored != present and field.get_prep_value(stored) != field.get_prep_value(present)
