from typing import Any, ClassVar

from django.contrib.auth.password_validation import get_default_password_validators, validate_password
from django.core.exceptions import ValidationError as ModelValidationError
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied, Throttled, ValidationError

from records.rest.columns import serializer_for
from records.rest.fields import BigIntegerField
from records.rest.serializers import RecordSerializer, StrictSerializer, register
from users.mail import QueueFullError, count_mail, queue_change_of_address
from users.mail_tokens import CHANGE_EMAIL
from users.models import Session, User
from users.passwords.limits import MAX_SUBMITTED_LENGTH


class PasswordField(serializers.CharField):
    """A password, exactly as sent. The validators of the settings check new ones."""

    #: Added to the OpenAPI description.
    schema: ClassVar[dict[str, Any]] = {"format": "password"}

    def __init__(self, **kwargs: Any) -> None:
        style = {"input_type": "password", "template": "rest_framework/password.html"}
        super().__init__(max_length=MAX_SUBMITTED_LENGTH, trim_whitespace=False, write_only=True, style=style, **kwargs)


class NewPasswordField(PasswordField):
    @property
    def schema(self) -> dict[str, Any]:  # type: ignore[override]
        """The lengths that the validators of the settings accept, as JSON Schema."""
        rules = get_default_password_validators()
        shortest = max((getattr(rule, "min_length", 1) for rule in rules), default=1)
        longest = min([self.max_length or 0, *(rule.longest for rule in rules if hasattr(rule, "longest"))])
        return PasswordField.schema | {"minLength": shortest, "maxLength": longest}


#: Rows of one request that may have a password.
MAX_PASSWORDS = 10

#: Examples for OpenAPI.
EXAMPLES = {
    "username": "jane-doe",
    "email": "jane.doe@example.com",
    "password": "glacier-Tango-41-velvet",
    "name": "Jane Doe",
    "gender": "Female",
    "age": 30,
    "bio": "Holds what she understands.",
    "phone_number": "+49 30 123456",
    "oauth_provider": "google",
    "is_staff": False,
    "is_superuser": False,
}


@register
class UserSerializer(RecordSerializer):
    current_password = PasswordField(
        required=False,
        help_text="Your password, to change your own e-mail address; an account without one needs a fresh login.",
    )

    class Meta:
        model = User
        fields = [
            "id", "username", "email", "name", "gender", "age", "bio", "phone_number", "is_active", "is_verified",
            "is_staff", "is_superuser", "oauth_provider", "created_at", "updated_at", "version", "current_password",
        ]  # fmt: skip
        read_only_fields = ["id", "oauth_provider", "created_at", "updated_at", "version"]
        staff_fields = {"is_active", "is_verified", "is_staff", "is_superuser"}
        examples = EXAMPLES
        request_example = ["name", "gender", "age", "bio"]
        extra_kwargs = {
            "name": {"allow_blank": False},
            "gender": {"allow_blank": False},
            "email": {"allow_blank": False},
        }

    def writable_staff_fields(self, user: Any) -> set[str]:
        superuser_only = set() if user is None or getattr(user, "is_superuser", False) else {"is_superuser"}
        return super().writable_staff_fields(user) - superuser_only

    def validate_email(self, email: str | None) -> str | None:
        normalized: str | None = User.objects.normalize_email(email)
        return normalized

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if self.instance is None:
            return attrs
        if self._is_own():
            if attrs.get("email", self.instance.email) != self.instance.email:
                self._require_confirmation(self.instance)
        elif "current_password" in attrs:
            raise ValidationError({"current_password": ["This is for a change of your own e-mail address only."]})
        return attrs

    def _is_own(self) -> bool:
        return self.instance is not None and self.instance.pk == self.context["request"].user.pk

    def _require_confirmation(self, owner: User) -> None:
        # Compare with the locked row: the password may have changed since it was confirmed.
        if self.context.get("confirmed_password_hash") == owner.password:
            return
        if owner.has_usable_password():
            raise ValidationError(
                {"current_password": ["Your current password is needed to change your e-mail address."]}
            )
        raise PermissionDenied(
            "Your account has no password: log in again to change your e-mail address within 5 minutes."
        )

    def update(self, instance: User, validated_data: dict[str, Any]) -> User:
        is_confirmed = validated_data.pop("current_password", None) is not None
        email = validated_data.get("email", instance.email)
        if email == instance.email:
            if "email" in validated_data and is_confirmed:
                validated_data["pending_email"] = None  # the user keeps their address
        elif email and self._is_own():
            del validated_data["email"]
            return self._update_when_confirmed(instance, validated_data, email)
        updated: User = super().update(instance, validated_data)
        return updated

    def assign(self, instance: User, validated_data: dict[str, Any]) -> None:
        if validated_data.get("email", instance.email) != instance.email:
            # The new address has not been confirmed.
            validated_data = {"is_verified": False, **validated_data}
        super().assign(instance, validated_data)

    def _update_when_confirmed(self, instance: User, validated_data: dict[str, Any], email: str) -> User:
        """Change everything but the address, which changes when it is confirmed."""
        if wait := count_mail(CHANGE_EMAIL, email):
            raise Throttled(wait, "Several mails were sent to this address already: please look for the last one.")
        user: User = super().update(instance, {**validated_data, "pending_email": email})
        if not queue_change_of_address(user):
            raise QueueFullError
        return user


