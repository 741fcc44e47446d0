"""Deletion of an account by its owner."""

from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from users import mail
from users.events import record_event
from users.mail_tokens import DELETE_ACCOUNT
from users.models import LAST_SUPERUSER_MESSAGE, User
from users.serializers import (
    DeletionSerializer,
    DetailSerializer,
    TokenSerializer,
)
from users.views.attempts import record_attempt
from users.views.base import AccountView, PublicView
from users.views.mail_tokens import queue_mail, token_user


class RequestAccountDeletionView(AccountView):
    @extend_schema(request=None, responses={202: DetailSerializer}, operation_id="auth_request_account_deletion")
    def post(self, request: Request) -> Response:
        """Request a mail with a token to confirm the deletion of your account."""
        self.body(request)
        with record_attempt("deletion_request", lambda: self.user.pk):
            _raise_if_last_superuser(self.user)
            response = queue_mail(self.user, DELETE_ACCOUNT, mail.queue_deletion_token)
            record_event("deletion_request", self.user.pk)
        return response


class ConfirmAccountDeletionView(PublicView):
    serializer_class = TokenSerializer

    @extend_schema(request=TokenSerializer, responses=DeletionSerializer, operation_id="auth_confirm_account_deletion")
    def post(self, request: Request) -> Response:
        """Confirm the deletion of your account, which takes place after a grace period.

        Until then the account works, and `POST /auth/cancel-account-deletion` keeps it.
        """
        with token_user(DELETE_ACCOUNT, self.body(request)["token"], "deletion_confirm") as user:
            _raise_if_last_superuser(user)
            return Response({"deletion_at": user.schedule_deletion()})


class CancelAccountDeletionView(AccountView):
    @extend_schema(request=None, responses={204: None}, operation_id="auth_cancel_account_deletion")
    def post(self, request: Request) -> Response:
        """Cancel the deletion of your account."""
        self.body(request)
        with record_attempt("deletion_cancel", lambda: self.user.pk):
            self.user.cancel_deletion()
        return Response(status=status.HTTP_204_NO_CONTENT)


def _raise_if_last_superuser(user: User) -> None:
    # Without a lock, because the order of locks would differ from elsewhere: the deletion itself checks again.
    if user.is_superuser and not User.objects.superusers().exclude(pk=user.pk).exists():
        raise ValidationError(LAST_SUPERUSER_MESSAGE)
