"""People: account and profile."""

import secrets
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from datetime import datetime
from typing import Any, ClassVar, Self, TypeGuard

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission, PermissionsMixin
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import (
    MaxLengthValidator,
    MaxValueValidator,
    MinLengthValidator,
    MinValueValidator,
    RegexValidator,
)
from django.db import IntegrityError, models, transaction
from django.db.models import Case, Exists, F, OuterRef, Q, Value, When
from django.db.models.functions import Lower
from django.utils.text import slugify

from records import context
from records.db.clock import database_now
from records.db.constraints import SearchIndex, Unique, deleted_index, live_index
from records.db.expressions import AnyOf, IsDistinctFrom
from records.db.text import CAPITALS, LineField, LinesField, StartsWithCapital
from records.models.soft_deletion import SoftDeletable, SoftDeletableQuerySet
from users import passwords
from users.outbox import QueuedMail
from users.sessions import Identity, Session

NAME_MESSAGE = "Name must start with a capital letter"
# How often a derived username may be lost to a request that runs at the same time.
NAMESAKES_AT_ONCE = 20
# By these a person gets what others may not give.
GRANTS = {"is_superuser", "groups", "user_permissions"}
#: Columns that staff may change of anybody but a superuser. All others decide how one gets in, or what one may do.
PROFILE = frozenset({"name", "gender", "age", "bio", "phone_number"})
# Nobody changes these of their own row without their password, not by undoing a change either.
ADDRESSES = {"email", "pending_email"}
LAST_SUPERUSER_MESSAGE = "This is the last active superuser: nobody could manage the service without one."


