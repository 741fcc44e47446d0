"""Django's SMTP backend with a deadline for the whole delivery of a mail."""

import smtplib
import socket
from collections.abc import Sequence
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends import smtp

from users.deadline import deadline, watch

#: Seconds to connect, encrypt, log in and send a mail. `users.models.queued_mail.LEASE` must be longer.
DEADLINE_SECONDS = 15


class WatchedSMTP(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: Any) -> socket.socket:
        return watch(super()._get_socket(host, port, timeout))  # type: ignore[misc]


class WatchedSSL(smtplib.SMTP_SSL, WatchedSMTP):
    """Watch the socket before the TLS handshake: `SMTP_SSL` wraps the socket that the next class returns."""


class EmailBackend(smtp.EmailBackend):
    @property
    def connection_class(self) -> Any:
        return WatchedSSL if self.use_ssl else WatchedSMTP

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        with deadline(DEADLINE_SECONDS):
            return super().send_messages(email_messages)
