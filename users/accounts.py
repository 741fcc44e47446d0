"""What people do with their account: make it, sign in and out, recover it, leave."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate, logout
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import transaction
from django.http import QueryDict
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.exceptions import AuthenticationFailed, Throttled, ValidationError
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from records.rest.parsers import StrictJSONParser
from records.rest.serializers import StrictSerializer, rows
from records.rest.views import StrictView
from users import mail
from users.authentication import BAD_LOGINS_OF_ACCOUNT, BrowserSessionAuthentication
from users.confirmation import GUESSES, NOT_CURRENT, confirm_password
from users.models import LAST_SUPERUSER_MESSAGE, User
from users.serializers import (
    DeletionSerializer,
    EmailSerializer,
    LoginFormSerializer,
    LoginSerializer,
    NewPasswordSerializer,
    PasswordChangeSerializer,
    RefreshSerializer,
    RegisteredSerializer,
    RegistrationSerializer,
    SaidSerializer,
    TokenSerializer,
    TokensSerializer,
    UserSerializer,
)
from users.sessions import RateLimit, Session, attempted, record_event
from users.tokens import (
    CHANGE_EMAIL,
    DELETE_ACCOUNT,
    RESET_PASSWORD,
    VERIFY_EMAIL,
    Purpose,
    access_token,
    aimed_at,
    is_for,
    spend,
)

NOT_GOOD = "This token is invalid, used or expired."


class AccountView(StrictView):
    """A view whose body is one flat object."""

    serializer_class: type[StrictSerializer] = StrictSerializer

    @property
    def user(self) -> User:
        """Who calls."""
        user: Any = self.request.user
        return user

    def get_serializer_class(self, request: Request) -> type[StrictSerializer]:
        return self.serializer_class

    def body(self, request: Request) -> dict[str, Any]:
        serializer = self.get_serializer_class(request)(data=request.data)
        serializer.is_valid(raise_exception=True)
        return serializer.validated_data


class PublicView(AccountView):
    """For callers who have no account yet, or do not say so."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get_authenticate_header(self, request: Request) -> str:
        return "Bearer"  # without one, DRF would call a wrong password forbidden


# Making it


class RegisterView(PublicView):
    @extend_schema(request=RegistrationSerializer, responses={201: RegisteredSerializer}, operation_id="auth_register")
    def post(self, request: Request) -> Response:
        """Make an account.

        A mail with a token to verify the address is queued, which `verification_mail` confirms. If it says `failed`,
        the account exists all the same, and `POST /auth/request-email-verification` asks for another mail.
        """
        serializer = RegistrationSerializer(data=request.data, context={"request": request})
        with attempted("register", by_owner=True), transaction.atomic():
            serializer.is_valid(raise_exception=True)
            user = serializer.save()
            [row] = rows(User.objects.filter(pk=user.pk), UserSerializer)
            may_send = not mail.count_mail(VERIFY_EMAIL, user.email)
            row["verification_mail"] = "queued" if may_send and mail.queue_verification(user) else "failed"
        location = reverse("user-detail", kwargs={"id": user.pk})
        return Response(row, status=status.HTTP_201_CREATED, headers={"Location": location})


class RequestEmailVerificationView(AccountView):
    @extend_schema(request=None, responses={202: SaidSerializer}, operation_id="auth_request_email_verification")
    def post(self, request: Request) -> Response:
        """Have another mail sent to verify the e-mail address: the pending one if a change was asked for."""
        self.body(request)
        if self.user.pending_email:
            return _mailed(self.user, CHANGE_EMAIL, mail.queue_change_of_address)
        if self.user.is_verified:
            return _accepted(f"{self.user.email} is verified already.")
        return _mailed(self.user, VERIFY_EMAIL, mail.queue_verification)


class VerifyEmailView(PublicView):
    serializer_class = TokenSerializer

    @extend_schema(request=TokenSerializer, responses={204: None}, operation_id="auth_verify_email")
    def post(self, request: Request) -> Response:
        """Confirm an e-mail address by the token that was sent to it; a pending one takes effect."""
        token = self.body(request)["token"]
        purpose = CHANGE_EMAIL if is_for(CHANGE_EMAIL, token) else VERIFY_EMAIL
        with _spending(purpose, token, "email_verify") as user:
            if purpose == CHANGE_EMAIL:
                user.email, user.pending_email = user.pending_email, None
            elif user.is_verified:
                record_event("email_verify", user.pk)
            user.is_verified = True
            user.save()
        return Response(status=status.HTTP_204_NO_CONTENT)


