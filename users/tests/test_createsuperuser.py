import pytest
from django.core.management import CommandError, call_command

from users.models import User


def create(username: str, email: str) -> None:
    call_command("createsuperuser", interactive=False, username=username, email=email, verbosity=0)


def test_command_creates_a_superuser_without_usable_password(db):
    create("grace", "grace@example.com")
    user = User.objects.get(username="grace")
    assert (user.is_superuser, user.is_staff, user.has_usable_password()) == (True, True, False)


@pytest.mark.parametrize(
    ("username", "email", "message"),
    [
        ("TAKEN", "other@example.com", "already taken"),
        ("other", "Taken@example.com", "Email already in use"),
        ("a b", "other@example.com", "letters, digits"),
    ],
)
def test_invalid_argument_is_reported(make_user, username, email, message):
    make_user(username="taken", email="taken@example.com")
    with pytest.raises(CommandError, match=message):
        create(username, email)
