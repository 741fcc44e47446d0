"""Sends the queued mails, in a thread of each process that serves requests."""

import logging
import math
import os
import threading
import time
from smtplib import SMTPException, SMTPRecipientsRefused

from django.db import connection, transaction
from django.dispatch import receiver
from django.utils import timezone

from records import context
from users.mail import compose
from users.outbox import QueuedMail, mail_queued

logger = logging.getLogger(__name__)

#: Seconds after which the queue is looked at in any case: commands and other processes queue mails too.
POLL_SECONDS = 15


def deliver_due(*, for_at_most: float = math.inf) -> None:
    """Send every mail that is due; begin none later than after `for_at_most` seconds.

    No transaction is open while a mail server is waited for.
    """
    end = time.monotonic() + for_at_most
    while time.monotonic() < end and (mail := QueuedMail.objects.claim()) is not None:
        deliver(mail)


def deliver(mail: QueuedMail) -> None:
    """Send a claimed mail and remove it from the queue, or have it tried again later."""
    try:
        if mail.expires_at <= timezone.now():
            raise TimeoutError
        message = compose(mail)
        if message is not None:
            message.send()
    except ValueError as error:  # an address that no mail can go to
        mail.give_up(error)
    except SMTPRecipientsRefused as error:
        is_final = all(code >= 500 for code, _ in error.recipients.values())
        mail.give_up(error) if is_final else mail.retry_later(error)
    except (OSError, SMTPException) as error:
        mail.retry_later(error)
    except Exception as error:
        logger.exception("A mail (%s) could not be composed.", mail.kind)
        mail.retry_later(error)
    else:
        mail.delete()


class Courier:
    """The thread that delivers; it has a database connection of its own while there is something to send."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: int | None = None

    def start(self) -> None:
        """Start the thread unless this process has it; a fork leaves it behind."""
        with self._lock:
            if self._thread is None or self._process != os.getpid() or not self._thread.is_alive():
                self._process, self._woken = os.getpid(), threading.Event()
                self._thread = threading.Thread(target=self._run, name="mail", daemon=True)
                self._thread.start()

    def notify(self) -> None:
        """Deliver when the present transaction is committed. Commands leave their mails to the service."""
        if context.client_address() is not None:
            transaction.on_commit(self._wake)

    def _wake(self) -> None:
        self.start()
        self._woken.set()

    def _run(self) -> None:
        while True:
            self._woken.clear()
            seconds: float = POLL_SECONDS
            try:
                deliver_due()
                if (due := QueuedMail.objects.next_due()) is not None:
                    seconds = min(seconds, max(0.1, (due - timezone.now()).total_seconds()))
            except Exception as error:  # the thread must survive whatever happens to the database
                logger.error("The mail queue cannot be read: %s.", type(error).__name__)
            finally:
                connection.close()
            self._woken.wait(seconds)


courier = Courier()


@receiver(mail_queued)
def _notify_courier(sender: type[QueuedMail], **kwargs: object) -> None:
    courier.notify()
