"""Pages for those who come by a link from a mail; what they do the API does."""

from typing import Any

from django.conf import settings
from django.views.generic import TemplateView


class AccountPage(TemplateView):
    """A form whose script sends it to the endpoint of the API that does it."""

    template_name = "users/account.html"
    http_method_names = ["get", "head", "options"]

    title = text = button = done = endpoint = field = ""
    needs_token = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        shown = ("title", "text", "button", "done", "endpoint", "field", "needs_token")
        return {name: getattr(self, name) for name in shown} | {"app_name": settings.APP_NAME}


account_pages = {
    "verify-email": AccountPage.as_view(
        title="Confirm your e-mail address",
        text="Then we know that mail to you arrives.",
        button="Confirm",
        done="Your e-mail address is confirmed.",
        endpoint="verify-email",
    ),
    "forgot-password": AccountPage.as_view(
        title="Forgot your password?",
        text="We send a link by which you can choose a new one.",
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
        text="Your account and everything in it will be removed for good. Until then it works, and you can keep it.",
        button="Remove my account",
        done="Your account will be removed. To keep it, log in and POST to /api/v1/auth/cancel-account-deletion.",
        endpoint="confirm-account-deletion",
    ),
}
