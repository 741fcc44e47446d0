"""What every stored row shares."""

import copy
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, reduce
from operator import or_
from typing import Any, ClassVar, Self, cast

from django.core.exceptions import ValidationError
from django.db import DatabaseError, NotSupportedError, connections, models, router, transaction
from django.db.models import Exists, F, OuterRef, ProtectedError, Value
from django.db.models.signals import m2m_changed
from django.dispatch import receiver
from django.utils import timezone

from records import audit
from records.db.text import LineField
from records.expressions import AnyOf, Differs
from records.history import AuditEntry, Change, as_json, as_stored, is_same_moment

#: They change with every change, and say nothing of it.
BOOKKEEPING = frozenset({"version", "updated_at"})


class RowGoneError(DatabaseError):
    """The row that was to be saved is gone."""


class RecordQuerySet(models.QuerySet):
    model: Any
    _db: str | None

    def visible_to(self, user) -> Self:
        """The rows that `user` may see: all if they are public, and for staff with view permission; else their own.

        None of them goes with another row that is deleted.
        """
        fates = self.model.fates()
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
            self._log.record(self.model, action or self.model.action_of(audited), changes)
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

    @property
    def _log(self) -> Any:
        return self.model._log(self._write_alias())

    def bulk_create(self, objs, batch_size=None, ignore_conflicts=False, update_conflicts=False, **kwargs):
        if ignore_conflicts or update_conflicts:
            raise NotSupportedError("Which rows were made or changed is not told, so that the log could not tell it.")
        using, objs = self._write_alias(), list(objs)
        self.model.prepare(objs)
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
            self._refuse_held(before, for_good=True)
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
            self._log.record(
                self.model,
                action,
                [
                    Change(
                        key,
                        owner,
                        {field.attname: [as_json(old), None] for field, old in zip(kept, values, strict=True)},
                    )
                    for key, (owner, values) in before.items()
                ],
            )
            if action == "purge":
                self._log.erase_personal_data(self.model, list(before))
        return sum(counts.values()), dict(counts)

    def _references(self) -> list[Any]:
        """The foreign keys by which records point to ours."""
        relations: Any = self.model._meta.related_objects
        return [each.field for each in relations if not each.many_to_many and issubclass(each.related_model, Record)]

    def held_by(self, keys: Iterable[Any], *, for_good: bool) -> list[str]:
        """What keeps these rows from being deleted: "3 products", deleted ones too where it is for good."""
        found = []
        for field in filter(holds, self._references()):
            rows = field.model.all_objects if for_good else field.model.objects
            if count := rows.using(self._write_alias()).filter(AnyOf(field.name, keys)).count():
                kind = field.model._meta
                found.append(f"{count:,} {kind.verbose_name if count == 1 else kind.verbose_name_plural}")
        return found

    def _refuse_held(self, keys: Iterable[Any], *, for_good: bool) -> None:
        if held_by := self.held_by(keys, for_good=for_good):
            raise ProtectedError(f"The {self.model._meta.verbose_name} is in use by {' and '.join(held_by)}.", set())

    def _unheld(self) -> Self:
        rows = self
        for field in filter(holds, self._references()):
            rows = rows.filter(~Exists(field.model.all_objects.filter(**{field.name: OuterRef("pk")})))
        return rows


def _unaudited(model: type[models.Model], using: str) -> models.QuerySet:
    """Django's own, which tells the log nothing: for those who do."""
    return models.QuerySet(model, using=using)


def _differs(field: models.Field, value: Any) -> Differs:
    if not hasattr(value, "resolve_expression"):
        value = Value(value.pk if isinstance(value, models.Model) else value, field)
    return Differs(F(field.attname), value)


def _differ(field: models.Field, stored: Any, present: Any) -> bool:
    """Whether the database would hold something else: "175.50" is what it has as Decimal("175.5")."""
    if hasattr(present, "resolve_expression"):
        return True
    return stored != present and field.get_prep_value(stored) != field.get_prep_value(present)


