"""What every stored row shares."""

import copy
import uuid
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from django.contrib.postgres.indexes import GinIndex, OpClass
from django.contrib.postgres.operations import TrigramExtension
from django.core.exceptions import ValidationError
from django.core.validators import BaseValidator
from django.db import DEFAULT_DB_ALIAS, NotSupportedError, models, router, transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Upper
from django.db.models.lookups import Exact
from django.utils import timezone
from django.utils.deconstruct import deconstructible

from records import audit

BIGINT_MAX = 2**63 - 1


@deconstructible
class GreaterThanValidator(BaseValidator):
    """Django's MinValueValidator includes its limit; a price of 0 is not a price."""

    message = "Ensure this value is greater than %(limit_value)s."
    code = "greater_than"

    def compare(self, a: Any, b: Any) -> bool:
        return a <= b


def constraint_fields(constraint: models.BaseConstraint) -> list[str]:
    """The names of the fields that a constraint is about."""
    if isinstance(constraint, models.CheckConstraint):
        return sorted(constraint.condition.referenced_base_fields) if isinstance(constraint.condition, Q) else []
    expressions: Any = getattr(constraint, "expressions", ())
    named = [node.name for expression in expressions for node in expression.flatten() if isinstance(node, F)]  # type: ignore[attr-defined]
    return [*getattr(constraint, "fields", ()), *named]


class Unique(models.UniqueConstraint):
    """Unique among all rows, deleted ones too: what a deleted row holds stays reserved for its restoring.

    Its message goes to the field that it is about, in forms and in the API.
    """

    def validate(self, model, instance, exclude=None, using=DEFAULT_DB_ALIAS) -> None:
        values = {name: getattr(instance, model._meta.get_field(name).attname) for name in constraint_fields(self)}
        if any(value is None or name in (exclude or ()) for name, value in values.items()):
            return
        given = {F(name): Value(value, model._meta.get_field(name)) for name, value in values.items()}
        rows = model._base_manager.using(using)
        expressions: Any = self.expressions or [F(name) for name in self.fields]
        for expression in expressions:
            rows = rows.filter(Exact(expression, expression.replace_expressions(given)))
        if not instance._state.adding:
            rows = rows.exclude(pk=instance.pk)
        if rows.exists():
            raise ValidationError({constraint_fields(self)[0]: self.get_violation_error_message()})


class SearchIndex(models.Index):
    """Behind `search` over `fields`: trigrams on PostgreSQL; elsewhere an ordinary index, which is merely scanned."""

    def create_sql(self, model, schema_editor, using="", **kwargs):
        if schema_editor.connection.vendor != "postgresql":
            return super().create_sql(model, schema_editor, using, **kwargs)
        # UPPER is what Django's __icontains compares by.
        trigrams = (OpClass(Upper(name), name="gin_trgm_ops") for name in self.fields)
        return GinIndex(*trigrams, name=self.name, condition=self.condition).create_sql(model, schema_editor)


class Trigrams(TrigramExtension):
    """What a SearchIndex needs of PostgreSQL. It stays when migrations are undone: others may use it too."""

    def database_backwards(self, app_label, schema_editor, from_state, to_state) -> None:
        pass


class RecordQuerySet(models.QuerySet):
    model: Any
    _db: str | None

    def visible_to(self, user) -> Self:
        """The rows that `user` may see: all for staff with view permission, else their own."""
        if user.may("view", self.model):
            return self
        if self.model.owned_by is None:
            return self.none()
        return self.filter(**{self.model.owned_by: user.pk})

    def update(self, **values) -> int:
        return super().update(
            **{"updated_at": timezone.now(), **values},
            version=F("version") + 1,
        )

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(self, objs, *args, **kwargs):
        if kwargs.get("update_conflicts"):
            raise NotSupportedError("An upsert would change rows without raising their version.")
        return super().bulk_create(objs, *args, **kwargs)