# Signing in and out


def token_pair(session: Session, refresh_token: str) -> Response:
    return Response(
        {
            "access_token": access_token(session),
            "refresh_token": refresh_token,
            "token_type": "bearer",
            "expires_in": int(settings.ACCESS_TOKEN_LIFETIME.total_seconds()),
        }
    )


LOGIN_BODIES = {
    "application/json": LoginSerializer,
    "application/x-www-form-urlencoded": LoginFormSerializer,
    "multipart/form-data": LoginFormSerializer,
}


class LoginView(PublicView):
    error_statuses = (401,)
    parser_classes = (StrictJSONParser, FormParser, MultiPartParser)
    serializer_class = LoginSerializer

    @extend_schema(request=LOGIN_BODIES, responses=TokensSerializer, operation_id="auth_login")
    def post(self, request: Request) -> Response:
        """Sign in on this device.

        A form may be that of OAuth2's password grant.
        """
        body = self.body(request)
        user = authenticate(request._request, username=body["username"], password=body["password"])
        session = Session.objects.start(user, request) if isinstance(user, User) else None
        if session is None:
            raise AuthenticationFailed("Wrong username or password.")
        return token_pair(session, session.next_refresh_token())

    def get_serializer_class(self, request: Request) -> type[StrictSerializer]:
        return LoginFormSerializer if isinstance(request.data, QueryDict) else LoginSerializer


class BrowserTokenView(AccountView):
    authentication_classes = (BrowserSessionAuthentication,)
    error_statuses = (401,)

    def get_authenticate_header(self, request: Request) -> str:
        return "Bearer"

    @extend_schema(request=None, responses=TokensSerializer, operation_id="auth_token")
    def post(self, request: Request) -> Response:
        """Exchange the session of a browser for tokens, in a session of their own."""
        self.body(request)
        present: Any = request.auth
        session = Session.objects.start(self.user, request, by=present)
        if session is None:
            raise AuthenticationFailed
        return token_pair(session, session.next_refresh_token())


class RefreshView(PublicView):
    error_statuses = (401,)
    serializer_class = RefreshSerializer

    @extend_schema(request=RefreshSerializer, responses=TokensSerializer, operation_id="auth_refresh")
    def post(self, request: Request) -> Response:
        """Exchange a refresh token for the next pair of tokens.

        Each refresh token works once. One that comes a second time later than five seconds after its session was
        refreshed counts as stolen, and ends the session; within these, as when two tabs raced, it is just refused.
        """
        refreshed = Session.objects.refresh(self.body(request)["refresh_token"], request)
        if refreshed is None:
            raise AuthenticationFailed("This refresh token is invalid, used or expired. Please log in again.")
        return token_pair(*refreshed)


class LogoutView(AccountView):
    @extend_schema(request=None, responses={204: None}, operation_id="auth_logout")
    def post(self, request: Request) -> Response:
        """End the session of this request: its tokens, or its cookie, are worth nothing from now on."""
        self.body(request)
        session: Any = request.auth
        session.sign_out()
        if isinstance(request.successful_authenticator, BrowserSessionAuthentication):
            logout(request._request)
        return Response(status=status.HTTP_204_NO_CONTENT)


# Passwords


class ChangePasswordView(AccountView):
    serializer_class = PasswordChangeSerializer

    @extend_schema(request=PasswordChangeSerializer, responses={204: None}, operation_id="auth_change_password")
    def post(self, request: Request) -> Response:
        """Change one's password; every other session ends."""
        body = self.body(request)
        with attempted("password_change", lambda: self.user.pk):
            self._change(self.user, **body)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @staticmethod
    def _change(checked: User, current_password: str, new_password: str) -> None:
        confirm_password(checked, current_password)
        with transaction.atomic():
            # Asked again under the lock: it may have been reset since, by somebody whom a thief's guess must not beat.
            unchanged = User.objects.active().filter(pk=checked.pk, password=checked.password)
            user = unchanged.select_for_update(no_key=True).first()
            if user is None:
                raise ValidationError({"current_password": [NOT_CURRENT]})
            _set_password(user, new_password)
            RateLimit.objects.forget(GUESSES, str(user.pk))