class Record(models.Model):
    """A row that knows when it was made and how often it was changed, and tells the audit log of it.

    `save()` of a stored row writes only the columns that were changed, and nothing where nothing was; whatever
    writes through the model tells the log, in its own transaction. What SQL of one's own writes, nobody knows of.
    """

    #: The lookup from a row to its owner's id, for rows that belong to a user: they see and change their own.
    owned_by: ClassVar[str | None] = None
    #: Whether anybody may read the rows, without an account too.
    is_public: ClassVar[bool] = False
    #: Columns whose values the log must not know.
    secret_fields: ClassVar[frozenset[str]] = frozenset()

    created_at = models.DateTimeField(auto_now_add=True, help_text="When the row was created.")
    updated_at = models.DateTimeField(auto_now=True, help_text="When the row was last changed.")
    version = models.PositiveBigIntegerField(
        default=1, editable=False, help_text="Raised by 1 by every change of the row."
    )

    objects: ClassVar[Any] = RecordQuerySet.as_manager()
    all_objects: ClassVar[Any] = RecordQuerySet.as_manager()

    class Meta:
        abstract = True
        base_manager_name = "all_objects"  # by which Django writes what stands on the other side of a relation

    @classmethod
    def from_db(cls, db, field_names, values) -> Self:  # type: ignore[override]
        record = super().from_db(db, field_names, values)
        record._remember(field_names)
        return record

    def _remember(self, attnames: Iterable[str]) -> None:
        """Keep what the database was read to hold in these columns, to tell later what was changed."""
        present = {name: self.__dict__[name] for name in attnames if name in self.__dict__}
        # Not in place: copies of this instance have their own.
        self.__dict__["_stored"] = self._stored_values() | {
            name: copy.deepcopy(value) if isinstance(value, (dict, list)) else value for name, value in present.items()
        }

    def _remember_written(self, values: dict[str, Any]) -> None:
        self.__dict__["_stored"] = self._stored_values() | copy.deepcopy(values)

    def _stored_values(self) -> dict[str, Any]:
        """Column → what the database holds, as far as we know; `version`, where we know it, is that of all the rest."""
        return self.__dict__.get("_stored", {})

    def _make_sure(self) -> None:
        """Read again what was written in a transaction that others ended: it may have been rolled back."""
        using, was_new = self.__dict__.get("_unsettled") or (None, False)
        if using is None:
            return
        row = _unaudited(type(self), using).filter(pk=self.pk).values(*self._stored_values()).first()
        self.__dict__["_stored"] = row or {}
        if row is None and was_new:
            self._state.adding, self.version = True, 1
        if row is None or not connections[using].in_atomic_block:
            self.__dict__["_unsettled"] = None

    def refresh_from_db(self, using=None, fields=None, from_queryset=None) -> None:
        super().refresh_from_db(using=using, fields=fields, from_queryset=from_queryset)
        self._remember(fields or [field.attname for field in self._meta.concrete_fields])
        if fields and "version" in fields:
            self.__dict__["_stored"].pop("version")  # the other values may be of another one

    def changed_fields(self) -> list[models.Field]:
        """The fields whose value differs from the stored one; deferred ones are unchanged by nature."""
        stored = self._stored_values()
        return [
            field
            for field in self._meta.concrete_fields
            if field.attname in self.__dict__
            and not field.primary_key
            and field.name not in BOOKKEEPING
            and (field.attname not in stored or _differ(field, stored[field.attname], self.__dict__[field.attname]))
        ]

    def save(self, *, force_insert=False, force_update=False, using=None, update_fields=None) -> None:
        self._make_sure()
        if self.pk is None and not self._state.adding:
            # Django's way to copy a row.
            self._state.adding, self.version = True, 1
        if self._state.adding or force_insert:
            super().save(force_insert=force_insert, force_update=force_update, using=using, update_fields=update_fields)
            return
        changed = self.changed_fields()
        if update_fields is not None:
            if unknown := set(update_fields) - self._column_names():
                raise ValueError(f"These are no columns to save: {', '.join(sorted(unknown))}.")
            changed = [field for field in changed if {field.name, field.attname} & set(update_fields)]
        if changed:
            super().save(using=using, force_update=True, update_fields=[f.name for f in changed] + sorted(BOOKKEEPING))

    def _save_table(self, raw=False, cls=None, force_insert=False, force_update=False, using=None, update_fields=None):
        """Where Django writes one row, whoever asked for it; here because loaddata passes `save()` by."""
        was_new = self._state.adding or (self.__dict__.get("_unsettled") or (using, False))[1]
        unsettled = (using, was_new) if connections[using].in_atomic_block else None
        with transaction.atomic(using=using, savepoint=False):
            was_there = self._write_table(raw, cls, force_insert, force_update, using, update_fields)
        self.__dict__["_unsettled"] = unsettled
        return was_there

    def _write_table(self, raw, cls, force_insert, force_update, using, update_fields) -> bool:
        is_update = force_update or bool(update_fields) or not (self._state.adding or force_insert)
        if is_update and not raw:
            names = set(update_fields or self._column_names() - {"created_at"}) | BOOKKEEPING
            fields = [field for field in self._meta.concrete_fields if {field.name, field.attname} & names]
            self._update_row(using, fields)
            return True
        may_exist = self.pk is not None and not force_insert and (raw or not self._meta.pk.has_default())
        stored = type(self).all_objects.using(using).filter(pk=self.pk).first() if may_exist else None
        if stored is None:
            super()._save_table(raw=raw, cls=cls, force_insert=True, using=using)  # type: ignore[misc]
            self._log_creation([self], using)
            return False
        # Over a row that exists: a change like any other, and none where nothing differs.
        for field in self._meta.concrete_fields:
            if field.name not in {"created_at", *BOOKKEEPING}:
                setattr(stored, field.attname, getattr(self, field.attname))
        if raw:
            stored._save_fixture(self, using)
        else:
            stored.save(using=using)
        self.__dict__.update({name: getattr(stored, name) for name in ("created_at", *BOOKKEEPING)})
        self.__dict__["_stored"] = stored._stored_values()
        return True

    def _save_fixture(self, given: "Record", using: str) -> None:
        """Save, and take over the times and the version of the fixture's row, unless ours is a later version.

        The version never goes down, so that no version stands for two states of the row.
        """
        version, updated_at = self.version, self.updated_at
        if given.created_at and not is_same_moment(given.created_at, self.created_at):
            self.created_at = given.created_at
        is_changed = any(field.name != "created_at" for field in self.changed_fields())
        self.save(using=using)
        stamps = {"version": self.version, "updated_at": self.updated_at}
        if given.version > version or (given.version == version and not is_changed):
            kept = not given.updated_at or is_same_moment(given.updated_at, updated_at)
            stamps = {"version": given.version, "updated_at": updated_at if kept else given.updated_at}
        elif not is_changed:
            stamps = {"version": version, "updated_at": updated_at}
        if (self.version, self.updated_at) != tuple(stamps.values()):
            _unaudited(type(self), using).filter(pk=self.pk).update(**stamps)
            self.__dict__.update(stamps)
            self._remember(stamps)

    def _update_row(self, using: str, fields: list[models.Field]) -> None:
        """One UPDATE of these columns, told to the log.

        The values that it replaces are those that were read, if the row still has the version they are of; only
        otherwise they are read again.
        """
        values = {field: field.pre_save(self, add=False) for field in fields}
        stamps = {field.name: values.pop(field) for field in fields if field.name in BOOKKEEPING}
        row = _unaudited(type(self), using).filter(pk=self.pk)
        known = self._stored_values()
        before = {field.attname: known[field.attname] for field in values if field.attname in known}
        version = known.get("version")

        def write(rows: models.QuerySet) -> int:
            columns = {field.attname: value for field, value in values.items()}
            return rows.update(**{**columns, **stamps, "version": F("version") + 1})

        as_read = version is not None and len(before) == len(values) and write(row.filter(version=version)) > 0
        if not as_read:
            found = row.select_for_update(no_key=True).values("version", *(field.attname for field in values)).first()
            if found is None:
                raise RowGoneError(f"There is no {self._meta.verbose_name} {self.pk} any more: nothing was saved.")
            version, before = found.pop("version"), found
            values = {field: value for field, value in values.items() if _differ(field, before[field.attname], value)}
            if values:
                write(row)
        self.version = cast(int, version) + bool(values)
        names = [field.attname for field in values]
        if any(hasattr(value, "resolve_expression") for value in values.values()):
            after = row.values(*names).get()
            self.__dict__.update(after)
        else:
            after = {field.attname: as_stored(field, value) for field, value in values.items()}
        change = self._change(
            self.pk, self._owner_id(), list(values), *([each[name] for name in names] for each in (before, after))
        )
        self._log(using).record(type(self), self.action_of(list(values)), [change] if change else [])
        # What was not read again just now may be of an older version: then nothing is known to be of this one.
        self._remember_written(before | after | {"version": self.version if as_read else None})

    @classmethod
    def _column_names(cls) -> set[str]:
        columns = [field for field in cls._meta.concrete_fields if not field.primary_key]
        return {name for field in columns for name in (field.name, field.attname)}

    @classmethod
    def _log(cls, using: str | None) -> Any:
        return AuditEntry.objects.using(using)

    @classmethod
    def action_of(cls, fields: list[models.Field]) -> str:
        """What the log calls a change of these fields."""
        return "update"

    @classmethod
    def audited_fields(cls) -> list[models.Field]:
        return [
            field
            for field in cls._meta.concrete_fields
            if not field.primary_key and field.attname not in cls.secret_fields and field.name not in BOOKKEEPING
        ]

    @classmethod
    @cache
    def fates(cls) -> tuple[str, ...]:
        """The lookups to the deletion of rows that ours go with, where ours cannot be marked with it."""
        found: list[str] = []
        for field in cls._meta.concrete_fields:
            parent: Any = field.related_model
            if not goes_with(field):
                continue
            if not issubclass(parent, SoftDeletable):
                found += (f"{field.name}__{each}" for each in parent.fates())
            elif not issubclass(cls, SoftDeletable):
                found.append(f"{field.name}__deleted_at")
        return tuple(found)

    @classmethod
    @cache
    def within_owner(cls) -> tuple[models.Field, ...]:
        """The foreign keys to rows that must belong to the same user as ours."""
        fields: list[Any] = [field for field in cls._meta.concrete_fields if field.is_relation]
        others = [field for field in fields if cls.owned_by and field.attname != cls.owned_by]
        return tuple(field for field in others if field.related_model.owned_by not in {None, "id"})

    def clean(self) -> None:
        super().clean()
        for field in self.within_owner():
            other = getattr(self, field.name) if getattr(self, field.attname) else None
            if other is not None and other._owner_id() != self._owner_id():
                raise ValidationError({field.name: f"This {field.verbose_name} belongs to somebody else."})
        if self.owned_by and not self._state.adding:
            owner = self._stored_values().get(self.owned_by, self._owner_id())
            if reason := self.tied_to_owner(owner):
                raise ValidationError({self._meta.get_field(self.owned_by).name: reason})

    def tied_to_owner(self, owner_id: Any) -> str:
        """Return why the row, stored as that owner's, cannot belong to its new one: rows of the owner refer to it.

        Empty if it can. Costs a query for each kind that may refer to it, and none if the owner stays.
        """
        if owner_id == self._owner_id():
            return ""
        for field in type(self).all_objects.all()._references():
            kind = field.model
            if field not in kind.within_owner():
                continue
            others = kind.all_objects.filter(**{field.name: self.pk}).exclude(**{kind.owned_by: self._owner_id()})
            if others.exists():
                return f"This {self._meta.verbose_name} is used by {kind._meta.verbose_name_plural} of its owner."
        return ""

    @classmethod
    def closed_to(cls, user: Any, changes: Mapping[Any, Iterable[str]]) -> set[Any]:
        """Return the keys of the rows that `user`, who may change rows of this kind, may not change so.

        `changes` maps keys to the names of the columns to change; no names stand for the row as a whole.
        """
        return set()

    def is_open_to(self, user: Any, names: Iterable[str] = ()) -> bool:
        """Return False if `closed_to` says that `user` may not change these columns of this row."""
        return self.pk not in self.closed_to(user, {self.pk: names})

    @classmethod
    def prepare(cls, rows: list[Any]) -> None:
        """Give rows that are about to be made together what `save()` would give each."""

    def _owner_id(self) -> Any:
        return getattr(self, self.owned_by) if self.owned_by else None

    @classmethod
    def _change(cls, key: Any, owner_id: Any, fields: list[models.Field], before: Any, after: Any) -> Change | None:
        """What the log is told of a row with these values of `fields`; None where they are the same."""
        changed = {
            field.attname: (old, new) for field, old, new in zip(fields, before, after, strict=True) if old != new
        }
        if not changed:
            return None
        if cls.owned_by in changed:
            owner_id = changed[cls.owned_by][1] or owner_id
        pairs = {
            name: [as_json(old), as_json(new)] for name, (old, new) in changed.items() if name not in cls.secret_fields
        }
        return Change(key, owner_id, pairs)

    @classmethod
    def _log_creation(cls, rows: list[Self], using: str) -> None:
        fields = [field for field in cls.audited_fields() if field.name != "created_at"]
        names = [field.attname for field in fields]
        read = {}
        if any(hasattr(row.__dict__.get(name), "resolve_expression") for row in rows for name in names):
            read = {row.pk: row for row in cls.all_objects.using(using).filter(AnyOf("pk", [row.pk for row in rows]))}
        changes = []
        for row in rows:
            stored = read.get(row.pk, row)
            row.__dict__.update({name: stored.__dict__[name] for name in names if row.pk in read})
            values = {field.attname: as_stored(field, getattr(stored, field.attname)) for field in fields}
            others = {field.attname: row.__dict__.get(field.attname) for field in cls._meta.concrete_fields}
            row._remember_written(others | values)
            given = {name: [None, as_json(value)] for name, value in values.items() if value not in (None, "")}
            changes.append(Change(row.pk, row._owner_id(), given))
        cls._log(using).record(cls, "create", changes)

    def delete(self, using=None, keep_parents=False) -> tuple[int, dict[str, int]]:
        return self._this_row(using).delete()

    delete.alters_data = True  # type: ignore[attr-defined]

    def _this_row(self, using=None) -> Any:
        return type(self).all_objects.using(using or self._state.db).filter(pk=self.pk)


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
    record._log(using).record(record, "update", changes)