class UserDetailSerializer(UserSerializer):
    """A user with the stocks that they hold, as returned by `GET /users/{id}`."""

    def get_fields(self) -> dict[str, Any]:
        model: Any = User._meta.get_field("stocks").related_model
        stock_serializer: Any = serializer_for(model)
        return super().get_fields() | {
            "stocks": stock_serializer(many=True, read_only=True, help_text="The first 100 of their stocks, by id."),
            "stocks_total": BigIntegerField(read_only=True, min_value=0, help_text="Total number of their stocks."),
        }


class ManyUsersSerializer(UserSerializer):
    """One of several users that a request changes, without the password that a change of the own address needs."""

    class Meta(UserSerializer.Meta):
        fields = [name for name in UserSerializer.Meta.fields if name != "current_password"]

    def _require_confirmation(self, owner: User) -> None:
        raise ValidationError({"email": [f"Use PATCH /users/{owner.pk} to change your own e-mail address."]})


class MeSerializer(UserSerializer):
    """The current user, with their pending address and the time of their deletion."""

    class Meta(UserSerializer.Meta):
        fields = [*UserSerializer.Meta.fields, "pending_email", "deletion_at"]
        read_only_fields = [*UserSerializer.Meta.read_only_fields, "pending_email", "deletion_at"]


class NewUserSerializer(UserSerializer):
    """A new user: `username` and `email`, or only `name`, from which a free username is derived."""

    password = NewPasswordField(
        required=False,
        help_text="8–128 characters, not common or breached, not similar to the name. Needed to log in.",
    )

    class Meta(UserSerializer.Meta):
        fields = [*(name for name in UserSerializer.Meta.fields if name != "current_password"), "password"]
        required_together: list[list[str]] | None = [["name"], ["username", "email"]]
        #: Hashing a password takes long, so that a request may send only a few.
        row_limits = {"password": MAX_PASSWORDS}
        request_example = ["name", "gender", "age"]
        extra_kwargs = UserSerializer.Meta.extra_kwargs | {"username": {"required": False}}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs.get("name"):
            missing = {name: ["This field is required."] for name in ("username", "email") if not attrs.get(name)}
            if missing:
                raise ValidationError(missing)
        if attrs.get("password") is not None:
            user = User(**{name: attrs[name] for name in ("username", "email", "name") if attrs.get(name)})
            try:
                validate_password(attrs["password"], user)
            except ModelValidationError as error:
                raise ValidationError({"password": error.messages}) from None
        return attrs

    def build(self, validated_data: dict[str, Any]) -> User:
        user: User = User.objects.new_user(**validated_data)
        return user

    def create(self, validated_data: dict[str, Any]) -> User:
        create = User.objects.create_user if validated_data.get("username") else User.objects.create_named
        user: User = create(**validated_data)
        return user