def _differ(field: models.Field, stored: Any, present: Any) -> bool:
    """Whether the database would hold something else: "175.50" is what it has as Decimal("175.5")."""
    if hasattr(present, "resolve_expression"):
        return True
    return stored != present and field.get_prep_value(stored) != field.get_prep_value(present)


class Record(models.Model):
    """A row that knows when it was made and how often it was changed.

    `save()` of a stored row writes only the columns that were changed, and nothing where nothing was;
    `version` is raised by the database, so that no change is lost between two writers.
    """

    #: The lookup from a row to its owner's id, for rows that belong to a user: they see and change their own.
    owned_by: ClassVar[str | None] = None

    created_at = models.DateTimeField(auto_now_add=True, help_text="When the row was created.")
    updated_at = models.DateTimeField(auto_now=True, help_text="When the row was last changed.")
    version = models.PositiveBigIntegerField(
        default=1, editable=False, help_text="Raised by 1 by every change of the row."
    )

    objects: ClassVar[Any] = RecordQuerySet.as_manager()

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, db, field_names, values) -> Self:  # type: ignore[override]
        record = super().from_db(db, field_names, values)
        record._remember(field_names)
        return record

    def _remember(self, attnames: Iterable[str]) -> None:
        """Keep what the database holds in these columns, to tell later what was changed."""
        stored = self.__dict__.setdefault("_stored", {})
        for attname in attnames:
            if attname in self.__dict__:
                value = self.__dict__[attname]
                stored[attname] = copy.deepcopy(value) if isinstance(value, (dict, list)) else value

    def refresh_from_db(self, using=None, fields=None, from_queryset=None) -> None:
        super().refresh_from_db(using=using, fields=fields, from_queryset=from_queryset)
        self._remember(fields or [field.attname for field in self._meta.concrete_fields])

    def changed_fields(self) -> list[models.Field]:
        """The fields whose value differs from the stored one; deferred ones are unchanged by nature."""
        stored = self.__dict__.get("_stored", {})
        return [
            field
            for field in self._meta.concrete_fields
            if field.attname in self.__dict__
            and not field.primary_key
            and field.name not in {"version", "updated_at"}
            and (field.attname not in stored or _differ(field, stored[field.attname], self.__dict__[field.attname]))
        ]

    def save(self, *, force_insert=False, force_update=False, using=None, update_fields=None) -> None:
        if self._state.adding or force_insert:
            super().save(force_insert=force_insert, force_update=force_update, using=using, update_fields=update_fields)
            self._remember([field.attname for field in self._meta.concrete_fields])
            return
        changed = self.changed_fields()
        if update_fields is not None:
            changed = [field for field in changed if {field.name, field.attname} & set(update_fields)]
        if not changed:
            return
        self.version = F("version") + 1
        try:
            super().save(
                using=using, force_update=True, update_fields=[f.name for f in changed] + ["updated_at", "version"]
            )
        finally:
            # Only the database knows it now: read when somebody asks.
            self.__dict__.pop("version")
        for field in changed:
            if hasattr(self.__dict__[field.attname], "resolve_expression"):
                self.__dict__.pop(field.attname)
        self._remember([field.attname for field in changed])

    def save_base(self, raw=False, force_insert=False, **kwargs) -> None:  # type: ignore[override]
        stored = type(self)._base_manager.filter(pk=self.pk).first() if raw and self.pk and not force_insert else None
        if stored is None:
            super().save_base(raw=raw, force_insert=force_insert, **kwargs)
            return
        # loaddata over a row that exists: a change like any other, and none where nothing differs.
        for field in self._meta.concrete_fields:
            if field.name not in {"created_at", "updated_at", "version"}:
                setattr(stored, field.attname, getattr(self, field.attname))
        stored.save(using=kwargs.get("using"))


