"""Registration and confirmation of e-mail addresses."""

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from records.rest.columns import select_columns
from users import mail
from users.events import record_event
from users.mail_tokens import CHANGE_EMAIL, VERIFY_EMAIL, has_purpose
from users.models import User
from users.serializers import (
    DetailSerializer,
    RegisteredSerializer,
    RegistrationSerializer,
    TokenSerializer,
    UserSerializer,
)
from users.views.attempts import record_attempt
from users.views.base import AccountView, PublicView
from users.views.mail_tokens import accepted, queue_mail, token_user


class RegisterView(PublicView):
    @extend_schema(request=RegistrationSerializer, responses={201: RegisteredSerializer}, operation_id="auth_register")
    def post(self, request: Request) -> Response:
        """Create an account.

        A mail with a token to verify the address is queued, as `verification_mail` says. If it is `failed`, the
        account exists nevertheless, and `POST /auth/request-email-verification` requests another mail.
        """
        serializer = RegistrationSerializer(data=request.data, context={"request": request})
        with record_attempt("register", by_owner=True), transaction.atomic():
            serializer.is_valid(raise_exception=True)
            user = serializer.save()
            [row] = select_columns(User.objects.filter(pk=user.pk), UserSerializer)
            may_send = not mail.count_mail(VERIFY_EMAIL, user.email)
            row["verification_mail"] = "queued" if may_send and mail.queue_verification(user) else "failed"
        location = reverse("user-detail", kwargs={"id": user.pk})
        return Response(row, status=status.HTTP_201_CREATED, headers={"Location": location})


class RequestEmailVerificationView(AccountView):
    @extend_schema(request=None, responses={202: DetailSerializer}, operation_id="auth_request_email_verification")
    def post(self, request: Request) -> Response:
        """Request another mail to verify the e-mail address: the pending one if a change was requested."""
        self.body(request)
        if self.user.pending_email:
            return queue_mail(self.user, CHANGE_EMAIL, mail.queue_change_of_address)
        if self.user.is_verified:
            return accepted(f"{self.user.email} is verified already.")
        return queue_mail(self.user, VERIFY_EMAIL, mail.queue_verification)


class VerifyEmailView(PublicView):
    serializer_class = TokenSerializer

    @extend_schema(request=TokenSerializer, responses={204: None}, operation_id="auth_verify_email")
    def post(self, request: Request) -> Response:
        """Confirm an e-mail address by the token from its mail; a pending address takes effect."""
        token = self.body(request)["token"]
        purpose = CHANGE_EMAIL if has_purpose(CHANGE_EMAIL, token) else VERIFY_EMAIL
        with token_user(purpose, token, "email_verify") as user:
            if purpose == CHANGE_EMAIL:
                user.email, user.pending_email = user.pending_email, None
            elif user.is_verified:
                record_event("email_verify", user.pk)
            user.is_verified = True
            user.save()
        return Response(status=status.HTTP_204_NO_CONTENT)
