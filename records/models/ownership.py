"""Rows that belong to users, and who may change them."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from django.core.exceptions import ValidationError

from records.db.expressions import AnyOf
from records.models.relations import Column, cascades_delete, record_references
from records.models.tracking import TrackedModel


class OwnedModel(TrackedModel):
    """A model whose rows may belong to a user, and whose references stay within the rows of that user."""

    #: Lookup from a row to the id of its owner; None if rows belong to no user. Owners see and change their own rows.
    owned_by: ClassVar[str | None] = None
    #: Whether everyone may read the rows, without an account too.
    is_public: ClassVar[bool] = False
    #: Whether deleting a row only marks it as deleted.
    is_soft_deletable: ClassVar[bool] = False

    class Meta:
        abstract = True

    @property
    def owner_pk(self) -> Any:
        """The id of the user that the row belongs to; None if rows belong to no user."""
        return getattr(self, self.owned_by) if self.owned_by else None

    @classmethod
    @cache
    def parent_deletion_lookups(cls) -> tuple[str, ...]:
        """Return the lookups to `deleted_at` of the parents whose deletion hides a row but cannot mark it.

        A soft-deletable row is marked together with its parent, so that only other models have such lookups.
        """
        lookups: list[str] = []
        for field in cls._meta.concrete_fields:
            parent: Any = field.related_model
            if not cascades_delete(field):
                continue
            if not parent.is_soft_deletable:
                lookups += (f"{field.name}__{lookup}" for lookup in parent.parent_deletion_lookups())
            elif not cls.is_soft_deletable:
                lookups.append(f"{field.name}__deleted_at")
        return tuple(lookups)

    @classmethod
    @cache
    def same_owner_fields(cls) -> tuple[Column, ...]:
        """Return the foreign keys to rows that must belong to the same user as the row itself."""
        fields: list[Any] = [field for field in cls._meta.concrete_fields if field.is_relation]
        references = [field for field in fields if cls.owned_by and field.attname != cls.owned_by]
        return tuple(field for field in references if field.related_model.owned_by not in {None, "id"})

    def clean(self) -> None:
        super().clean()
        for field in self.same_owner_fields():
            target = getattr(self, field.name) if getattr(self, field.attname) else None
            if target is not None and target.owner_pk != self.owner_pk:
                raise ValidationError({field.name: f"This {field.verbose_name} belongs to somebody else."})
        if self.owned_by and not self._state.adding:
            owner_id = self.stored_row.values.get(self.owned_by, self.owner_pk)
            if message := self.owner_change_error(owner_id):
                raise ValidationError({self._meta.get_field(self.owned_by).name: message})

    def owner_change_error(self, stored_owner_id: Any) -> str:
        """Return why the row cannot move from its stored owner to the current one, or "" if it can."""
        return self.owner_change_errors([self]).get(self.pk, "") if stored_owner_id != self.owner_pk else ""

    @classmethod
    def owner_change_errors(cls, rows: Sequence[Any]) -> dict[Any, str]:
        """Return the key of each row that cannot move to its current owner, with the reason.

        It cannot while other rows of its stored owner refer to it. Costs one query for each referring model.
        """
        owners = {row.pk: row.owner_pk for row in rows}
        errors: dict[Any, str] = {}
        for field in record_references(cls) if owners else ():
            model: Any = field.model
            if field not in model.same_owner_fields():
                continue
            referring = model.all_objects.filter(AnyOf(field.name, owners)).order_by()
            for key, owner_id in referring.values_list(field.attname, model.owned_by).distinct():
                if owner_id != owners[key]:
                    names = cls._meta.verbose_name, model._meta.verbose_name_plural
                    errors.setdefault(key, f"This {names[0]} is used by {names[1]} of its owner.")
        return errors

    @classmethod
    def forbidden_keys(cls, user: Any, changes: Mapping[Any, Iterable[str]]) -> set[Any]:
        """Return the keys of the rows that `user` may not change, although they may change rows of this model.

        `changes` maps each key to the names of the columns to change; an empty collection means the row as a whole.
        """
        return set()

    def may_be_changed_by(self, user: Any, names: Iterable[str] = ()) -> bool:
        """Return False if `forbidden_keys` forbids `user` to change these columns of this row."""
        return self.pk not in self.forbidden_keys(user, {self.pk: names})
