"""What every stored row shares."""

import copy
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, ClassVar, Self, cast

from django.core.exceptions import ValidationError
from django.db import DatabaseError, connections, models, transaction
from django.db.models import F

from records.db.expressions import AnyOf
from records.models.changes import Change, rows_changed
from records.models.querysets import BOOKKEEPING, RecordQuerySet, _differ, _unaudited
from records.models.relations import cascades_delete
from records.models.values import as_json, as_stored, is_same_moment


class RowGoneError(DatabaseError):
    """The row that was to be saved is gone."""


class Record(models.Model):
    """A row that knows when it was made and how often it was changed, and tells the audit log of it.

    `save()` of a stored row writes only the columns that were changed, and nothing where nothing was; whatever
    writes through the model tells the log, in its own transaction. What SQL of one's own writes, nobody knows of.
    """

    #: The lookup from a row to its owner's id, for rows that belong to a user: they see and change their own.
    owned_by: ClassVar[str | None] = None
    is_soft_deletable: ClassVar[bool] = False
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
        self.announce(self.audit_action(list(values)), [change] if change else [], using)
        # What was not read again just now may be of an older version: then nothing is known to be of this one.
        self._remember_written(before | after | {"version": self.version if as_read else None})

    @classmethod
    def _column_names(cls) -> set[str]:
        columns = [field for field in cls._meta.concrete_fields if not field.primary_key]
        return {name for field in columns for name in (field.name, field.attname)}

    @classmethod
    def announce(cls, action: str, changes: list[Change], using: str | None) -> None:
        """Send these changes to the audit log, in the current transaction."""
        if changes:
            rows_changed.send(cls, action=action, changes=changes, using=using)

    @classmethod
    def audit_action(cls, fields: list[models.Field]) -> str:
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
    def parent_deletion_lookups(cls) -> tuple[str, ...]:
        """The lookups to the deletion of rows that ours go with, where ours cannot be marked with it."""
        found: list[str] = []
        for field in cls._meta.concrete_fields:
            parent: Any = field.related_model
            if not cascades_delete(field):
                continue
            if not parent.is_soft_deletable:
                found += (f"{field.name}__{each}" for each in parent.parent_deletion_lookups())
            elif not cls.is_soft_deletable:
                found.append(f"{field.name}__deleted_at")
        return tuple(found)

    @classmethod
    @cache
    def same_owner_fields(cls) -> tuple[models.Field, ...]:
        """The foreign keys to rows that must belong to the same user as ours."""
        fields: list[Any] = [field for field in cls._meta.concrete_fields if field.is_relation]
        others = [field for field in fields if cls.owned_by and field.attname != cls.owned_by]
        return tuple(field for field in others if field.related_model.owned_by not in {None, "id"})

    def clean(self) -> None:
        super().clean()
        for field in self.same_owner_fields():
            other = getattr(self, field.name) if getattr(self, field.attname) else None
            if other is not None and other._owner_id() != self._owner_id():
                raise ValidationError({field.name: f"This {field.verbose_name} belongs to somebody else."})
        if self.owned_by and not self._state.adding:
            owner = self._stored_values().get(self.owned_by, self._owner_id())
            if reason := self.owner_change_error(owner):
                raise ValidationError({self._meta.get_field(self.owned_by).name: reason})

    def owner_change_error(self, owner_id: Any) -> str:
        """Return why the row, stored as that owner's, cannot belong to its new one: rows of the owner refer to it.

        Empty if it can. Costs a query for each kind that may refer to it, and none if the owner stays.
        """
        if owner_id == self._owner_id():
            return ""
        for field in type(self).all_objects.all()._references():
            kind = field.model
            if field not in kind.same_owner_fields():
                continue
            others = kind.all_objects.filter(**{field.name: self.pk}).exclude(**{kind.owned_by: self._owner_id()})
            if others.exists():
                return f"This {self._meta.verbose_name} is used by {kind._meta.verbose_name_plural} of its owner."
        return ""

    @classmethod
    def forbidden_keys(cls, user: Any, changes: Mapping[Any, Iterable[str]]) -> set[Any]:
        """Return the keys of the rows that `user`, who may change rows of this kind, may not change so.

        `changes` maps keys to the names of the columns to change; no names stand for the row as a whole.
        """
        return set()

    def may_be_changed_by(self, user: Any, names: Iterable[str] = ()) -> bool:
        """Return False if `forbidden_keys` says that `user` may not change these columns of this row."""
        return self.pk not in self.forbidden_keys(user, {self.pk: names})

    @classmethod
    def prepare_for_insert(cls, rows: list[Any]) -> None:
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
        cls.announce("create", changes, using)

    def delete(self, using=None, keep_parents=False) -> tuple[int, dict[str, int]]:
        return self._this_row(using).delete()

    delete.alters_data = True  # type: ignore[attr-defined]

    def _this_row(self, using=None) -> Any:
        return type(self).all_objects.using(using or self._state.db).filter(pk=self.pk)
