"""People: account, profile, the sessions they are signed in by."""

import hashlib
import secrets
import uuid
from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import PermissionsMixin
from django.core.exceptions import ValidationError
from django.core.validators import (
    MaxLengthValidator,
    MaxValueValidator,
    MinLengthValidator,
    MinValueValidator,
    RegexValidator,
)
from django.db import IntegrityError, models, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Lower
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import slugify

from records.models import (
    SearchIndex,
    SoftDeletable,
    SoftDeletableQuerySet,
    Unique,
    deleted_index,
    live_index,
)

# Written out, because neither database tells capitals beyond ASCII in every locale.
CAPITALS = "A-ZÀ-ÖØ-ÞĀĂĄĆĈĊČĎĐĒĔĖĘĚĜĞĠĢĤĦĨĪĬĮİĴĶĹĻĽĿŁŃŅŇŊŌŎŐŒŔŖŘŚŜŞŠŢŤŦŨŪŬŮŰŲŴŶŸŹŻŽȘȚΆΈ-ΊΌΎΏΑ-ΡΣ-ΫЀ-Я"
NAME_MESSAGE = "Name must start with a capital letter"
# How often a derived username may be lost to a request that runs at the same time.
NAMESAKES_AT_ONCE = 20
LAST_SUPERUSER_MESSAGE = "This is the last active superuser: nobody could manage the service without one."


class UserQuerySet(SoftDeletableQuerySet):
    def active(self) -> Self:
        return self.filter(is_active=True)

    def superusers(self) -> Self:
        """Those who can sign in and manage everything."""
        return self.live().active().filter(is_superuser=True)

    def with_login(self, login: str) -> Self:
        """By e-mail or username, whatever the case; a username has no `@`."""
        key = "email__lower" if "@" in login else "username__lower"
        return self.filter(**{key: login.lower()})

    def leaves_no_superuser(self) -> bool:
        """Whether the service would have no active superuser without these rows. Locks those there are."""
        superusers = User.objects.superusers().select_for_update(no_key=True).order_by("pk")
        remaining = set(superusers.values_list("pk", flat=True))
        return bool(remaining) and remaining <= set(self.filter(pk__in=remaining).values_list("pk", flat=True))

    def _keep_a_superuser(self) -> None:
        if self.leaves_no_superuser():
            raise ValidationError(LAST_SUPERUSER_MESSAGE, code="last_superuser")

    def update(self, **values) -> int:
        if values.get("is_active") is False or values.get("is_superuser") is False:
            with transaction.atomic():
                self._keep_a_superuser()
                return super().update(**values)
        return super().update(**values)

    def delete(self, *, reason: str = "") -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            self._keep_a_superuser()
            return super().delete(reason=reason)

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def purge(self) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            self._keep_a_superuser()
            return super().purge()

    purge.alters_data = True  # type: ignore[attr-defined]


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
        for _ in range(NAMESAKES_AT_ONCE):
            try:
                with transaction.atomic(using=self.db):
                    return self.create_user(**{**fields, "name": name, "username": self.free_username(name)})
            except IntegrityError as error:
                lost = error
        raise lost

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
        user.save(using=self._db)
        return user

    def get_by_natural_key(self, username: str) -> "User":
        """Deleted users too: their username stays theirs while they can be restored."""
        return self.model.all_objects.get(username__lower=username.lower())

    def free_username(self, name: str) -> str:
        """A username nobody has, derived from a person's name: "John Doe" → `john-doe`, else `john-doe-2`, …"""
        base = slugify(name)[:40] or "user"
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
        max_length=255, null=True, blank=True, help_text="E-mail address; unique whatever the case."
    )
    password = models.CharField(max_length=128)
    name = models.CharField(
        max_length=40,
        null=True,
        blank=True,
        validators=[
            MinLengthValidator(3),
            RegexValidator(f"^[{CAPITALS}]", NAME_MESSAGE),
            RegexValidator(r"[\r\n]", "Use one line of text.", inverse_match=True),
        ],
        help_text="3–40 characters, starting with a capital letter.",
    )
    gender = models.CharField(max_length=6, choices=Gender.choices, null=True, blank=True, help_text="Gender.")
    age = models.SmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(150)],
        help_text="Age in years, 0–150.",
    )
    bio = models.TextField(
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
        max_length=50, null=True, blank=True, editable=False, help_text="Provider the account was created through."
    )

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

    def clean(self) -> None:
        self.email = User.objects.normalize_email(self.email)
        with transaction.atomic():
            if self._gives_up_superuser() and User.objects.filter(pk=self.pk).leaves_no_superuser():
                raise ValidationError(LAST_SUPERUSER_MESSAGE, code="last_superuser")

    def save(self, **kwargs: Any) -> None:
        if not self._gives_up_superuser():
            super().save(**kwargs)
            return
        with transaction.atomic():
            User.objects.filter(pk=self.pk)._keep_a_superuser()
            super().save(**kwargs)

    def _gives_up_superuser(self) -> bool:
        if self._state.adding:
            return False
        changed = {field.name for field in self.changed_fields()}
        return ("is_superuser" in changed and not self.is_superuser) or ("is_active" in changed and not self.is_active)


class SessionQuerySet(QuerySet["Session"]):
    def alive(self) -> Self:
        """Not ended, not expired, of a user who may use the service."""
        return self.filter(revoked_at=None, expires_at__gt=timezone.now(), user__is_active=True, user__deleted_at=None)

    def start(self, user: User, request: HttpRequest) -> tuple["Session", str]:
        """Sign `user` in on this device; the refresh token is in no other place than the answer."""
        refresh_token = secrets.token_urlsafe(48)
        session = self.create(
            user=user,
            refresh_hash=hash_token(refresh_token),
            expires_at=timezone.now() + settings.REFRESH_TOKEN_LIFETIME,
            ip=request.META.get("REMOTE_ADDR") or None,
            user_agent=request.headers.get("User-Agent", "")[:300],
        )
        return session, refresh_token


class Session(models.Model):
    """A device somebody is signed in on. Access tokens name it and are worth nothing without it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sessions")
    refresh_hash = models.CharField(max_length=64, help_text="SHA-256 of the refresh token, hexadecimal.")
    created_at = models.DateTimeField(auto_now_add=True)
    refreshed_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    ip = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=300, blank=True)

    objects = SessionQuerySet.as_manager()

    class Meta:
        db_table = "sessions"
        constraints = [models.UniqueConstraint(fields=["refresh_hash"], name="sessions_refresh_hash_unique")]
        indexes = [models.Index(fields=["expires_at"], name="sessions_expires_at")]

    def __str__(self) -> str:
        return f"{self.user_id} from {self.created_at:%Y-%m-%d %H:%M}"


def hash_token(token: str) -> str:
    """Tokens are long and random: a plain hash keeps them, where passwords need a slow one."""
    return hashlib.sha256(token.encode()).hexdigest()