DELETION_STATE = ("deleted_at", "deleted_by", "deletion_reason", "deletion")


class SoftDeletableQuerySet(RecordQuerySet):
    def live(self) -> Self:
        return self.filter(deleted_at=None)

    def deleted(self) -> Self:
        return self.filter(deleted_at__isnull=False)  # SQLite knows its partial index by these words only

    def delete(self, *, reason: str = "", mark: dict[str, Any] | None = None) -> tuple[int, dict[str, int]]:
        """Mark the live rows, and all that belongs to them, as deleted; what was deleted before keeps its mark.

        `mark` is one that they had before, to take a restoring back. A constant number of statements; returns counts
        as Django's own does.
        """
        mark = mark or {
            "deleted_at": timezone.now(),
            "deleted_by": audit.actor_id(),
            "deletion_reason": reason,
            "deletion": uuid.uuid4(),
        }
        counts: dict[str, int] = {}
        with transaction.atomic(using=self._write_alias()):
            self._mark_deleted(mark, counts)
        return sum(counts.values()), counts

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def _mark_deleted(self, mark: dict, counts: dict[str, int]) -> None:
        live = self.live()
        self._refuse_held(live.values_list("pk", flat=True), for_good=False)
        for dependent, key in self._dependents():
            dependent.objects.filter(**{f"{key}__in": live.values("pk")})._mark_deleted(mark, counts)
        if changed := live._write(mark, "delete"):
            counts[self.model._meta.label] = counts.get(self.model._meta.label, 0) + changed

    def restore(self) -> int:
        """Bring back the deleted rows with all that went with them, and nothing that was deleted at another time.

        ValidationError, and nothing restored, where a row belongs to one that is still deleted.
        """
        with transaction.atomic(using=self._write_alias()):
            deleted = self.deleted()
            for field in self.model._meta.concrete_fields:
                if rests_on(field) and deleted.filter(**{f"{field.name}__deleted_at__isnull": False}).exists():
                    name = self.model._meta.verbose_name
                    raise ValidationError(
                        f"The {field.verbose_name} of this {name} is deleted: restore the {field.verbose_name} first."
                    )
            return deleted._unmark_deleted()

    restore.alters_data = True  # type: ignore[attr-defined]

    def _unmark_deleted(self) -> int:
        for dependent, key in self._dependents():
            together = {f"{key}__in": self.values("pk"), "deletion": F(f"{key}__deletion")}
            dependent.all_objects.deleted().filter(**together)._unmark_deleted()
        return self._write(dict.fromkeys(DELETION_STATE) | {"deletion_reason": ""}, "restore")

    def purge_in_batches(self, size: int = 1000) -> Iterator[int]:
        """The same for very many rows, a transaction for each `size` of them: what is done, is done, if it is killed.

        Yields how many rows went with each.
        """
        found = size
        while found == size:
            with transaction.atomic(using=self._write_alias()):
                # Locked, so that nothing goes that is restored meanwhile.
                rows = self._unheld().select_for_update(of=("self",))
                keys = list(rows.order_by("pk").values_list("pk", flat=True)[:size])
                self.model.all_objects.filter(pk__in=keys).purge()
            found = len(keys)
            if found:
                yield found

    purge_in_batches.alters_data = True  # type: ignore[attr-defined]

    def _dependents(self) -> list[tuple[type["SoftDeletable"], str]]:
        """Models whose rows belong to ours, with the name of their foreign key to us."""
        return [
            (relation.related_model, relation.field.name)
            for relation in self.model._meta.related_objects
            if issubclass(relation.related_model, SoftDeletable) and goes_with(relation.field)
        ]


