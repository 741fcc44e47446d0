from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils.text import Truncator

from records.admin import LargeTableAdmin, ReadOnlyAdmin, RecordAdmin
from records.admin.forms import RecordForm
from users.models import GRANTS, LAST_SUPERUSER_MESSAGE, Identity, QueuedMail, RateLimit, User, permissions_of
from users.models.session import Session, SessionQuerySet


class NewUserForm(RecordForm, AdminUserCreationForm):  # type: ignore[type-arg]
    def clean_username(self) -> str:
        username: str = self.cleaned_data["username"]
        return username  # the model's constraint checks it, against deleted users too

    class Meta:
        model = User
        fields = ("username", "email")


class UserForm(RecordForm, UserChangeForm):  # type: ignore[type-arg]
    class Meta:
        model = User
        fields = "__all__"


@admin.register(User)
class UserAdmin(RecordAdmin, DjangoUserAdmin):  # type: ignore[type-arg]
    form = UserForm
    add_form = NewUserForm
    list_display = ("username", "email", "name", "is_active", "is_verified", "is_staff", "created_at")
    list_filter = ("is_active", "is_verified", "is_staff", "is_superuser", "gender")
    search_fields = ("username", "email", "name")
    ordering = ("-id",)
    readonly_fields = ("oauth_provider",)
    fieldsets = (
        (None, {"fields": ("username", "email", "password")}),
        ("Profile", {"fields": ("name", "gender", "age", "bio", "phone_number", "oauth_provider")}),
        (
            "Access",
            {"fields": ("is_active", "is_verified", "is_staff", "is_superuser", "groups", "user_permissions")},
        ),
        ("Record", {"fields": (*RecordAdmin.record_fields, *RecordAdmin.deletion_fields)}),
    )
    add_fieldsets = (
        (None, {"classes": ("wide",), "fields": ("username", "email", "usable_password", "password1", "password2")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields that this user may not edit; only superusers grant permissions."""
        readonly = super().get_readonly_fields(request, obj)
        if obj is not None and obj.pk == request.user.pk:
            readonly = (*readonly, "email")  # changed by PATCH /api/v1/users/me, which requires the password
        return readonly if request.user.is_superuser else (*readonly, *sorted(GRANTS))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or self._is_account_open(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or self._is_account_open(request, obj))

    def may_manage(self, request: HttpRequest, rows: Iterable[User]) -> bool:
        # Skip reading the rows for superusers; a selection may have 100,000.
        return request.user.is_superuser or not User.forbidden_keys(request.user, {row.pk: () for row in rows})

    @staticmethod
    def _is_account_open(request: HttpRequest, user: User) -> bool:
        # Cache the result, because Django checks permissions several times a page.
        results: dict[Any, bool] = vars(request).setdefault("_open_accounts", {})
        if user.pk not in results:
            results[user.pk] = user.may_be_changed_by(request.user)
        return results[user.pk]

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        has_new_email = any(field.name == "email" for field in obj.changed_fields())
        if change and has_new_email and "is_verified" not in form.changed_data:
            obj.is_verified = False  # the new address is not verified yet
        super().save_model(request, obj, form, change)

    def rows_to_lock(self, rows: Any) -> Any:
        # As the save locks them, which checks that one of them remains: other locks first could deadlock.
        return rows | User.all_objects.superusers() if rows.filter(is_superuser=True).exists() else rows

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> Any:  # noqa: A002 - Django's
        """Redirect from the user's own password to the form that requires the current one."""
        if id == str(request.user.pk):
            return HttpResponseRedirect(reverse("admin:password_change"))
        return super().user_change_password(request, id, form_url)

    def deletion_obstacles(self, rows: Any) -> list[str]:
        obstacles = super().deletion_obstacles(rows)
        return [*obstacles, LAST_SUPERUSER_MESSAGE] if rows.includes_all_superusers() else obstacles


class GuardedDeletion(ReadOnlyAdmin):
    """Base for rows that belong to an account: staff cannot delete those of users with permissions that they lack."""

    def accounts(self, rows: Iterable[Any]) -> set[int]:
        """Return the ids of the users that these rows belong to."""
        return {row.user_id for row in rows}

    def may_manage(self, request: HttpRequest, rows: Iterable[Any]) -> bool:
        user: Any = request.user
        return user.is_superuser or not User.forbidden_keys(user, dict.fromkeys(self.accounts(rows), ()))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or self.may_manage(request, [obj]))


@admin.register(Session)
class SessionAdmin(GuardedDeletion):
    """Devices on which users are signed in; deleting a row signs that device out."""

    list_display = ("user", "refreshed_at", "ip", "device", "is_alive")
    list_select_related = ("user",)
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    search_fields = ("user__username", "user__email", "ip")
    ordering = ("-expires_at",)  # by an index; the latest refresh first
    exclude = ("family_hash", "refresh_hash")
    actions = ("end",)

    def get_queryset(self, request: HttpRequest) -> Any:
        queryset: Any = super().get_queryset(request)
        return queryset.with_now()

    @admin.display(description="device")
    def device(self, session: Session) -> str:
        return Truncator(session.user_agent).chars(40)

    @admin.display(description="signed in", boolean=True)
    def is_alive(self, session: Any) -> bool:
        return session.revoked_at is None and session.expires_at > session.now

    @admin.action(description="Sign out the selected devices", permissions=["delete"])
    def end(self, request: HttpRequest, queryset: SessionQuerySet) -> None:
        if not self.may_manage(request, queryset):
            raise PermissionDenied
        self.message_user(request, f"{queryset.sign_out():,} devices are signed out.")

    def delete_rows(self, rows: SessionQuerySet) -> int:
        rows.sign_out()
        return super().delete_rows(rows)


@admin.register(Identity)
class IdentityAdmin(GuardedDeletion):
    """Accounts of users at OpenID Connect providers."""

    list_display = ("user", "provider", "subject", "created_at")
    list_select_related = ("user",)
    list_filter = ("provider",)
    search_fields = ("user__username", "user__email", "=subject")


@admin.register(RateLimit)
class RateLimitAdmin(GuardedDeletion):
    """Recent failed logins and mails; deleting a row lifts the limit of its account or address."""

    list_display = ("key", "count", "expires_at")
    search_fields = ("key",)
    ordering = ("-expires_at",)

    def accounts(self, rows: Iterable[RateLimit]) -> set[int]:
        return {user_id for row in rows if (user_id := row.counted_user_id) is not None}

    @admin.display(description="times")
    def count(self, limit: RateLimit) -> int:
        return len(limit.hits)


@admin.register(QueuedMail)
class QueuedMailAdmin(GuardedDeletion):
    """Mails that the mail server has not accepted yet; deleting a row discards its mail."""

    list_display = ("kind", "to", "created_at", "due_at", "attempts")
    list_filter = ("kind",)
    search_fields = ("to",)
    ordering = ("due_at",)

    def accounts(self, rows: Iterable[QueuedMail]) -> set[int]:
        return {row.user_id for row in rows if row.user_id is not None}


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(LargeTableAdmin, DjangoGroupAdmin):
    """Groups. Staff cannot grant permissions that they lack, nor change groups that hold them or whose members do."""

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        if db_field.name == "permissions" and not request.user.is_superuser:
            kwargs["queryset"] = permissions_of(request.user)
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or self.may_manage(request, [obj]))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or self.may_manage(request, [obj]))

    def may_manage(self, request: Any, groups: Iterable[Group]) -> bool:
        if request.user.is_superuser:
            return True
        chosen = [group.pk for group in groups]
        beyond = Group.permissions.through._default_manager.exclude(
            permission__in=permissions_of(request.user).values("pk")
        )
        members = User.all_objects.stronger_than(request.user).filter(groups__in=chosen)
        return not (beyond.filter(group__in=chosen).exists() or members.exists())
