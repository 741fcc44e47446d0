"""Mails are queued in the database until a mail server accepts them; requests do not wait for a mail server."""

import os
import signal
import smtplib
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from io import StringIO
from itertools import chain, repeat

import django
import pytest
import requests
from django.conf import settings as django_settings
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from conftest import PASSWORD, Client
from users import delivery, smtp
from users.models import User
from users.models.queued_mail import LEASE, QueuedMail

AUTH = "/api/v1/auth"
PERSON = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
SEND = "django.core.mail.backends.locmem.EmailBackend.send_messages"


class Sink(socketserver.StreamRequestHandler):
    """A mail server that accepts every mail."""

    def handle(self):
        in_message, message = False, b""
        self.reply("220 sink")
        for line in self.rfile:
            if in_message:
                if line == b".\r\n":
                    self.server.messages.append(message.decode())
                    in_message = False
                    self.reply("250 taken")
                message += line
            elif line.upper().startswith(b"DATA"):
                in_message, message = True, b""
                self.reply("354 go on")
            else:
                self.reply("221 bye" if line.upper().startswith(b"QUIT") else "250 fine")

    def reply(self, text):
        self.wfile.write(f"{text}\r\n".encode())


class Silence(socketserver.BaseRequestHandler):
    """A mail server that accepts the connection and never replies."""

    def handle(self):
        self.server.released.wait(30)


class Drip(Silence):
    """A mail server that sends one byte at a time and never finishes."""

    prefix = b"220-"

    def handle(self):
        for byte in chain(self.prefix, repeat(0x2A)):
            if self.server.released.wait(0.05):
                return
            try:
                self.request.sendall(bytes([byte]))
            except OSError:
                return


class TLSDrip(Drip):
    prefix = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03"  # the valid start of a handshake of 16 KB


def send_to(settings, host, port, *, is_encrypted=False):
    """Set the mail server in the settings of this Django version."""
    if django.VERSION >= (6, 1):
        options = {"host": host, "port": port, "use_ssl": is_encrypted, "timeout": 10}
        settings.MAILERS = {"default": {"BACKEND": "users.smtp.EmailBackend", "OPTIONS": options}}
    else:
        settings.EMAIL_BACKEND = "users.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_SSL = host, port, is_encrypted


@pytest.fixture
def mail_server(settings):
    """Return a function that starts a mail server: `mail_server(Silence)`."""
    servers = []

    def start(handler, port=0):
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        server = socketserver.ThreadingTCPServer(("127.0.0.1", port), handler)
        server.daemon_threads, server.messages, server.released = True, [], threading.Event()
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        servers.append(server)
        send_to(settings, *server.server_address)
        return server

    yield start
    for server in servers:
        server.released.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def no_courier(monkeypatch):
    """Disable the courier, so that mails stay in the queue."""
    monkeypatch.setattr(delivery.courier, "notify", lambda: None)


@pytest.fixture
def ada(make_user):
    return make_user(username="ada", email="ada@example.com", password=PASSWORD)


def refuse_with(error):
    def refuse(*args):
        raise error

    return refuse


def backdate_queue(**age):
    """Make the queued mails due, by this much in the past."""
    due_at = timezone.now() - timedelta(**age)
    QueuedMail.objects.update(due_at=due_at)


# Queueing