class RegistrationSerializer(NewUserSerializer):
    class Meta(NewUserSerializer.Meta):
        fields = ["email", "username", "password", "name", "gender", "age", "bio"]
        required_together = None
        request_example = ["email", "username", "password", "name"]
        staff_fields: set[str] = set()
        read_only_fields: list[str] = []
        extra_kwargs = UserSerializer.Meta.extra_kwargs | {
            "email": {"required": True, "allow_null": False, "allow_blank": False}
        }

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        fields["password"].required = True
        return fields


class RegisteredSerializer(UserSerializer):
    """A user who has just registered."""

    verification_mail = serializers.ChoiceField(
        choices=["queued", "failed"], read_only=True, help_text="Whether the mail to verify the address will be sent."
    )

    class Meta(UserSerializer.Meta):
        fields = [*UserSerializer.Meta.fields, "verification_mail"]


@register
class SessionSerializer(RecordSerializer):
    current = serializers.BooleanField(read_only=True, help_text="Whether this request uses it.")

    class Meta:
        model = Session
        fields = ["id", "created_at", "refreshed_at", "expires_at", "ip", "user_agent", "current"]
        read_only_fields = fields


class LoginSerializer(StrictSerializer):
    username = serializers.CharField(max_length=255, help_text="Username or e-mail address.")
    password = PasswordField(help_text="Password.")

    class Meta:
        examples = EXAMPLES


class GrantTypeField(serializers.CharField):
    #: What `validate_grant_type` accepts, for the OpenAPI description.
    schema: ClassVar[dict[str, Any]] = {"pattern": "^password$"}


class LoginFormSerializer(LoginSerializer):
    """The password grant of OAuth2 (RFC 6749, section 4.3), without clients and scopes."""

    grant_type = GrantTypeField(required=False, help_text="`password`, as in OAuth2.")
    scope = serializers.CharField(required=False, allow_blank=True, help_text="Ignored.")
    client_id = serializers.CharField(required=False, allow_blank=True, help_text="Ignored.")
    client_secret = serializers.CharField(required=False, allow_blank=True, help_text="Ignored.")

    class Meta:
        examples = EXAMPLES | {"grant_type": "password", "scope": "", "client_id": "", "client_secret": ""}
        request_example = ["username", "password", "grant_type"]

    def validate_grant_type(self, grant_type: str) -> str:
        if grant_type != "password":
            raise ValidationError("unsupported_grant_type: must be 'password'.")
        return grant_type


class RefreshSerializer(StrictSerializer):
    refresh_token = serializers.CharField(max_length=1000, help_text="The refresh token of the last response.")


class PasswordChangeSerializer(StrictSerializer):
    current_password = PasswordField(help_text="The current password.")
    new_password = NewPasswordField(help_text="8–128 characters, not common or breached, not similar to the name.")

    class Meta:
        examples = {"current_password": EXAMPLES["password"], "new_password": "glacier-Waltz-52-marble"}


class EmailSerializer(StrictSerializer):
    email = serializers.EmailField(max_length=255, help_text="The account's e-mail address.")

    class Meta:
        examples = EXAMPLES


class TokenSerializer(StrictSerializer):
    token = serializers.CharField(max_length=1000, help_text="The token from the mail.")


class NewPasswordSerializer(TokenSerializer):
    new_password = NewPasswordField(help_text="8–128 characters, not common or breached, not similar to the name.")

    class Meta:
        examples = {"token": "reset:kF3…", "new_password": "glacier-Waltz-52-marble"}


class TokensSerializer(serializers.Serializer[Any]):
    access_token = serializers.CharField(help_text="For `Authorization: Bearer …`.")
    refresh_token = serializers.CharField(help_text="Gets the next pair; works once.")
    token_type = serializers.CharField(help_text="Always `bearer`.")
    expires_in = serializers.IntegerField(help_text="Seconds until the access token expires.")


class DetailSerializer(serializers.Serializer[Any]):
    detail = serializers.CharField(help_text="What happened.")


class DeletionSerializer(serializers.Serializer[Any]):
    deletion_at = serializers.DateTimeField(help_text="When the account will be removed, unless cancelled.")