class RequestPasswordResetView(PublicView):
    serializer_class = EmailSerializer

    @extend_schema(request=EmailSerializer, responses={202: SaidSerializer}, operation_id="auth_request_password_reset")
    def post(self, request: Request) -> Response:
        """Have a mail sent by which a new password can be set.

        The answer is the same, after the same time, whether or not there is such an account.
        """
        email = self.body(request)["email"]
        # Counted by what was asked for, whether or not it is somebody's.
        wait = mail.count_mail(RESET_PASSWORD, email)
        user = User.objects.active().with_login(email).first()
        mail.queue_password_reset(None if wait else user)
        return _accepted("If there is an account with this address, a mail is on its way to it.")


class ResetPasswordView(PublicView):
    serializer_class = NewPasswordSerializer

    @extend_schema(request=NewPasswordSerializer, responses={204: None}, operation_id="auth_reset_password")
    def post(self, request: Request) -> Response:
        """Set a new password by the token from the mail; every session ends."""
        body = self.body(request)
        with _spending(RESET_PASSWORD, body["token"], "password_reset") as user:
            if not user.is_verified:
                user.take_over()
            _set_password(user, body["new_password"])
            RateLimit.objects.forget(BAD_LOGINS_OF_ACCOUNT, str(user.pk))
        return Response(status=status.HTTP_204_NO_CONTENT)


def _set_password(user: User, password: str) -> None:
    try:
        validate_password(password, user)
    except ModelValidationError as error:
        raise ValidationError({"new_password": error.messages}) from None
    user.set_password(password)
    user.save()


# Leaving


class RequestAccountDeletionView(AccountView):
    @extend_schema(request=None, responses={202: SaidSerializer}, operation_id="auth_request_account_deletion")
    def post(self, request: Request) -> Response:
        """Have a mail sent by which the removal of one's account is confirmed."""
        self.body(request)
        with attempted("deletion_request", lambda: self.user.pk):
            _refuse_last_superuser(self.user)
            answer = _mailed(self.user, DELETE_ACCOUNT, mail.queue_deletion_token)
            record_event("deletion_request", self.user.pk)
        return answer


class ConfirmAccountDeletionView(PublicView):
    serializer_class = TokenSerializer

    @extend_schema(request=TokenSerializer, responses=DeletionSerializer, operation_id="auth_confirm_account_deletion")
    def post(self, request: Request) -> Response:
        """Confirm that one's account shall be removed, once a time to change one's mind is over.

        Until then the account works, and `POST /auth/cancel-account-deletion` keeps it.
        """
        with _spending(DELETE_ACCOUNT, self.body(request)["token"], "deletion_confirm") as user:
            _refuse_last_superuser(user)
            return Response({"deletion_at": user.schedule_deletion()})


class CancelAccountDeletionView(AccountView):
    @extend_schema(request=None, responses={204: None}, operation_id="auth_cancel_account_deletion")
    def post(self, request: Request) -> Response:
        """Keep one's account after all."""
        self.body(request)
        with attempted("deletion_cancel", lambda: self.user.pk):
            self.user.cancel_deletion()
        return Response(status=status.HTTP_204_NO_CONTENT)


def _refuse_last_superuser(user: User) -> None:
    # Without a lock, which would be taken in another order than by others: the removal itself asks again.
    if user.is_superuser and not User.objects.superusers().exclude(pk=user.pk).exists():
        raise ValidationError(LAST_SUPERUSER_MESSAGE)


# Mails and their tokens


def _accepted(detail: str) -> Response:
    return Response({"detail": detail}, status=status.HTTP_202_ACCEPTED)


def _mailed(user: User, purpose: Purpose, queue: Callable[[User], bool]) -> Response:
    address = mail.address_for(purpose, user)
    if not address:
        raise ValidationError("Your account has no e-mail address: add one first.")
    if wait := mail.count_mail(purpose, address):
        raise Throttled(wait, "Several of these mails were sent already: please look for the last one.")
    if not queue(user):
        raise mail.MailQueueFull
    return _accepted(f"A mail is on its way to {address}.")


@contextmanager
def _spending(purpose: Purpose, token: str, action: str) -> Iterator[User]:
    """The user whose token it is, for a transaction in which it is used up: if that fails, it is good again."""
    with attempted(action, lambda: aimed_at(purpose, token), by_owner=True), transaction.atomic():
        user = spend(purpose, token)
        if user is None:
            raise ValidationError({"token": [NOT_GOOD]})
        yield user