class UserQuerySet(SoftDeletableQuerySet):
    def active(self) -> Self:
        return self.filter(is_active=True)

    def leaving_by(self, moment: datetime) -> Self:
        """Whose account their owners asked to have removed by then."""
        return self.filter(deletion_at__isnull=False, deletion_at__lte=moment)

    def superusers(self) -> Self:
        """Those who can sign in and manage everything."""
        return self.live().active().filter(is_superuser=True)

    def stronger_than(self, user: "User") -> Self:
        """Return superusers and those who hold a permission that `user` lacks; never `user`."""
        if user.is_superuser:
            return self.none()
        # Two subqueries, because one join over both tables multiplies the members of large groups.
        beyond = [
            Exists(grants.exclude(permission__in=held_by(user).values("pk")))
            for grants in (_own_grants(OuterRef("pk")), _group_grants(OuterRef("pk")))
        ]
        return self.exclude(pk=user.pk).filter(Q(is_superuser=True) | beyond[0] | beyond[1])

    def with_login(self, login: str) -> Self:
        """By e-mail or username, whatever the case; a username has no `@`."""
        key = "email__lower" if "@" in login else "username__lower"
        return self.filter(**{key: login.lower()})

    def leaves_no_superuser(self, *, lock: bool = False) -> bool:
        """Return True if the service would have no active superuser without these rows.

        With `lock`, inside a transaction, the superusers stay what they are until it ends.
        """
        superusers = User.objects.superusers().order_by("pk")
        superusers = superusers.select_for_update(no_key=True) if lock else superusers
        remaining = set(superusers.values_list("pk", flat=True))
        return bool(remaining) and remaining <= set(self.filter(pk__in=remaining).values_list("pk", flat=True))

    def _keep_a_superuser(self) -> None:
        if self.leaves_no_superuser(lock=True):
            raise ValidationError(LAST_SUPERUSER_MESSAGE, code="last_superuser")

    def update(self, **values) -> int:
        if "email" in values and "is_verified" not in values:
            # Nobody has shown yet that another address is theirs.
            given: Any = values["email"]
            email = given if hasattr(given, "resolve_expression") else Value(given, User._meta.get_field("email"))
            values["is_verified"] = Case(When(IsDistinctFrom(F("email"), email), then=False), default=F("is_verified"))
        if values.keys() & {"email", "password"}:
            values.setdefault("pending_email", None)  # what was asked for before must not take effect afterwards
        if "email" not in values or not _is_request():
            return self._update(values)
        with transaction.atomic():
            before = dict(self.values_list("pk", "email"))
            count = self._update(values)
            for user in User.all_objects.filter(pk__in=before):
                user.tell_of_address(before[user.pk])
        return count

    def _update(self, values: dict[str, Any]) -> int:
        if not values.keys() & {"is_active", "is_superuser", "password"}:
            return super().update(**values)
        with transaction.atomic():
            # What is no plain truth value is an expression, such as bulk_update's.
            deactivates = values.get("is_active", True) is not True
            if deactivates or values.get("is_superuser", True) is not True:
                self._keep_a_superuser()
            if deactivates or "password" in values:
                # A login that runs meanwhile waits for these locks, and then sees what has become of its user.
                len(self.select_for_update(no_key=True).order_by("pk").values_list("pk"))
                Session.objects.filter(user__in=self.order_by().values("pk")).end()
            return super().update(**values)

    def delete(self, **how: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            self._keep_a_superuser()
            return super().delete(**how)

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def purge(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            self._keep_a_superuser()
            return super().purge()

    purge.alters_data = True  # type: ignore[attr-defined]


def held_by(user: "User") -> models.QuerySet[Permission]:
    """Return the permissions given to this user, directly or through groups."""
    own, through_groups = (grants(user.pk).values("permission") for grants in (_own_grants, _group_grants))
    return Permission.objects.filter(Q(pk__in=own) | Q(pk__in=through_groups))


def _own_grants(user: Any) -> models.QuerySet:
    """Return the permissions given to this user directly, a row each."""
    return User.user_permissions.through._default_manager.filter(user=user)


def _group_grants(user: Any) -> models.QuerySet:
    """Return the permissions that this user has through groups, a row each."""
    return Group.permissions.through._default_manager.filter(group__user=user)


class Claims:
    """What a provider says of a person, as far as it can be stored; it may say anything."""

    def __init__(self, claims: dict[str, Any]) -> None:
        subject = claims.get("sub")
        if not _is_text(subject) or not 1 <= len(subject) <= 255:
            raise ValidationError("The provider says nothing by which we could know you again.")
        self.subject: str = subject
        self.email = self._storable("email", claims.get("email"))
        self.name = self._storable("name", claims.get("name"))
        username = claims.get("preferred_username")
        self.username: str = username if _is_text(username) else ""
        # Some say it by a text; a number says nothing.
        self.is_verified = claims.get("email_verified") is True or claims.get("email_verified") == "true"

    @staticmethod
    def _storable(name: str, value: Any) -> str | None:
        field: Any = User._meta.get_field(name)
        text = value.strip() if _is_text(value) else ""
        try:
            return field.clean(text, None) or None
        except ValidationError:
            return None  # what we could not store we do without


def _is_request() -> bool:
    return context.client_address() is not None


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and "\0" not in value and value.isprintable()


class UserManager(models.Manager.from_queryset(UserQuerySet)):  # type: ignore[misc]
    """The live users."""

    def get_queryset(self) -> UserQuerySet:
        return super().get_queryset().live()

    @staticmethod
    def normalize_email(email: str | None) -> str | None:
        """The host part of an address means the same in any case; what stands before it need not."""
        if not email:
            return None
        local, at, host = email.strip().rpartition("@")
        return f"{local}{at}{host.lower()}"

    def create_user(
        self, username: str, email: str | None = None, password: str | None = None, **fields: Any
    ) -> "User":
        """A user; without `password` nobody can log in as them until one is set."""
        user = self._new_user(username, email, password, **fields)
        user.save(using=self._db)
        return user

    def create_named(self, name: str, **fields: Any) -> "User":
        """A user whose username is derived from their name, however many of that name are made at once."""
        return self._create_alike(name, **{**fields, "name": name})

    def _create_alike(self, alike: str, **fields: Any) -> "User":
        for _ in range(NAMESAKES_AT_ONCE):
            try:
                with transaction.atomic(using=self.db):
                    return self.create_user(**{**fields, "username": self.free_username(alike)})
            except IntegrityError as error:
                lost = error
        raise lost

    def get_or_create_from_claims(self, provider: str, person: "Claims") -> "User":
        """Whom an OpenID Connect provider means: who came before, who has the e-mail address that the
        provider has verified, or a new user.

        ValidationError, with a sentence for the person, where they may not sign in so.
        """
        # Lost to another request: at first the new user, then, behind the lock of that user's row, the identity.
        for _ in range(3):
            try:
                with transaction.atomic(using=self.db):
                    return self._known_by(provider, person)
            except IntegrityError as error:
                lost = error
        raise lost

    def _known_by(self, provider: str, person: "Claims") -> "User":
        identity = Identity.objects.select_related("user").filter(provider=provider, subject=person.subject).first()
        if identity is not None:
            user = identity.user
        else:
            joined = self._to_be_joined(person)
            user = joined or self._create_known(provider, person)
            if joined:
                joined.tell_of_identity(provider)
            Identity.objects.create(user=user, provider=provider, subject=person.subject)
            if user.oauth_provider is None:
                user.oauth_provider = provider
                user.save()
        if user.is_deleted or not user.is_active:
            raise ValidationError(
                "This account cannot be used. Please ask those who run the service.", params={"user_id": user.pk}
            )
        return user

    def _to_be_joined(self, person: "Claims") -> "User | None":
        holders = self.model.all_objects.select_for_update(no_key=True)
        user = holders.with_login(person.email).first() if person.email else None
        if user is None:
            return None
        if not person.is_verified:
            raise ValidationError(
                "An account with your e-mail address exists here, and the provider does not say that the address is "
                "verified to be yours. Please log in with your password.",
                params={"user_id": user.pk},
            )
        if not user.is_verified:
            with context.record_as("password_change", by_owner=True):
                user.set_unusable_password()
                user.take_over()
                user.save()
        return user

    def _create_known(self, provider: str, person: "Claims") -> "User":
        email = self.normalize_email(person.email)
        with context.record_as("register", by_owner=True):
            return self._create_alike(
                person.username or (email or "").partition("@")[0] or person.name or provider,
                email=email,
                name=person.name,
                is_verified=email is not None and person.is_verified,
                oauth_provider=provider,
            )

    def _new_user(self, username: str, email: str | None, password: str | None, **fields: Any) -> "User":
        user = self.model(username=username, email=self.normalize_email(email), **fields)
        user.set_password(password)
        return user

    def create_superuser(
        self, username: str, email: str | None = None, password: str | None = None, **fields: Any
    ) -> "User":
        """A user who may do everything; ValidationError, which the command of this name shows, for bad values."""
        granted = {"is_staff": True, "is_superuser": True, "is_verified": True}
        user = self._new_user(username, email, password, **{**fields, **granted})
        user.full_clean(exclude=["password"])
        if password is not None:
            validate_password(password, user)
        user.save(using=self._db)
        return user

    def get_by_natural_key(self, username: str) -> "User":
        """Deleted users too: their username stays theirs while they can be restored."""
        return self.model.all_objects.using(self.db).get(username__lower=username.lower())

    def free_username(self, name: str) -> str:
        """A username nobody has, derived from a person's name: "John Doe" → `john-doe`, else `john-doe-2`, …"""
        base = slugify(name[:200])[:40] or "user"
        base = base if len(base) >= 3 else f"user-{base}"
        candidates = [base, *(f"{base}-{number}" for number in range(2, 100))]
        taken = self.model.all_objects.filter(username__lower__in=candidates)
        taken_names = {username.lower() for username in taken.values_list("username", flat=True)}
        free = (candidate for candidate in candidates if candidate not in taken_names)
        return next(free, f"{base}-{secrets.token_hex(4)}")


class User(AbstractBaseUser, PermissionsMixin, SoftDeletable):
    class Gender(models.TextChoices):
        MALE = "Male"
        FEMALE = "Female"

    owned_by = "id"
    secret_fields = frozenset({"password"})
    # Who signed in when is a matter of sessions: a login writes nothing here.
    last_login = None

    id = models.BigAutoField(primary_key=True, help_text="Number of the user.")
    username = models.CharField(
        max_length=50,
        validators=[
            MinLengthValidator(3),
            RegexValidator(r"^[A-Za-z0-9_.+-]+\Z", "Use letters, digits and the characters . _ + - only."),
        ],
        help_text="3–50 letters, digits or . _ + -; unique whatever the case.",
    )
    email = models.EmailField(
        max_length=255,
        null=True,
        blank=True,
        # Everything has the same idea of their upper and lower case, and one address one spelling.
        validators=[RegexValidator(r"^[!#-~]+\Z", "Use ASCII letters, digits and signs without quotes only.")],
        help_text="E-mail address; unique whatever the case.",
    )
    pending_email = models.EmailField(
        max_length=255, null=True, editable=False, help_text="Address that replaces `email` when it is confirmed."
    )
    password = models.CharField(max_length=128)
    name = LineField(
        max_length=40,
        null=True,
        blank=True,
        validators=[StartsWithCapital(message=NAME_MESSAGE), MinLengthValidator(3)],
        help_text="3–40 characters, starting with a capital letter.",
    )
    gender = models.CharField(max_length=6, choices=Gender.choices, null=True, blank=True, help_text="Gender.")
    age = models.SmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(150)],
        help_text="Age in years, 0–150.",
    )
    bio = LinesField(
        null=True, blank=True, validators=[MaxLengthValidator(2000)], help_text="About the person, ≤ 2,000 characters."
    )
    phone_number = models.CharField(
        max_length=32,
        null=True,
        blank=True,
        validators=[RegexValidator(r"^\+?[0-9][0-9 ()./-]{3,30}\Z", "Enter a phone number, such as +49 30 123456.")],
        help_text="Phone number, digits with an optional + and separators.",
    )
    is_active = models.BooleanField(default=True, help_text="Whether the account can be used at all.")
    is_verified = models.BooleanField(default=False, help_text="Whether the e-mail address is known to be theirs.")
    is_staff = models.BooleanField(default=False, help_text="Whether the person may use the admin site.")
    is_superuser = models.BooleanField(default=False, help_text="Whether every permission is granted.")
    oauth_provider = models.CharField(
        max_length=50, null=True, blank=True, editable=False, help_text="Provider by which the person first signed in."
    )

    deletion_at = models.DateTimeField(
        null=True, editable=False, help_text="When the account will be removed, as its owner asked; null if never."
    )
    deletion_reminded_at = models.DateTimeField(null=True, editable=False)
    # When they last confirmed or cancelled it: tokens that were mailed before are no longer what they want.
    deletion_decided_at = models.DateTimeField(null=True, editable=False)

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar = ["email"]

    objects: ClassVar[Any] = UserManager()
    all_objects: ClassVar[Any] = UserQuerySet.as_manager()

    class Meta:
        db_table = "users"
        constraints = [
            Unique(Lower("username"), name="users_username_unique", violation_error_message="Username already in use"),
            # Implied by the one above; it sorts by username, and tells Django that a login is one account's.
            Unique(fields=["username"], name="users_username", violation_error_message="Username already in use"),
            Unique(Lower("email"), name="users_email_unique", violation_error_message="Email already in use"),
            models.CheckConstraint(
                condition=Q(name=None) | Q(name__regex=f"^[{CAPITALS}][^\\n\\r]{{2,39}}\\Z"),
                name="users_name_check",
                violation_error_message=NAME_MESSAGE,
            ),
            models.CheckConstraint(
                condition=Q(gender=None) | Q(gender__in=["Male", "Female"]),
                name="users_gender_check",
                violation_error_message="Gender must be Male or Female.",
            ),
            models.CheckConstraint(
                condition=Q(age=None) | Q(age__gte=0) & Q(age__lte=150),
                name="users_age_check",
                violation_error_message="Age must be from 0 to 150.",
            ),
        ]
        indexes = [
            *(
                live_index(field, name=f"users_{field}")
                for field in (
                    "email", "name", "gender", "age", "is_active", "is_verified", "is_staff", "is_superuser",
                    "oauth_provider", "created_at",
                )
            ),
            deleted_index("users_deleted"),
            models.Index(
                fields=["deletion_at", "id"], name="users_deletion_at", condition=Q(deletion_at__isnull=False)
            ),
            SearchIndex(fields=["username", "email", "name"], name="users_search"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.username

    def natural_key(self) -> tuple[str]:
        return (self.username,)

    def get_full_name(self) -> str:
        return self.name or self.username

    def get_short_name(self) -> str:
        return self.username

    def may(self, verb: str, model: type[models.Model]) -> bool:
        """Whether Django's model permissions let this person view, add, change or delete rows of `model`.

        Who may change may view, as in the admin. Costs a query once a request, for staff only.
        """
        if not self.is_active or not (self.is_staff or self.is_superuser):
            return False
        verbs = ("view", "change") if verb == "view" else (verb,)
        return any(self.has_perm(f"{model._meta.app_label}.{each}_{model._meta.model_name}") for each in verbs)

    @classmethod
    def forbidden_keys(cls, user: Any, changes: Mapping[Any, Iterable[str]]) -> set[Any]:
        """Apply the rule for staff: a stronger person's account is closed, but for their profile.

        Superusers are closed as a whole, and only superusers grant what is in GRANTS. Everybody may change their own
        row, but for their address: that takes their password. Costs one query, and none for superusers.
        """
        own = {key for key, names in changes.items() if key == user.pk and ADDRESSES & set(names)}
        if user.is_superuser:
            return own
        granting = own | {key for key, names in changes.items() if GRANTS & set(names)}
        others = {key: set(names) for key, names in changes.items() if key != user.pk and key not in granting}
        if not others:
            return granting
        found = cls.all_objects.filter(AnyOf("pk", others)).stronger_than(user).values_list("pk", "is_superuser")
        return granting | {
            key for key, is_superuser in found if is_superuser or not others[key] or others[key] - PROFILE
        }

    def clean(self) -> None:
        self.email = User.objects.normalize_email(self.email)
        # Without a lock, for forms; save() asks again, with one.
        if self._gives_up_superuser() and User.objects.filter(pk=self.pk).leaves_no_superuser():
            raise ValidationError(LAST_SUPERUSER_MESSAGE, code="last_superuser")

    def save(self, **kwargs: Any) -> None:
        """Stores what was changed; a new password and a deactivation end the person's sessions.

        The session by which a person changes their own password goes on.
        """
        self.reload_if_rolled_back()
        changed = self._changed_names()
        if changed & {"email", "password"} and "pending_email" not in changed and self.pending_email:
            self.pending_email = None  # what was asked for before must not take effect afterwards
        before = self.stored_row.values.get("email")
        told = changed & {"email", "pending_email", "username", "password"}
        with transaction.atomic() if told | changed & {"is_active", "is_superuser"} else nullcontext():
            if self._gives_up_superuser():
                User.objects.filter(pk=self.pk)._keep_a_superuser()
            super().save(**kwargs)  # first this row, for whose lock a login waits
            if "is_active" in changed and not self.is_active:
                self.sessions.end()
            elif "password" in changed:
                present = context.login_session()
                (self.sessions.exclude(pk=present.pk) if present else self.sessions).end()
            if told and _is_request():
                self._tell_owner(told, before)

    def _tell_owner(self, changed: set[str], email_before: str | None) -> None:
        """Mail the owner what was changed in how their account is entered: it may not have been them."""
        if "password" in changed:
            self._tell("Your password was changed." if self.has_usable_password() else "Your password was removed.")
        if "username" in changed:
            self._tell(f"Its username was changed to {self.username}.")
        if "email" in changed:
            self.tell_of_address(email_before)
        elif "pending_email" in changed and self.pending_email:
            self._tell(
                f"Somebody who knows your password, or has just logged in, asked to change its e-mail address to "
                f"{self.pending_email}. It changes when that address is confirmed."
            )

    def tell_of_address(self, before: str | None) -> None:
        """Mail the former and the present address that one has replaced the other."""
        if self.email != before:
            event = (
                f"Its e-mail address was changed to {self.email}." if self.email else "Its e-mail address was removed."
            )
            for address in (before, self.email):
                self._tell(event, to=address)

    def tell_of_identity(self, provider: str) -> None:
        self._tell(f"Signing in through {provider} was added to it.")

    def _tell(self, event: str, to: str | None = "") -> None:
        if address := self.email if to == "" else to:
            QueuedMail.objects.enqueue("notice", user_id=self.pk, to=address, event=event)

    def take_over(self) -> None:
        """Give an account to whoever has shown that its address is theirs.

        The one who registered with the address had not: no way in that a stranger may have made opens it any longer,
        and nothing that they set in motion goes on. The password is the caller's to change, and the row to save.
        """
        self.identities.all().delete()
        self.is_verified = True
        self.pending_email = None
        self._stay()

    def schedule_deletion(self) -> datetime:
        """Have the account removed after the grace period; returns when."""
        self.deletion_decided_at = database_now()
        self.deletion_at = self.deletion_decided_at + settings.ACCOUNT_DELETION_GRACE
        self.deletion_reminded_at = None
        self.save()
        return self.deletion_at

    def cancel_deletion(self) -> None:
        self._stay()
        self.save()

    def _stay(self) -> None:
        if self.deletion_at is not None:
            self.deletion_decided_at = database_now()
        self.deletion_at = self.deletion_reminded_at = None

    @classmethod
    def audit_action(cls, fields: list[models.Field]) -> str:
        return "password_change" if any(field.name == "password" for field in fields) else super().audit_action(fields)

    def set_password(self, raw_password: str | None) -> None:
        super().set_password(None if raw_password is None else passwords.normalized(raw_password))

    def check_password(self, raw_password: str | None) -> bool:
        return passwords.check(raw_password, self.password, self._rehash)

    def _rehash(self, raw_password: str) -> None:
        """Keep the same password under today's hasher, for which nobody has to sign in again."""
        stored, self.password = self.password, make_password(raw_password)
        # By Django's plain query set: whom it concerns has changed nothing, and the log has nothing to tell.
        stored_as_before: Any = models.QuerySet(User, using=self._state.db).filter(pk=self.pk, password=stored)
        stored_as_before.update(password=self.password, version=F("version") + 1)
        self.note_stored(["password"])

    def _changed_names(self) -> set[str]:
        return set() if self._state.adding else {field.name for field in self.changed_fields()}

    def _gives_up_superuser(self) -> bool:
        changed = self._changed_names()
        return ("is_superuser" in changed and not self.is_superuser) or ("is_active" in changed and not self.is_active)
