"""The queue of mails. A mail is queued in the transaction of its event, and sent by `users.delivery`."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import models, transaction
from django.db.models import Min, QuerySet
from django.dispatch import Signal
from django.utils import timezone

logger = logging.getLogger(__name__)

#: Highest number of queued mails, so that the database does not fill up while the mail server is down.
MAX_QUEUED = 10_000

#: How long to try to send a mail.
LIFETIME = timedelta(hours=12)

#: How long a claimed mail is reserved for its process: longer than sending may take. Then it is sent again.
LEASE = timedelta(seconds=25)

FIRST_RETRY_DELAY = timedelta(seconds=5)

MAX_RETRY_DELAY = timedelta(minutes=10)

#: Sent in the transaction that queues a mail.
mail_queued = Signal()


class QueuedMailQuerySet(QuerySet["QueuedMail"]):
    def enqueue(
        self, kind: str, *, user_id: int | None, to: str | None, lifetime: timedelta = LIFETIME, **context: Any
    ) -> bool:
        """Queue a mail; return False if the queue is full. Always takes two statements."""
        mail = QueuedMail(kind=kind, user_id=user_id, to=to or "", context=context)
        return self.enqueue_all([mail], lifetime) == 1

    def enqueue_all(self, mails: Sequence["QueuedMail"], lifetime: timedelta = LIFETIME) -> int:
        """Queue new mails until the queue is full; return their number. Always takes two statements."""
        room = MAX_QUEUED - self.order_by()[:MAX_QUEUED].count()
        for mail in mails[max(room, 0) :]:
            logger.error("The mail queue is full: a mail (%s) to user %s is not sent.", mail.kind, mail.user_id)
        queued = mails[: max(room, 0)]
        now = timezone.now()
        for mail in queued:
            mail.created_at = mail.due_at = now
            mail.expires_at = now + lifetime
        if queued:
            self.bulk_create(queued)
            mail_queued.send(QueuedMail)
        return len(queued)

    def claim(self) -> "QueuedMail | None":
        """Reserve the next mail that is due, for LEASE; return None if there is none."""
        now = timezone.now()
        due = self.filter(due_at__lte=now).order_by("due_at", "id")
        if not due.exists():  # a transaction would take SQLite's write lock
            return None
        with transaction.atomic():
            mail = due.select_for_update(skip_locked=True).first()
            if mail is not None:
                mail.attempts += 1
                mail.due_at = now + LEASE
                mail.save(update_fields=["attempts", "due_at"])
        return mail

    def next_due(self) -> datetime | None:
        """Return when the next mail is due; None if there is none."""
        due: datetime | None = self.aggregate(due=Min("due_at"))["due"]
        return due


class QueuedMail(models.Model):
    """A mail that has not been sent yet.

    Tokens are created when the mail is sent, so that the database holds none. A mail without a user (`user_id` is
    null) is composed but not sent, so that a password reset takes the same time for unknown addresses.
    """

    kind = models.CharField(max_length=30, help_text="Name of the mail's template.")
    user_id = models.BigIntegerField(null=True, help_text="Id of the user whom the mail is about.")
    to = models.CharField(max_length=255, blank=True, help_text="Address the mail goes to.")
    context = models.JSONField(default=dict, help_text="What the template shows beside the user.")
    created_at = models.DateTimeField()
    due_at = models.DateTimeField(help_text="When the mail is sent, or tried again.")
    expires_at = models.DateTimeField(help_text="When the mail is given up.")
    attempts = models.PositiveSmallIntegerField(default=0, help_text="How often sending was begun.")

    objects = QueuedMailQuerySet.as_manager()

    class Meta:
        db_table = "queued_mails"
        indexes = [models.Index(fields=["due_at", "id"], name="queued_mails_due_at")]

    def __str__(self) -> str:
        return f"{self.kind} to user {self.user_id}"

    def retry_later(self, error: Exception) -> None:
        """Schedule the next attempt, or give up if the mail expires before it."""
        delay = min(FIRST_RETRY_DELAY * 2 ** min(self.attempts - 1, 20), MAX_RETRY_DELAY)
        due_at = timezone.now() + delay
        if due_at >= self.expires_at:
            self.give_up(error)
            return
        # Not if the lease has expired and another process is trying.
        QueuedMail.objects.filter(pk=self.pk, attempts=self.attempts).update(due_at=due_at)
        logger.warning(
            "A mail (%s) could not be sent to user %s: %s. Attempt %d, the next in %d s.",
            self.kind, self.user_id, type(error).__name__, self.attempts, delay.total_seconds(),
        )  # fmt: skip

    def give_up(self, error: Exception) -> None:
        self.delete()
        # Without the text of the error, in which a mail server may quote the mail.
        logger.error(
            "A mail (%s) could not be sent to user %s: %s. It is given up after %d attempts.",
            self.kind, self.user_id, type(error).__name__, self.attempts,
        )  # fmt: skip
