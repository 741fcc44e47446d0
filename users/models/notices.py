"""Mails that notify the owner of an account of changes to how it is entered."""

from typing import TYPE_CHECKING

from records import context
from users.models.queued_mail import QueuedMail

if TYPE_CHECKING:
    from users.models.user import User

#: Columns whose change is notified.
NOTIFIED = frozenset({"email", "pending_email", "username", "password"})


def is_in_request() -> bool:
    """Return True while a request is answered: changes by commands are not notified."""
    return context.client_address() is not None


def notify_of_changes(user: "User", changed: set[str], email_before: str | None) -> None:
    """Mail the owner which of the NOTIFIED columns changed, because someone else may have changed them."""
    if "password" in changed:
        _notify(user, "Your password was changed." if user.has_usable_password() else "Your password was removed.")
    if "username" in changed:
        _notify(user, f"Its username was changed to {user.username}.")
    if "email" in changed:
        notify_of_address(user, email_before)
    elif "pending_email" in changed and user.pending_email:
        _notify(
            user,
            "Somebody who knows your password, or has just logged in, asked to change its e-mail address to "
            f"{user.pending_email}. It changes when that address is confirmed.",
        )


def notify_of_address(user: "User", before: str | None) -> None:
    """Mail the former and the current address that one has replaced the other."""
    if user.email == before:
        return
    event = f"Its e-mail address was changed to {user.email}." if user.email else "Its e-mail address was removed."
    for address in (before, user.email):
        if address:
            QueuedMail.objects.enqueue("notice", user_id=user.pk, to=address, event=event)


def notify_of_identity(user: "User", provider: str) -> None:
    _notify(user, f"Signing in through {provider} was added to it.")


def _notify(user: "User", event: str) -> None:
    if user.email:
        QueuedMail.objects.enqueue("notice", user_id=user.pk, to=user.email, event=event)
