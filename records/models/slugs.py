"""Records with a slug, which is derived from another column if none is given."""

import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from django.db import IntegrityError, models, transaction
from django.utils.text import slugify

from records.db.expressions import AnyOf
from records.models.record import Record

MAX_LENGTH = 80
#: Room for what makes a derived slug unique.
SUFFIX_LENGTH = 10
#: Highest number to append. Beyond it a slug gets a random end, because searching for a free number would take longer
#: with every row.
MAX_NUMBER = 99
#: How often to try again if concurrent requests take the derived slug.
MAX_ATTEMPTS = 20


class Slugged(Record):
    """A record with a slug that is unique, among all rows or those of an owner, by a constraint in the model's Meta.

    An empty slug is derived from the column `slug_source`: "Summer Sale" becomes `summer-sale`, and the next row with
    this title `summer-sale-2`. It stays when the title changes.
    """

    slug_source: ClassVar[str]
    derived_columns = frozenset({"slug"})

    slug = models.SlugField(
        max_length=MAX_LENGTH,
        blank=True,
        db_index=False,
        help_text="Name for addresses: letters, digits, `-` and `_`. Where none is given, one is made.",
    )

    class Meta(Record.Meta):
        abstract = True

    def save(self, **options: Any) -> None:
        if self.__dict__.get("slug", True):
            super().save(**options)
            return
        for _ in range(MAX_ATTEMPTS):
            self.derive_slugs([self])
            try:
                with transaction.atomic(using=options.get("using")):
                    super().save(**options)
            except IntegrityError as error:
                conflict, slug, self.slug = error, self.slug, ""
                if not self._taken_slugs([self], [slug]):
                    raise  # another constraint was violated
            else:
                return
        raise conflict

    @classmethod
    def prepare_for_insert(cls, rows: list[Any]) -> None:
        super().prepare_for_insert(rows)
        cls.derive_slugs(rows)

    @classmethod
    def prepare_for_update(cls, rows: list[Any]) -> None:
        super().prepare_for_update(rows)
        cls.derive_slugs([row for row in rows if "slug" in row.__dict__])

    @classmethod
    def derive_slugs(cls, rows: Sequence[Any]) -> None:
        """Set a free slug on each row that has none. Takes at most two queries and saves nothing."""
        unnamed = [(row, row._slug_base()) for row in rows if not row.slug]
        if not unnamed:
            return
        taken = cls._taken_slugs_of_bases(unnamed)
        for row in rows:
            if row.slug:
                taken[row.owner_pk].add(row.slug)
        for row, base in unnamed:
            slugs = taken[row.owner_pk]
            row.slug = row._stored_slug_of(base) or _free_slug(base, slugs)
            slugs.add(row.slug)

    @classmethod
    def _taken_slugs_of_bases(cls, unnamed: list[tuple[Any, str]]) -> dict[Any, set[str]]:
        """Return the taken slugs by owner, among the bases and, for bases that are taken, their numbered forms."""
        rows = [row for row, _ in unnamed]
        bases = Counter(base for _, base in unnamed)
        taken = cls._taken_slugs(rows, bases)
        ambiguous = set().union(*taken.values()) | {base for base, count in bases.items() if count > 1}
        if ambiguous:
            numbered = [slug for base in ambiguous for slug in _numbered(base)]
            for owner, slugs in cls._taken_slugs(rows, numbered).items():
                taken[owner] |= slugs
        return taken

    def _stored_slug_of(self, base: str) -> str:
        """Return the stored slug of this row if it was derived from the same base."""
        stored = self.stored_row.values.get("slug") or ""
        return stored if re.fullmatch(rf"{re.escape(base)}(-\d+)?", stored) else ""

    def _slug_base(self) -> str:
        """Return the slug of the source column, or the name of the model if that column has no letters."""
        source = str(getattr(self, self.slug_source) or "")[: 4 * MAX_LENGTH]
        base = slugify(source)[: MAX_LENGTH - SUFFIX_LENGTH].strip("-_")
        return base or slugify(str(self._meta.verbose_name))

    @classmethod
    def _taken_slugs(cls, rows: list[Any], slugs: Collection[str]) -> dict[Any, set[str]]:
        """Return which of these slugs other rows have, by owner."""
        all_objects: Any = cls.all_objects
        others = all_objects.filter(AnyOf("slug", slugs)).exclude(AnyOf("pk", [row.pk for row in rows if row.pk]))
        taken: dict[Any, set[str]] = defaultdict(set)
        if cls.owned_by is None:
            taken[None] = set(others.values_list("slug", flat=True))
            return taken
        of_owners = others.filter(AnyOf(cls.owned_by, {row.owner_pk for row in rows}))
        for owner, slug in of_owners.values_list(cls.owned_by, "slug"):
            taken[owner].add(slug)
        return taken


def _numbered(base: str) -> list[str]:
    return [f"{base}-{number}" for number in range(2, MAX_NUMBER + 1)]


def _free_slug(base: str, taken: Collection[str]) -> str:
    candidates = (slug for slug in (base, *_numbered(base)) if slug not in taken)
    return next(candidates, f"{base}-{secrets.token_hex(4)}")
