"""Django's SMTP backend with a deadline for each mail."""

import smtplib
import socket
from collections.abc import Sequence
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends import smtp

from users.deadline import deadline, watch

#: Seconds to connect, encrypt, log in and hand a mail over. `users.models.queued_mail.LEASE` must be longer.
DEADLINE_SECONDS = 15


class WatchedSMTP(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: Any) -> socket.socket:
        return watch(super()._get_socket(host, port, timeout))  # type: ignore[misc]


class WatchedSSL(smtplib.SMTP_SSL, WatchedSMTP):
    """Watched before the TLS handshake: `SMTP_SSL` asks the next class for the socket that it wraps."""


class EmailBackend(smtp.EmailBackend):
    @property
    def connection_class(self) -> Any:
        return WatchedSSL if self.use_ssl else WatchedSMTP

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        with deadline(DEADLINE_SECONDS):
            return super().send_messages(email_messages)
