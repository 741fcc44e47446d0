"""Pages that the links in mails open. Their forms call the API."""

from typing import Any

from django.conf import settings
from django.views.generic import TemplateView


class AccountPage(TemplateView):
    """A form that a script sends to an endpoint of the API."""

    template_name = "users/account.html"
    http_method_names = ["get", "head", "options"]

    title = text = button = done = endpoint = field = ""
    needs_token = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        names = ("title", "text", "button", "done", "endpoint", "field", "needs_token")
        return {name: getattr(self, name) for name in names} | {"app_name": settings.APP_NAME}


account_pages = {
    "verify-email": AccountPage.as_view(
        title="Confirm your e-mail address",
        text="This proves that mail reaches you.",
        button="Confirm",
        done="Your e-mail address is confirmed.",
        endpoint="verify-email",
    ),
    "forgot-password": AccountPage.as_view(
        title="Forgot your password?",
        text="Enter your address to receive a link to choose a new one.",
        button="Send the link",
        done="If there is an account with this address, a mail is on its way to it.",
        endpoint="request-password-reset",
        field="email",
        needs_token=False,
    ),
    "reset-password": AccountPage.as_view(
        title="Choose a new password",
        text="At least 8 characters, and not a common one. You will be logged out everywhere.",
        button="Set the password",
        done="Your new password is set.",
        endpoint="reset-password",
        field="new_password",
    ),
    "delete-account": AccountPage.as_view(
        title="Remove your account",
        text="Your account and everything in it will be removed permanently. Until then, you can cancel it.",
        button="Remove my account",
        done="Your account will be removed. To keep it, log in and POST to /api/v1/auth/cancel-account-deletion.",
        endpoint="confirm-account-deletion",
    ),
}
