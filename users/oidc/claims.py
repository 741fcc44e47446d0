"""The claims of an OpenID Connect provider about a person."""

from typing import Any, TypeGuard

from django.core.exceptions import ValidationError

from users.models import User


class ProviderClaims:
    """The claims that can be stored. Providers may send anything: values that do not fit a column are dropped."""

    def __init__(self, claims: dict[str, Any]) -> None:
        subject = claims.get("sub")
        if not _is_text(subject) or not 1 <= len(subject) <= 255:
            raise ValidationError("The provider says nothing by which we could know you again.")
        self.subject: str = subject
        self.email = _valid_value("email", claims.get("email"))
        self.name = _valid_value("name", claims.get("name"))
        username = claims.get("preferred_username")
        self.username: str = username if _is_text(username) else ""
        # Some providers send a string instead of a boolean.
        self.is_verified = claims.get("email_verified") is True or claims.get("email_verified") == "true"


def _valid_value(name: str, value: Any) -> str | None:
    field: Any = User._meta.get_field(name)
    text = value.strip() if _is_text(value) else ""
    try:
        return field.clean(text, None) or None
    except ValidationError:
        return None


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and "\0" not in value and value.isprintable()
