"""The admin site of this service."""

from typing import Any

from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.urls import reverse

from records.admin_site import RecordAdminSite
from users.confirmation import NOT_CURRENT, confirm_password


class OwnPasswordForm(PasswordChangeForm):
    """Count wrong guesses of the current password together with those in the API."""

    def clean_old_password(self) -> str:
        try:
            confirm_password(self.user, self.cleaned_data["old_password"])
        except ValidationError:
            raise ValidationError(NOT_CURRENT, code="password_incorrect") from None
        password: str = self.cleaned_data["old_password"]
        return password


class ManagementSite(RecordAdminSite):
    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Change your own password, as in Django, by a form that counts wrong guesses."""
        context = {**self.each_context(request), **(extra_context or {})}
        done = reverse("admin:password_change_done", current_app=self.name)
        request.current_app = self.name
        return PasswordChangeView.as_view(form_class=OwnPasswordForm, success_url=done, extra_context=context)(request)
