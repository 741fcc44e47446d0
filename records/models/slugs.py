"""Names for addresses: unique, and made from another column where none is given."""

import re
import secrets
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, ClassVar

from django.db import IntegrityError, models, transaction
from django.utils.text import slugify

from records.db.expressions import AnyOf
from records.models.record import Record

LONGEST = 80

# Beyond them a slug gets a random end: looking for a free number would cost more with every row.
NUMBERED = 99

# How often a slug may be lost to a request that runs at the same time.
NAMESAKES_AT_ONCE = 20


class Slugged(Record):
    """A record with a slug, unique among all rows, or those of an owner, by a constraint in the model's Meta.

    An empty one is made from the column `slug_source`: "Summer Sale" becomes `summer-sale`, the next of that title
    `summer-sale-2`. It stays when the title changes.
    """

    slug_source: ClassVar[str]

    slug = models.SlugField(
        max_length=LONGEST,
        blank=True,
        db_index=False,
        help_text="Name for addresses: letters, digits, `-` and `_`. Where none is given, one is made.",
    )

    class Meta(Record.Meta):
        abstract = True

    def save(self, **kwargs: Any) -> None:  # type: ignore[override]
        if self.__dict__.get("slug", True):
            super().save(**kwargs)
            return
        for _ in range(NAMESAKES_AT_ONCE):
            self.give_slugs([self])
            try:
                with transaction.atomic(using=kwargs.get("using")):
                    super().save(**kwargs)
            except IntegrityError as error:
                lost, slug, self.slug = error, self.slug, ""
                if not self._namesakes([self], [slug]):
                    raise  # it was something else
            else:
                return
        raise lost

    @classmethod
    def prepare_for_insert(cls, rows: list[Any]) -> None:
        super().prepare_for_insert(rows)
        cls.give_slugs(rows)

    @classmethod
    def give_slugs(cls, rows: Iterable[Any]) -> None:
        """A free slug to each of these rows that has none, in at most two queries; nothing is saved."""
        unnamed = [row for row in rows if not row.slug]
        if not unnamed:
            return
        bases = [row._slug_base() for row in unnamed]
        taken = cls._namesakes(unnamed, bases)
        crowded = {base for base in bases if bases.count(base) > 1 or any(base in slugs for slugs in taken.values())}
        numbered = {base: [f"{base}-{number}" for number in range(2, NUMBERED + 1)] for base in crowded}
        if crowded:
            for owner, slugs in cls._namesakes(
                unnamed, [each for found in numbered.values() for each in found]
            ).items():
                taken[owner] |= slugs
        for row, base in zip(unnamed, bases, strict=True):
            own, others = row._stored_values().get("slug"), taken[row._owner_id()]
            if own and re.fullmatch(rf"{re.escape(base)}(-\d+)?", own):
                row.slug = own
            else:
                free = (each for each in (base, *numbered.get(base, ())) if each not in others)
                row.slug = next(free, f"{base}-{secrets.token_hex(4)}")
            others.add(row.slug)

    def _slug_base(self) -> str:
        """From the source, short enough for what makes it unique; what has no letters is called by its kind."""
        text = slugify(str(getattr(self, self.slug_source) or "")[: 4 * LONGEST])[: LONGEST - 10].strip("-_")
        return text or slugify(str(self._meta.verbose_name))

    @classmethod
    def _namesakes(cls, rows: list[Any], slugs: list[str]) -> dict[Any, set[str]]:
        """Owner → which of these slugs they have, but for these rows themselves."""
        rows_of_kind: Any = cls.all_objects
        others = rows_of_kind.filter(AnyOf("slug", slugs)).exclude(AnyOf("pk", [row.pk for row in rows if row.pk]))
        taken: dict[Any, set[str]] = defaultdict(set)
        if cls.owned_by is None:
            taken[None] = set(others.values_list("slug", flat=True))
            return taken
        of_owners = others.filter(AnyOf(cls.owned_by, {row._owner_id() for row in rows}))
        for owner, slug in of_owners.values_list(cls.owned_by, "slug"):
            taken[owner].add(slug)
        return taken
