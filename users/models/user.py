"""Users: their accounts and profiles."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import PermissionsMixin
from django.core.exceptions import ValidationError
from django.core.validators import (
    MaxLengthValidator,
    MaxValueValidator,
    MinLengthValidator,
    MinValueValidator,
    RegexValidator,
)
from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Lower

from records.db.clock import database_now
from records.db.constraints import SearchIndex, ShortSearchIndex, Unique, day_index, deleted_index, live_index
from records.db.expressions import AnyOf
from records.db.text import CAPITALS, LineField, LinesField, StartsWithCapital
from records.models import SoftDeletable
from records.models.relations import Column
from users.models.managers import LAST_SUPERUSER_MESSAGE, UserManager, UserQuerySet
from users.models.notices import NOTIFIED, is_in_request, notices_of_changes, send
from users.models.session import Session
from users.passwords import hashing

NAME_MESSAGE = "Name must start with a capital letter"

#: Columns that grant permissions: only superusers may write them.
GRANTS = {"is_superuser", "groups", "user_permissions"}

#: Columns that staff may change of everyone but superusers. All others concern access.
PROFILE = frozenset({"name", "gender", "age", "bio", "phone_number"})

#: Columns that users cannot change of their own row without their password, neither by undoing a change.
ADDRESSES = {"email", "pending_email"}


class User(AbstractBaseUser, PermissionsMixin, SoftDeletable):
    class Gender(models.TextChoices):
        MALE = "Male"
        FEMALE = "Female"

    owned_by = "id"
    derived_columns = frozenset({"username"})
    secret_fields = frozenset({"password"})
    # Sessions record logins, so that a login does not write to this table.
    last_login = None

    id = models.BigAutoField(primary_key=True, help_text="Number of the user.")
    username = models.CharField(
        max_length=50,
        validators=[
            MinLengthValidator(3),
            RegexValidator(r"^[A-Za-z0-9_.+-]+\Z", "Use letters, digits and the characters . _ + - only."),
        ],
        help_text="3–50 letters, digits or . _ + -; unique, ignoring case.",
    )
    email = models.EmailField(
        max_length=255,
        null=True,
        blank=True,
        # Python, both databases and mail servers agree on upper and lower case of ASCII only.
        validators=[RegexValidator(r"^[!#-~]+\Z", "Use ASCII letters, digits and signs without quotes only.")],
        help_text="E-mail address; unique, ignoring case.",
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
    # When the deletion was last confirmed or cancelled: tokens that were mailed earlier are invalid.
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
            # Implied by the one above. Its index serves sorting, and Django checks that the username is unique.
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
            day_index("users_day"),
            deleted_index("users_deleted"),
            models.Index(
                fields=["deletion_at", "id"], name="users_deletion_at", condition=Q(deletion_at__isnull=False)
            ),
            SearchIndex(fields=["username", "email", "name"], name="users_search"),
            ShortSearchIndex(fields=["username", "email", "name"], name="users_short_search"),
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
        """Return True if Django's model permissions let the user view, add, change or delete rows of `model`.

        Users who may change rows may view them, as in the admin. Takes one query per request, and only for staff.
        """
        if not self.is_active or not (self.is_staff or self.is_superuser):
            return False
        verbs = ("view", "change") if verb == "view" else (verb,)
        app, name = model._meta.app_label, model._meta.model_name
        return any(self.has_perm(f"{app}.{sufficient}_{name}") for sufficient in verbs)

    @classmethod
    def forbidden_keys(cls, user: Any, changes: Mapping[Any, Iterable[str]]) -> set[Any]:
        """Return the keys of the rows that `user` may not change; `changes` maps keys to changed columns.

        Staff may change only the profile of users who hold permissions that they lack.
        They may not change superusers at all, and only superusers write GRANTS. Users may change their own row except
        for ADDRESSES. Takes one query, and none for superusers.
        """
        own = {key for key, names in changes.items() if key == user.pk and ADDRESSES & set(names)}
        if user.is_superuser:
            return own
        forbidden = own | {key for key, names in changes.items() if GRANTS & set(names)}
        others = {key: set(changes[key]) for key in changes.keys() - forbidden - {user.pk}}
        return forbidden | cls._forbidden_stronger_keys(user, others) if others else forbidden

    @classmethod
    def _forbidden_stronger_keys(cls, user: Any, changes: Mapping[Any, set[str]]) -> set[Any]:
        """Return the keys of superusers, and of other stronger users if more than their profile changes."""
        stronger = cls.all_objects.filter(AnyOf("pk", changes)).stronger_than(user).values_list("pk", "is_superuser")
        return {key for key, is_superuser in stronger if is_superuser or not changes[key] or changes[key] - PROFILE}

    def clean(self) -> None:
        self.email = User.objects.normalize_email(self.email)
        # Without a lock, for forms: save() checks again, with a lock.
        if self.gives_up_rights(self._changed_names()) and User.objects.filter(pk=self.pk).includes_all_superusers():
            raise ValidationError(LAST_SUPERUSER_MESSAGE, code="last_superuser")

    def save(self, **options: Any) -> None:
        """Save changes. A new password or a deactivation ends the user's sessions.

        The session in which users change their own password continues.
        """
        self.reload_if_rolled_back()
        changed = self.prepare_to_save()
        email_before = self.stored_row.values.get("email")
        needs_transaction = changed & (NOTIFIED | {"is_active", "is_superuser"})
        with transaction.atomic() if needs_transaction else nullcontext():
            if self.gives_up_rights(changed):
                User.objects.filter(pk=self.pk).require_other_superuser()
            super().save(**options)  # before the sessions end: a concurrent login waits for the lock of this row
            Session.objects.end_after({self: changed})
            if changed & NOTIFIED and is_in_request():
                send(notices_of_changes(self, changed, email_before))

    def prepare_to_save(self) -> set[str]:
        """Complete the changes by those that follow from them; return the names of the changed columns."""
        changed = self._changed_names()
        if changed & {"email", "password"} and "pending_email" not in changed and self.pending_email:
            self.pending_email = None  # a change that was requested earlier must not be confirmed later
        return changed

    @classmethod
    def prepare_for_insert(cls, rows: list[Any]) -> None:
        super().prepare_for_insert(rows)
        unnamed = [row for row in rows if not row.username]
        if unnamed:
            taken = [row.username for row in rows if row.username]
            usernames = cls.objects.free_usernames([row.name or "" for row in unnamed], taken)
            for row, username in zip(unnamed, usernames, strict=True):
                row.username = username

    def hand_over(self) -> None:
        """Give the account to the owner of its e-mail address, who has just proved to be that.

        Whoever registered with the address had not proved it: every other way to sign in is removed, and changes and
        deletions that were requested are cancelled. The caller replaces the password and saves the row.
        """
        self.identities.all().delete()
        self.is_verified = True
        self.pending_email = None
        self._unschedule_deletion()

    def schedule_deletion(self) -> datetime:
        """Schedule the deletion of the account for the end of the grace period; return that time."""
        self.deletion_decided_at = database_now()
        self.deletion_at = self.deletion_decided_at + settings.ACCOUNT_DELETION_GRACE
        self.deletion_reminded_at = None
        self.save()
        return self.deletion_at

    def cancel_deletion(self) -> None:
        self._unschedule_deletion()
        self.save()

    def _unschedule_deletion(self) -> None:
        if self.deletion_at is not None:
            self.deletion_decided_at = database_now()
        self.deletion_at = self.deletion_reminded_at = None

    @classmethod
    def audit_action(cls, fields: Iterable[Column]) -> str:
        return "password_change" if any(field.name == "password" for field in fields) else super().audit_action(fields)

    def set_password(self, raw_password: str | None) -> None:
        super().set_password(None if raw_password is None else hashing.normalized(raw_password))

    def check_password(self, raw_password: str | None) -> bool:
        return hashing.check(raw_password, self.password, self._rehash_password)

    def _rehash_password(self, raw_password: str) -> None:
        """Store the same password with the current hasher, without ending sessions or writing to the audit log."""
        stored, self.password = self.password, make_password(raw_password)
        rows: models.QuerySet[Any] = models.QuerySet(User, using=self._state.db)
        rows.filter(pk=self.pk, password=stored).update(password=self.password, version=F("version") + 1)
        self.note_stored(["password"])

    def _changed_names(self) -> set[str]:
        return set() if self._state.adding else {field.name for field in self.changed_fields()}

    def gives_up_rights(self, changed: Collection[str]) -> bool:
        """Return True if the changed columns could be those by which a superuser is lost."""
        return ("is_superuser" in changed and not self.is_superuser) or ("is_active" in changed and not self.is_active)