def _refers(field: models.Field, target: type[Any], *on_delete: Any) -> bool:
    remote: Any = field.remote_field
    return remote is not None and getattr(remote, "on_delete", None) in on_delete and issubclass(remote.model, target)


def goes_with(field: models.Field) -> bool:
    """Whether a row goes when the row goes that this field points to."""
    return _refers(field, Record, models.CASCADE)


def holds(field: models.Field) -> bool:
    """Whether a row keeps the row from going that this field points to."""
    return _refers(field, Record, models.PROTECT)


def rests_on(field: models.Field) -> bool:
    """Whether a row is not restored without the row that this field points to."""
    return _refers(field, SoftDeletable, models.CASCADE, models.PROTECT)


class LiveManager(models.Manager.from_queryset(SoftDeletableQuerySet)):  # type: ignore[misc]
    def get_queryset(self) -> SoftDeletableQuerySet:
        return super().get_queryset().live()


class SoftDeletable(Record):
    """A record whose deletion can be taken back. `objects` are the live rows, `all_objects` the deleted ones too."""

    deleted_at = models.DateTimeField(null=True, editable=False, help_text="When the row was deleted.")
    deleted_by = models.BigIntegerField(null=True, editable=False, help_text="Id of the user who deleted the row.")
    deletion_reason = LineField(
        max_length=200, blank=True, default="", editable=False, help_text="Why the row was deleted."
    )
    # Rows that were deleted together carry the same one, so that restoring brings back exactly those.
    deletion = models.UUIDField(null=True, editable=False)

    objects: ClassVar[Any] = LiveManager()
    all_objects: ClassVar[Any] = SoftDeletableQuerySet.as_manager()

    class Meta:
        abstract = True

    @property
    def is_deleted(self) -> bool:
        return self.deleted_at is not None

    def delete(self, using=None, keep_parents=False, *, reason: str = "") -> tuple[int, dict[str, int]]:
        counts = self._this_row(using).delete(reason=reason)
        self._forget_deletion()
        return counts

    delete.alters_data = True  # type: ignore[attr-defined]

    def restore(self) -> int:
        count = self._this_row().restore()
        self._forget_deletion()
        return count

    restore.alters_data = True  # type: ignore[attr-defined]

    def _forget_deletion(self) -> None:
        for name in (*DELETION_STATE, *BOOKKEEPING):
            self.__dict__.pop(name, None)  # read from the database when somebody asks