class SoftDeletableQuerySet(RecordQuerySet):
    def live(self) -> Self:
        return self.filter(deleted_at=None)

    def deleted(self) -> Self:
        return self.filter(deleted_at__isnull=False)  # SQLite knows its partial index by these words only

    def delete(self, *, reason: str = "") -> tuple[int, dict[str, int]]:
        """Mark the live rows, and all that belongs to them, as deleted; what was deleted before keeps its mark.

        A constant number of statements; returns counts as Django's own does.
        """
        mark = {
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
        for dependent, key in self._dependents():
            dependent.objects.filter(**{f"{key}__in": live.values("pk")})._mark_deleted(mark, counts)
        if changed := live.update(**mark):
            counts[self.model._meta.label] = counts.get(self.model._meta.label, 0) + changed

    def restore(self) -> int:
        """Bring back the deleted rows with all that went with them, and nothing that was deleted at another time.

        ValidationError, and nothing restored, where a row belongs to one that is still deleted.
        """
        with transaction.atomic(using=self._write_alias()):
            deleted = self.deleted()
            for field in self.model._meta.concrete_fields:
                if _belongs_by(field) and deleted.filter(**{f"{field.name}__deleted_at__isnull": False}).exists():
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
        return self.update(deleted_at=None, deleted_by=None, deletion_reason="", deletion=None)

    def purge(self) -> tuple[int, dict[str, int]]:
        """Remove the rows, and all that belongs to them, for good."""
        return super().delete()

    purge.alters_data = True  # type: ignore[attr-defined]

    def purge_in_batches(self, size: int = 1000) -> int:
        """The same for very many rows, a transaction for each `size` of them; returns how many of these rows went."""
        count, found = 0, size
        while found == size:
            with transaction.atomic(using=self._write_alias()):
                # Locked, so that nothing goes that is restored meanwhile.
                keys = list(self.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True)[:size])
                self.model.all_objects.filter(pk__in=keys).purge()
            found = len(keys)
            count += found
        return count

    purge_in_batches.alters_data = True  # type: ignore[attr-defined]

    def _write_alias(self) -> str:
        return self._db or router.db_for_write(self.model)

    def _dependents(self) -> list[tuple[type["SoftDeletable"], str]]:
        """Models whose rows belong to ours, with the name of their foreign key to us."""
        return [
            (relation.related_model, relation.field.name)
            for relation in self.model._meta.related_objects
            if issubclass(relation.related_model, SoftDeletable) and _belongs_by(relation.field)
        ]


def _belongs_by(field: models.Field) -> bool:
    """Whether a row goes when the row goes that this field points to."""
    remote = field.remote_field
    return (
        remote is not None
        and getattr(remote, "on_delete", None) is models.CASCADE
        and issubclass(remote.model, SoftDeletable)
    )


class LiveManager(models.Manager.from_queryset(SoftDeletableQuerySet)):  # type: ignore[misc]
    def get_queryset(self) -> SoftDeletableQuerySet:
        return super().get_queryset().live()


class SoftDeletable(Record):
    """A record whose deletion can be taken back. `objects` are the live rows, `all_objects` the deleted ones too."""

    deleted_at = models.DateTimeField(null=True, editable=False, help_text="When the row was deleted.")
    deleted_by = models.BigIntegerField(null=True, editable=False, help_text="Id of the user who deleted the row.")
    deletion_reason = models.CharField(
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
        for name in ("deleted_at", "deleted_by", "deletion_reason", "deletion", "updated_at", "version"):
            self.__dict__.pop(name, None)  # read from the database when somebody asks

    def _this_row(self, using=None) -> SoftDeletableQuerySet:
        return type(self).all_objects.using(using or self._state.db).filter(pk=self.pk)


def live_index(*fields: str, name: str, condition: Q | None = None) -> models.Index:
    """An index over the live rows, with `id` behind `fields` as in every sort."""
    return models.Index(fields=[*fields, "id"], name=name, condition=Q(deleted_at=None) & (condition or Q()))


def deleted_index(name: str) -> models.Index:
    return models.Index(fields=["id"], name=name, condition=Q(deleted_at__isnull=False))