REQUESTS = {
    "register": (201, PERSON | {"username": "grace", "email": "grace@example.com"}),
    "request-email-verification": (202, {}),
    "request-account-deletion": (202, {}),
    "request-password-reset": (202, {"email": "ada@example.com"}),
    "change-password": (204, {"current_password": PASSWORD, "new_password": "difference-engine-1822"}),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("server", [Silence, Drip])
def test_request_does_not_wait_for_the_mail_server(ada, mail_server, monkeypatch, path, server):
    server = mail_server(server)
    deliver = threading.Thread(target=_deliver_and_close)
    monkeypatch.setattr(delivery.courier, "notify", lambda: transaction.on_commit(deliver.start))
    client, (status, body) = Client(ada), REQUESTS[path]
    answer = client.post(f"{AUTH}/{path}", body)
    assert (answer.status_code, deliver.is_alive()) == (status, True)
    server.released.set()
    deliver.join(10)
    assert QueuedMail.objects.get().attempts == 1


def _deliver_and_close():
    delivery.deliver_due()
    connection.close()


def test_registration_reports_that_its_mail_is_queued(anonymous, no_courier):
    assert anonymous.post(f"{AUTH}/register", PERSON).json()["verification_mail"] == "queued"
    assert QueuedMail.objects.values_list("kind", "to").get() == ("verify_email", "ada@example.com")
    assert not mail.outbox


@pytest.mark.django_db(transaction=True)
def test_rolled_back_transaction_queues_no_mail(ada, no_courier):
    with transaction.atomic():
        QueuedMail.objects.enqueue("notice", user_id=ada.pk, to=ada.email, event="Nothing.")
        transaction.set_rollback(True)
    assert not QueuedMail.objects.exists()


@pytest.mark.parametrize("path", ["register", "request-email-verification", "request-account-deletion"])
def test_full_queue_is_reported(ada, monkeypatch, path):
    monkeypatch.setattr("users.models.queued_mail.MAX_QUEUED", 0)
    answer = Client(ada).post(f"{AUTH}/{path}", REQUESTS[path][1])
    if path == "register":
        assert (answer.status_code, answer.json()["verification_mail"]) == (201, "failed")
    else:
        assert (answer.status_code, int(answer["Retry-After"]) > 0) == (503, True)


def test_full_queue_does_not_reveal_accounts(anonymous, ada, monkeypatch):
    monkeypatch.setattr("users.models.queued_mail.MAX_QUEUED", 0)
    answers = [
        anonymous.post(f"{AUTH}/request-password-reset", {"email": f"{name}@example.com"}) for name in ("ada", "x")
    ]
    assert [answer.status_code for answer in answers] == [202, 202]


def test_queue_contains_no_token(anonymous, ada, no_courier):
    anonymous.post(f"{AUTH}/request-password-reset", {"email": "ada@example.com"})
    [row] = QueuedMail.objects.values()
    assert row["context"] == {}


def test_mail_without_recipient_is_dropped(anonymous, db, no_courier):
    anonymous.post(f"{AUTH}/request-password-reset", {"email": "nobody@example.com"})
    assert QueuedMail.objects.get().user_id is None
    delivery.deliver_due()
    assert (mail.outbox, QueuedMail.objects.count()) == ([], 0)


# Sending


def test_mail_is_retried_with_increasing_delays(ada, no_courier, monkeypatch):
    Client(ada).post(f"{AUTH}/request-email-verification")
    delays = []
    with monkeypatch.context() as patch:
        patch.setattr(SEND, refuse_with(ConnectionRefusedError()))
        for _ in range(12):
            backdate_queue(seconds=1)
            delivery.deliver_due()
            delays.append(round((QueuedMail.objects.get().due_at - timezone.now()).total_seconds()))
    assert delays[:3] == [5, 10, 20]
    assert delays == sorted(delays)
    assert delays[-1] == 600
    delivery.deliver_due()
    assert not mail.outbox
    backdate_queue(seconds=1)
    delivery.deliver_due()
    assert [message.to for message in mail.outbox] == [["ada@example.com"]]
    assert not QueuedMail.objects.exists()


@pytest.mark.parametrize(
    "error",
    [
        smtplib.SMTPRecipientsRefused({"ada@example.com": (550, b"unknown")}),
        ValueError("an address that no mail can go to"),
    ],
)
def test_undeliverable_mail_is_dropped(ada, no_courier, monkeypatch, caplog, error):
    Client(ada).post(f"{AUTH}/request-email-verification")
    monkeypatch.setattr(SEND, refuse_with(error))
    delivery.deliver_due()
    assert not QueuedMail.objects.exists()
    assert "given up" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        smtplib.SMTPRecipientsRefused({"ada@example.com": (450, b"greylisted")}),
        smtplib.SMTPDataError(554, b"no"),
        smtplib.SMTPServerDisconnected(),
        TimeoutError(),
        RuntimeError("a broken template"),
    ],
)
def test_temporary_failure_keeps_the_mail_queued(ada, no_courier, monkeypatch, error):
    Client(ada).post(f"{AUTH}/request-email-verification")
    monkeypatch.setattr(SEND, refuse_with(error))
    delivery.deliver_due()
    assert QueuedMail.objects.get().attempts == 1


def test_expired_mail_is_dropped(ada, no_courier, monkeypatch, caplog):
    Client(ada).post(f"{AUTH}/request-email-verification")
    QueuedMail.objects.update(expires_at=timezone.now() + timedelta(seconds=4))
    monkeypatch.setattr(SEND, refuse_with(TimeoutError()))
    delivery.deliver_due()
    assert not QueuedMail.objects.exists()
    assert "given up after 1 attempts" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda user: User.objects.filter(pk=user.pk).update(email="other@example.com"),
        lambda user: User.objects.filter(pk=user.pk).update(is_active=False),
        lambda user: user.delete(),
        lambda user: User.all_objects.filter(pk=user.pk).purge(),
    ],
)
def test_token_for_a_changed_account_is_not_sent(anonymous, ada, no_courier, change):
    anonymous.post(f"{AUTH}/request-password-reset", {"email": "ada@example.com"})
    change(ada)
    delivery.deliver_due()
    assert (mail.outbox, QueuedMail.objects.count()) == ([], 0)


