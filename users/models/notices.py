"""Mails that notify the owner of an account of changes to how it is entered."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from records import context
from users.models.queued_mail import QueuedMail

if TYPE_CHECKING:
    from users.models.user import User

#: Columns whose change is notified.
NOTIFIED = frozenset({"email", "pending_email", "username", "password"})


def is_in_request() -> bool:
    """Return True while a request is answered: changes by commands are not notified."""
    return context.client_address() is not None


class Notice(NamedTuple):
    """A mail that tells the owner of an account what has happened to it."""

    user_id: int
    to: str
    event: str

    def as_mail(self) -> QueuedMail:
        return QueuedMail(kind="notice", user_id=self.user_id, to=self.to, context={"event": self.event})


def send(notices: Iterable[Notice]) -> None:
    """Queue the notices, all by two statements."""
    if mails := [notice.as_mail() for notice in notices]:
        QueuedMail.objects.enqueue_all(mails)


def notices_of_changes(user: "User", changed: set[str], email_before: str | None) -> Iterator[Notice]:
    """Yield which of the NOTIFIED columns changed, because someone else than the owner may have changed them."""
    if "password" in changed:
        yield from _notice(
            user, "Your password was changed." if user.has_usable_password() else "Your password was removed."
        )
    if "username" in changed:
        yield from _notice(user, f"Its username was changed to {user.username}.")
    if "email" in changed:
        yield from notices_of_address(user, email_before)
    elif "pending_email" in changed and user.pending_email:
        yield from _notice(
            user,
            "Somebody who knows your password, or has just logged in, asked to change its e-mail address to "
            f"{user.pending_email}. It changes when that address is confirmed.",
        )


def notices_of_address(user: "User", before: str | None) -> Iterator[Notice]:
    """Yield a notice to the former and to the current address that one has replaced the other."""
    if user.email == before:
        return
    event = f"Its e-mail address was changed to {user.email}." if user.email else "Its e-mail address was removed."
    for address in (before, user.email):
        if address:
            yield Notice(user.pk, address, event)


def notify_of_identity(user: "User", provider: str) -> None:
    send(_notice(user, f"Signing in through {provider} was added to it."))


def _notice(user: "User", event: str) -> Iterator[Notice]:
    if user.email:
        yield Notice(user.pk, user.email, event)
