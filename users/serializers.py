from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as ModelValidationError
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from records.rest.serializers import RecordSerializer, StrictSerializer
from users.models import User


class UserSerializer(RecordSerializer):
    class Meta:
        model = User
        fields = [
            "id", "username", "email", "name", "gender", "age", "bio", "phone_number", "is_active", "is_verified",
            "is_staff", "is_superuser", "oauth_provider", "created_at", "updated_at", "version",
        ]  # fmt: skip
        read_only_fields = ["id", "oauth_provider", "created_at", "updated_at", "version"]
        staff_fields = {"is_active", "is_verified", "is_staff", "is_superuser"}
        extra_kwargs = {
            "name": {"allow_blank": False},
            "gender": {"allow_blank": False},
            "email": {"allow_blank": False},
        }

    def open_fields(self, user: Any) -> set[str]:
        superuser_only = set() if user is None or getattr(user, "is_superuser", False) else {"is_superuser"}
        return super().open_fields(user) - superuser_only

    def validate_email(self, email: str | None) -> str | None:
        return User.objects.normalize_email(email)

    def update(self, instance: User, validated_data: dict[str, Any]) -> User:
        if validated_data.get("email", instance.email) != instance.email:
            # Nobody has shown yet that the new address is theirs.
            validated_data.setdefault("is_verified", False)
        return super().update(instance, validated_data)


class NewUserSerializer(UserSerializer):
    """A user to be made: `username` and `email`, or just `name`, from which a free username is derived."""

    password = serializers.CharField(
        write_only=True,
        required=False,
        max_length=128,
        trim_whitespace=False,
        style={"input_type": "password"},
        help_text="8–128 characters, not common, not similar to the name. Without one nobody can log in.",
    )

    class Meta(UserSerializer.Meta):
        fields = [*UserSerializer.Meta.fields, "password"]
        extra_kwargs = UserSerializer.Meta.extra_kwargs | {"username": {"required": False}}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs.get("name"):
            missing = {name: ["This field is required."] for name in ("username", "email") if not attrs.get(name)}
            if missing:
                raise ValidationError(missing)
        attrs = super().validate(attrs)
        if attrs.get("password") is not None:
            person = User(**{name: attrs[name] for name in ("username", "email", "name") if attrs.get(name)})
            try:
                validate_password(attrs["password"], person)
            except ModelValidationError as error:
                raise ValidationError({"password": error.messages}) from None
        return attrs

    def create(self, validated_data: dict[str, Any]) -> User:
        if validated_data.get("username"):
            return User.objects.create_user(**validated_data)
        return User.objects.create_named(**validated_data)


class RegistrationSerializer(NewUserSerializer):
    class Meta(NewUserSerializer.Meta):
        fields = ["email", "username", "password", "name", "gender", "age", "bio"]
        staff_fields: set[str] = set()
        read_only_fields: list[str] = []
        extra_kwargs = UserSerializer.Meta.extra_kwargs | {
            "email": {"required": True, "allow_null": False, "allow_blank": False}
        }

    def get_fields(self) -> dict[str, serializers.Field]:
        fields = super().get_fields()
        fields["password"].required = True
        return fields


class LoginSerializer(StrictSerializer):
    username = serializers.CharField(max_length=255, help_text="Username or e-mail address.")
    password = serializers.CharField(
        max_length=1024, trim_whitespace=False, style={"input_type": "password"}, help_text="Password."
    )


class TokenSerializer(StrictSerializer):
    token = serializers.CharField(max_length=1000, help_text="The token from the mail.")


class TokensSerializer(serializers.Serializer):
    access_token = serializers.CharField(help_text="For `Authorization: Bearer …`.")
    refresh_token = serializers.CharField(help_text="Gets the next pair; works once.")
    token_type = serializers.CharField(help_text="Always `bearer`.")
    expires_in = serializers.IntegerField(help_text="Seconds until the access token expires.")