def test_mail_claimed_by_a_killed_process_is_sent_by_another(ada, no_courier):
    Client(ada).post(f"{AUTH}/request-email-verification")
    assert QueuedMail.objects.claim() is not None  # and the process is killed before it sends the mail
    delivery.deliver_due()
    assert not mail.outbox
    backdate_queue(seconds=0)
    delivery.deliver_due()
    assert len(mail.outbox) == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_deliveries_send_each_mail_once(make_user, no_courier):
    for _ in range(12):
        Client(make_user()).post(f"{AUTH}/request-email-verification")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: _deliver_and_close(), range(4)))
    addresses = [message.to[0] for message in mail.outbox]
    assert len(addresses) == len(set(addresses)) == 12


@pytest.mark.parametrize(
    ("server", "is_encrypted"), [(Silence, False), (Drip, False), (Silence, True), (TLSDrip, True)]
)
def test_sending_stops_at_the_deadline(ada, no_courier, mail_server, settings, monkeypatch, server, is_encrypted):
    send_to(settings, *mail_server(server).server_address, is_encrypted=is_encrypted)
    monkeypatch.setattr(smtp, "DEADLINE_SECONDS", 0.5)
    Client(ada).post(f"{AUTH}/request-email-verification")
    started_at = time.monotonic()
    delivery.deliver_due()
    assert 0.4 < time.monotonic() - started_at < 3
    assert QueuedMail.objects.get().attempts == 1


def test_mail_is_sent_by_smtp(ada, no_courier, mail_server):
    server = mail_server(Sink)
    Client(ada).post(f"{AUTH}/request-email-verification")
    delivery.deliver_due()
    assert "To: ada@example.com" in server.messages[0]


def test_lease_is_longer_than_the_deadline():
    assert LEASE.total_seconds() >= smtp.DEADLINE_SECONDS + 5


# Processes


def test_command_keeps_undelivered_mails_queued(ada, no_courier, monkeypatch):
    ada.schedule_deletion()
    User.objects.filter(pk=ada.pk).update(deletion_at=timezone.now() + timedelta(hours=3))
    with monkeypatch.context() as patch:
        patch.setattr(SEND, refuse_with(TimeoutError()))
        with pytest.raises(CommandError, match="could not be mailed yet"):
            call_command("purge_deleted", stdout=StringIO())
    backdate_queue(seconds=1)
    call_command("purge_deleted", stdout=StringIO())
    assert [message.to for message in mail.outbox] == [["ada@example.com"]]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def serve(tmp_path):
    """Return a function that starts the service with a persistent database; it returns the process and the URL."""
    started = []

    def start(**environment):
        port = free_port()
        environment = os.environ | environment | {
            "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
            "SECRET_KEY": django_settings.SECRET_KEY,
            "PORT": str(port),
        }  # fmt: skip
        command = [sys.executable, "manage.py", "serve"]
        process = subprocess.Popen(
            command, cwd=django_settings.BASE_DIR, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _is_up(f"{url}/ping"), 180)  # collecting static files takes long
        return process, url

    yield start
    for process in started:
        kill(process)


def kill(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _is_up(url):
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def wait_until(condition, seconds):
    for _ in range(seconds * 10):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("It did not happen in time.")


def test_queued_mail_survives_a_kill_of_the_service(serve, mail_server, tmp_path):
    port = free_port()
    environment = {"EMAIL_URL": f"smtp://127.0.0.1:{port}"}
    process, url = serve(**environment)
    answer = requests.post(f"{url}{AUTH}/register", json=PERSON, timeout=10)
    assert (answer.status_code, answer.json()["verification_mail"]) == (201, "queued")
    kill(process)
    with closing(sqlite3.connect(f"{tmp_path}/db.sqlite3")) as database, database:
        database.execute("UPDATE queued_mails SET due_at = '2000-01-01'")  # without the pause before a retry
    server = mail_server(Sink, port)
    serve(**environment)
    wait_until(lambda: server.messages, 90)
    assert "To: ada@example.com" in server.messages[0]
