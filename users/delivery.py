"""Delivery of queued mails, by a thread in each process that serves requests."""

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
from users.models.queued_mail import QueuedMail, mail_queued

logger = logging.getLogger(__name__)

#: Seconds between checks of the queue, because commands and other processes queue mails too.
POLL_SECONDS = 15


def deliver_due(*, max_seconds: float = math.inf) -> None:
    """Send every mail that is due, and start sending none after `max_seconds`.

    No transaction is open while the mail server responds.
    """
    end = time.monotonic() + max_seconds
    while time.monotonic() < end and (mail := QueuedMail.objects.claim()) is not None:
        deliver(mail)


def deliver(mail: QueuedMail) -> None:
    """Send a claimed mail and remove it from the queue, or schedule another attempt."""
    try:
        if mail.expires_at <= timezone.now():
            raise TimeoutError
        message = compose(mail)
        if message is not None:
            message.send()
    except ValueError as error:  # the address is invalid
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
    """A thread that delivers mails. It opens a database connection only while it works."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: int | None = None

    def start(self) -> None:
        """Start the thread, unless it runs in this process already: threads do not survive a fork."""
        with self._lock:
            if self._thread is None or self._process != os.getpid() or not self._thread.is_alive():
                self._process, self._woken = os.getpid(), threading.Event()
                self._thread = threading.Thread(target=self._run, name="mail", daemon=True)
                self._thread.start()

    def notify(self) -> None:
        """Deliver when the current transaction commits. Mails of commands are left to the service."""
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
            except Exception as error:  # the thread must survive every error of the database
                logger.error("The mail queue cannot be read: %s.", type(error).__name__)
            finally:
                connection.close()
            self._woken.wait(seconds)


courier = Courier()


@receiver(mail_queued)
def _notify_courier(sender: type[QueuedMail], **kwargs: object) -> None:
    courier.notify()
