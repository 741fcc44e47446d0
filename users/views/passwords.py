"""Changing and resetting passwords."""

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from users import mail
from users.authentication.backend import FAILURES_OF_ACCOUNT
from users.confirmation import NOT_CURRENT, PASSWORD_GUESSES, confirm_password
from users.mail_tokens import RESET_PASSWORD
from users.models import RateLimit, User
from users.serializers import (
    DetailSerializer,
    EmailSerializer,
    NewPasswordSerializer,
    PasswordChangeSerializer,
)
from users.views.attempts import record_attempt
from users.views.base import AccountView, PublicView
from users.views.mail_tokens import accepted, set_password, token_user


class ChangePasswordView(AccountView):
    serializer_class = PasswordChangeSerializer

    @extend_schema(request=PasswordChangeSerializer, responses={204: None}, operation_id="auth_change_password")
    def post(self, request: Request) -> Response:
        """Change your password; every other session ends."""
        body = self.body(request)
        with record_attempt("password_change", lambda: self.user.pk):
            self._change(self.user, **body)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @staticmethod
    def _change(user: User, current_password: str, new_password: str) -> None:
        confirm_password(user, current_password)
        with transaction.atomic():
            # Check again with a lock: the password may have been reset since, and a stolen one must not undo that.
            unchanged = User.objects.active().filter(pk=user.pk, password=user.password)
            locked = unchanged.select_for_update(no_key=True).first()
            if locked is None:
                raise ValidationError({"current_password": [NOT_CURRENT]})
            set_password(locked, new_password)
            RateLimit.objects.reset(PASSWORD_GUESSES, str(locked.pk))


class RequestPasswordResetView(PublicView):
    serializer_class = EmailSerializer

    @extend_schema(
        request=EmailSerializer, responses={202: DetailSerializer}, operation_id="auth_request_password_reset"
    )
    def post(self, request: Request) -> Response:
        """Request a mail with a token to set a new password.

        The response and its time are the same whether or not the account exists.
        """
        email = self.body(request)["email"]
        # Count the address, whether or not an account has it.
        wait = mail.count_mail(RESET_PASSWORD, email)
        user = User.objects.active().with_login(email).first()
        mail.queue_password_reset(None if wait else user)
        return accepted("If there is an account with this address, a mail is on its way to it.")


class ResetPasswordView(PublicView):
    serializer_class = NewPasswordSerializer

    @extend_schema(request=NewPasswordSerializer, responses={204: None}, operation_id="auth_reset_password")
    def post(self, request: Request) -> Response:
        """Set a new password by the token from its mail; every session ends."""
        body = self.body(request)
        with token_user(RESET_PASSWORD, body["token"], "password_reset") as user:
            if not user.is_verified:
                user.hand_over()
            set_password(user, body["new_password"])
            RateLimit.objects.reset(FAILURES_OF_ACCOUNT, str(user.pk))
        return Response(status=status.HTTP_204_NO_CONTENT)
