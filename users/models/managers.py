"""How users are found, created, changed and deleted."""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import Case, F, Value, When
from django.utils.text import slugify

from records import context
from records.db.expressions import AnyOf, IsDistinctFrom
from records.models import SoftDeletableQuerySet
from users.models.identity import Identity
from users.models.notices import (
    NOTIFIED,
    is_in_request,
    notices_of_address,
    notices_of_changes,
    notify_of_identity,
    send,
)
from users.models.permissions import exceeds
from users.models.session import Session

if TYPE_CHECKING:
    from users.models.user import User

LAST_SUPERUSER_MESSAGE = "This is the last active superuser: nobody could manage the service without one."
#: How often to try again if concurrent requests take the derived username.
MAX_USERNAME_ATTEMPTS = 20
#: How often to try again if a concurrent request signs the same person in for the first time.
MAX_CLAIM_ATTEMPTS = 3


class UserQuerySet(SoftDeletableQuerySet):
    def active(self) -> Self:
        return self.filter(is_active=True)

    def due_for_deletion(self, moment: datetime) -> Self:
        """Return the users whose scheduled deletion is due at `moment`."""
        return self.filter(deletion_at__isnull=False, deletion_at__lte=moment)

    def superusers(self) -> Self:
        """Return the superusers who can sign in."""
        return self.live().active().filter(is_superuser=True)

    def stronger_than(self, user: "User") -> Self:
        """Return superusers and users who hold a permission that `user` lacks; never `user`."""
        return self.none() if user.is_superuser else self.exclude(pk=user.pk).filter(exceeds(user))

    def with_login(self, login: str) -> Self:
        """Return the user with this e-mail address or username, in any case. A username has no `@`."""
        key = "email__lower" if "@" in login else "username__lower"
        return self.filter(**{key: login.lower()})

    def includes_all_superusers(self, *, lock: bool = False) -> bool:
        """Return True if the service would have no superuser who can sign in without these rows.

        With `lock`, the superusers are locked until the current transaction ends.
        """
        superusers = self.model.objects.superusers().order_by("pk")
        superusers = superusers.select_for_update(no_key=True) if lock else superusers
        keys = set(superusers.values_list("pk", flat=True))
        return bool(keys) and keys <= set(self.filter(pk__in=keys).values_list("pk", flat=True))

    def require_other_superuser(self) -> None:
        """Raise ValidationError if the service would have no superuser who can sign in without these rows."""
        if self.includes_all_superusers(lock=True):
            raise ValidationError(LAST_SUPERUSER_MESSAGE, code="last_superuser")

    def last_superuser_of(self, keys: Sequence[Any]) -> Any:
        """Return the last of these users if no superuser could sign in without them, else None.

        The superusers are locked until the current transaction ends.
        """
        superusers = self.model.objects.superusers().order_by("pk").select_for_update(no_key=True)
        remaining = set(superusers.values_list("pk", flat=True))
        concerned = [key for key in keys if key in remaining]
        return concerned[-1] if concerned and len(concerned) == len(remaining) else None

    def update(self, **values: Any) -> int:
        if "email" in values and "is_verified" not in values:
            values["is_verified"] = self._verified_if_same(values["email"])
        if values.keys() & {"email", "password"}:
            values.setdefault("pending_email", None)  # a change that was requested earlier must not be confirmed later
        if "email" not in values or not is_in_request():
            return self._update(values)
        with transaction.atomic():
            before = dict(self.values_list("pk", "email"))
            count = self._update(values)
            users = self.model.all_objects.filter(AnyOf("pk", before))
            send(notice for user in users for notice in notices_of_address(user, before[user.pk]))
        return count

    def _verified_if_same(self, email: Any) -> Case:
        """Return an expression that is False for rows whose address changes, because the new one is not verified."""
        if not hasattr(email, "resolve_expression"):
            email = Value(email, self.model._meta.get_field("email"))
        return Case(When(IsDistinctFrom(F("email"), email), then=False), default=F("is_verified"))

    def _update(self, values: dict[str, Any]) -> int:
        if not values.keys() & {"is_active", "is_superuser", "password"}:
            return super().update(**values)
        with transaction.atomic():
            # Values other than True may be expressions, for instance those of bulk_update.
            deactivates = values.get("is_active", True) is not True
            if deactivates or values.get("is_superuser", True) is not True:
                self.require_other_superuser()
            if deactivates or "password" in values:
                # A concurrent login waits for these locks, and then fails because its user has changed.
                len(self.select_for_update(no_key=True).order_by("pk").values_list("pk"))
                Session.objects.filter(user__in=self.order_by().values("pk")).end()
            return super().update(**values)

    def bulk_save(self, rows: Sequence[Any]) -> None:
        """Save the changes of locked users with the consequences that `User.save` has."""
        changes = {user: names for user in rows if (names := user.prepare_to_save())}
        emails = {user: user.stored_row.values["email"] for user in changes}
        with transaction.atomic(using=self._write_alias()):
            if giving_up := [user.pk for user in changes if user.gives_up_rights(changes[user])]:
                self._all_rows().filter(AnyOf("pk", giving_up)).require_other_superuser()
            super().bulk_save(rows)
            Session.objects.end_after(changes)
            if is_in_request():
                notified = {user: names for user, names in changes.items() if names & NOTIFIED}
                send(
                    notice
                    for user, names in notified.items()
                    for notice in notices_of_changes(user, names, emails[user])
                )

    bulk_save.alters_data = True  # type: ignore[attr-defined]

    def delete(self, **options: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            self.require_other_superuser()
            return super().delete(**options)

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def purge(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            self.require_other_superuser()
            return super().purge()

    purge.alters_data = True  # type: ignore[attr-defined]


class Claims(Protocol):
    """A person as an OpenID Connect provider describes them; see `users.oidc.claims`."""

    subject: str
    email: str | None
    name: str | None
    username: str
    is_verified: bool


class UserManager(models.Manager.from_queryset(UserQuerySet)):  # type: ignore[misc]
    """The users that are not deleted."""

    def get_queryset(self) -> UserQuerySet:
        rows: UserQuerySet = super().get_queryset()
        return rows.live()

    @staticmethod
    def normalize_email(email: str | None) -> str | None:
        """Return the address with its host in lower case; the part before the host may be case-sensitive."""
        if not email:
            return None
        local, at, host = email.strip().rpartition("@")
        return f"{local}{at}{host.lower()}"

    def get_by_natural_key(self, username: str) -> "User":
        """Return the user with this username; deleted users keep theirs while they can be restored."""
        user: User = self.model.all_objects.using(self.db).get(username__lower=username.lower())
        return user

    # Creation

    def create_user(
        self, username: str, email: str | None = None, password: str | None = None, **fields: Any
    ) -> "User":
        """Create a user, who cannot log in with a password until one is set."""
        user = self.new_user(username, email, password, **fields)
        user.save(using=self._db)
        return user

    def create_superuser(
        self, username: str, email: str | None = None, password: str | None = None, **fields: Any
    ) -> "User":
        """Create a superuser; raise ValidationError for invalid values, which the command `createsuperuser` prints."""
        flags = {"is_staff": True, "is_superuser": True, "is_verified": True}
        user = self.new_user(username, email, password, **{**fields, **flags})
        user.full_clean(exclude=["password"])
        if password is not None:
            validate_password(password, user)
        user.save(using=self._db)
        return user

    def create_named(self, name: str, **fields: Any) -> "User":
        """Create a user with a free username that is derived from their name."""
        return self._create_with_free_username(name, **{**fields, "name": name})

    def _create_with_free_username(self, source: str, **fields: Any) -> "User":
        return self._retry_conflicts(
            MAX_USERNAME_ATTEMPTS, lambda: self.create_user(**{**fields, "username": self.free_username(source)})
        )

    def _retry_conflicts(self, attempts: int, create: Callable[[], "User"]) -> "User":
        """Call `create` again if it violates a constraint because of a concurrent request."""
        for _ in range(attempts):
            try:
                with transaction.atomic(using=self.db):
                    return create()
            except IntegrityError as error:
                conflict = error
        raise conflict

    def new_user(
        self, username: str = "", email: str | None = None, password: str | None = None, **fields: Any
    ) -> "User":
        """Return a user who is not stored yet. `bulk_create` derives a missing username from the name."""
        user: User = self.model(username=username, email=self.normalize_email(email), **fields)
        user.set_password(password)
        return user

    def free_username(self, name: str) -> str:
        """Return a free username for a name: `john-doe` for "John Doe", else `john-doe-2`, and so on."""
        return self.free_usernames([name])[0]

    def free_usernames(self, names: Sequence[str], taken: Collection[str] = ()) -> list[str]:
        """Return a free username for each name, all different and none of `taken`. Takes at most two queries."""
        bases = [_username_base(name) for name in names]
        ambiguous = {base for base, count in Counter(bases).items() if count > 1 or len(bases) == 1}
        searched = {*bases, *(name for base in ambiguous for name in _numbered(base))}
        unavailable = {username.lower() for username in taken} | self._taken_usernames(searched)
        if numbered := [name for base in (unavailable & set(bases)) - ambiguous for name in _numbered(base)]:
            unavailable |= self._taken_usernames(numbered)
        usernames = []
        for base in bases:
            free = (name for name in (base, *_numbered(base)) if name not in unavailable)
            usernames.append(next(free, f"{base}-{secrets.token_hex(4)}"))
            unavailable.add(usernames[-1])
        return usernames

    def _taken_usernames(self, candidates: Collection[str]) -> set[str]:
        rows = self.model.all_objects.using(self.db).filter(AnyOf("username__lower", candidates))
        return {username.lower() for username in rows.values_list("username", flat=True)}

    # OpenID Connect

    def get_or_create_from_claims(self, provider: str, claims: Claims) -> "User":
        """Return the user whom an OpenID Connect provider has authenticated.

        That is the user with this identity, or the user with this e-mail address if the provider has verified it, or
        a new user. Raise ValidationError, with a message for the person, if they may not sign in.
        """
        return self._retry_conflicts(MAX_CLAIM_ATTEMPTS, lambda: self._get_or_create_from_claims(provider, claims))

    def _get_or_create_from_claims(self, provider: str, claims: Claims) -> "User":
        identity = Identity.objects.select_related("user").filter(provider=provider, subject=claims.subject).first()
        user: User = identity.user if identity is not None else self._add_identity(provider, claims)
        if user.is_deleted or not user.is_active:
            raise ValidationError(
                "This account cannot be used. Please ask those who run the service.", params={"user_id": user.pk}
            )
        return user

    def _add_identity(self, provider: str, claims: Claims) -> "User":
        existing = self._user_with_verified_email(claims)
        user = existing or self._create_from_claims(provider, claims)
        if existing:
            notify_of_identity(existing, provider)
        Identity.objects.create(user=user, provider=provider, subject=claims.subject)
        if user.oauth_provider is None:
            user.oauth_provider = provider
            user.save()
        return user

    def _user_with_verified_email(self, claims: Claims) -> "User | None":
        users = self.model.all_objects.select_for_update(no_key=True)
        user: User | None = users.with_login(claims.email).first() if claims.email else None
        if user is None:
            return None
        if not claims.is_verified:
            raise ValidationError(
                "An account with your e-mail address exists here, and the provider does not say that the address is "
                "verified to be yours. Please log in with your password.",
                params={"user_id": user.pk},
            )
        if not user.is_verified:
            with context.record_as("password_change", by_owner=True):
                user.set_unusable_password()
                user.hand_over()
                user.save()
        return user

    def _create_from_claims(self, provider: str, claims: Claims) -> "User":
        email = self.normalize_email(claims.email)
        with context.record_as("register", by_owner=True):
            return self._create_with_free_username(
                claims.username or (email or "").partition("@")[0] or claims.name or provider,
                email=email,
                name=claims.name,
                is_verified=email is not None and claims.is_verified,
                oauth_provider=provider,
            )


def _username_base(name: str) -> str:
    base = slugify(name[:200])[:40] or "user"
    return base if len(base) >= 3 else f"user-{base}"


def _numbered(base: str) -> list[str]:
    return [f"{base}-{number}" for number in range(2, 100)]
