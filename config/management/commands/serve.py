"""Prepare the database and the static files, and serve: for `make serve` and the container."""

import gc
import hashlib
import ipaddress
import multiprocessing
import os
import secrets
import socket
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.finders import get_finders
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, connection
from django.http.request import split_domain_port, validate_host
from granian.constants import Interfaces
from granian.server import Server

from config.server import HTTP1, HTTP2, SharedSocketServer, bound_socket
from records.db.availability import INSUFFICIENT_PRIVILEGE, sqlstate


class Command(BaseCommand):
    help = "Migrate, create an administrator if there is none, collect static files, and serve."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="Address to listen on.")
        parser.add_argument("--reload", action="store_true", help="Restart when a file changes.")

    def handle(self, *, host: str, reload: bool, **options: Any) -> None:
        if settings.DATABASES["default"]["NAME"] == ":memory:":
            raise CommandError("DATABASE_URL names a database in memory, which every worker would have for itself.")
        gc.freeze()  # modules stay: neither migrations nor workers need to look for garbage among them
        gc.enable()  # manage.py disables it
        listener = self.bind(host.strip("[]"))
        self.prepare_database()
        if not settings.DEBUG:
            self.collect_static()
        connection.close()
        self.warn()
        self.stdout.write(
            f"{settings.APP_NAME} is at {self.address(host, listener)}  (API /api/v1, docs /docs, admin /admin/). "
            "Ctrl-C ends it.",
            ending="\n",
        )
        self.stdout.flush()
        server: dict[str, Any] = {
            "target": "config.rsgi:application",
            "interface": Interfaces.RSGI,
            # Replace workers that died, and kill workers that hang while stopping.
            "respawn_failed_workers": True,
            "workers_kill_timeout": 10,
            "log_enabled": settings.LOG_LEVEL == "DEBUG",
            "websockets": False,
            "working_dir": settings.BASE_DIR,
        }
        if reload:
            self.serve_reloading(listener, server)
        else:
            # Workers share the memory of what is loaded before they are forked. It lists the collected static files.
            import_module("config.rsgi")
            gc.freeze()
            SharedSocketServer(listener, workers=settings.WEB_WORKERS, **server).serve()

    def serve_reloading(self, listener: socket.socket, server: dict[str, Any]) -> None:
        # A forked worker would keep the modules of this process, from before the change. A spawned worker cannot
        # inherit the socket, so Granian opens another one.
        host, port = listener.getsockname()[:2]
        listener.close()
        multiprocessing.set_start_method("spawn", force=True)
        Server(
            address=host,
            port=port,
            http1_settings=HTTP1,
            http2_settings=HTTP2,
            reload=True,
            reload_paths=[settings.BASE_DIR],  # apps may be added
            reload_ignore_paths=[settings.BASE_DIR / "var"],
            **server,
        ).serve()

    def warn(self) -> None:
        """Warn of settings that work only together with others, or only behind a proxy."""
        if settings.WEB_WORKERS > 1 and "locmem" in settings.CACHES["default"]["BACKEND"]:
            self.stderr.write(
                f"Warning: WEB_WORKERS={settings.WEB_WORKERS}, and each worker counts requests on its own: clients may "
                "send as many times what THROTTLE_ANON and THROTTLE_USER say. Let CACHE_URL name a Redis, in which the "
                "workers count together."
            )
        if settings.HTTPS and settings.APP_URL.startswith("http://"):
            self.stderr.write("Warning: HTTPS=true, and APP_URL begins with http://: links in mails will not work.")
        if not validate_host(self.app_host(), settings.ALLOWED_HOSTS):
            self.stderr.write(
                f"Warning: ALLOWED_HOSTS lacks {self.app_host()}, which APP_URL leads to: links in mails will not work."
            )
        if settings.HTTPS and not settings.TRUSTED_PROXIES:
            self.stderr.write(
                "Warning: HTTPS=true and TRUSTED_PROXIES=0: this server speaks plain HTTP and redirects every request "
                "to https://. Set TRUSTED_PROXIES to the number of proxies in front of it."
            )

    def address(self, host: str, listener: socket.socket) -> str:
        """Return the address for a browser on this machine, or APP_URL if only that is answered."""
        bound = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
        if bound.is_unspecified:  # every address of this machine
            bound = ipaddress.ip_address("127.0.0.1" if bound.version == 4 else "::1")
        name = f"[{bound}]" if bound.version == 6 else str(bound)
        if host.replace(".", "").replace("-", "").isalnum() and not host[-1].isdigit():
            name = host
        refused = settings.HTTPS or not validate_host(name, settings.ALLOWED_HOSTS)
        if refused and validate_host(self.app_host(), settings.ALLOWED_HOSTS):
            return f"{settings.APP_URL}, behind {name}:{settings.PORT}"
        return f"http://{name}:{settings.PORT}"

    @staticmethod
    def app_host() -> str:
        return split_domain_port(urlsplit(settings.APP_URL).netloc)[0]

    def bind(self, host: str) -> socket.socket:
        try:
            return bound_socket(host, settings.PORT)
        except (OSError, OverflowError) as error:
            raise CommandError(
                f"Port {settings.PORT} cannot be used ({getattr(error, 'strerror', error)}): "
                "end what uses it, or choose another with PORT=…"
            ) from None

    def prepare_database(self) -> None:
        try:
            connection.ensure_connection()
            self.check_limits()
            call_command("migrate", interactive=False, verbosity=0)
            self.create_administrator()
        except Error as error:
            # The text of the error does not contain the password.
            reason = " ".join(str(error).split())
            setting = "DATABASE_URL"
            if sqlstate(error) == INSUFFICIENT_PRIVILEGE:
                setting = "MIGRATION_DATABASE_URL, the role that owns the tables, and the grants of DATABASE_URL's role"
            raise CommandError(f"The database cannot be used, see {setting}: {reason}") from None

    def check_limits(self) -> None:
        """Warn if a pooler accepts the limits without applying them, as PgBouncer can be configured to."""
        if connection.vendor != "postgresql" or "options" not in connection.connection.info.dsn_parameters:
            return
        limits = {"statement_timeout": settings.STATEMENT_TIMEOUT, "lock_timeout": settings.LOCK_TIMEOUT}
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM pg_settings WHERE name = ANY(%s) AND setting = '0'", [list(limits)])
            missing = [name for (name,) in cursor.fetchall() if limits[name]]
        for name in missing:
            self.stderr.write(
                f"Warning: {name.upper()} does not apply: the pooler did not pass it on. Set it for the role instead: "
                f"ALTER ROLE … SET {name} = {limits[name]};"
            )

    def collect_static(self) -> None:
        """Collect static files if one has changed, because compressing them takes seconds."""
        files = (
            (path, storage.size(path), storage.get_modified_time(path).isoformat())
            for finder in get_finders()
            for path, storage in finder.list([])
        )
        digest = hashlib.sha256(repr(sorted(files)).encode()).hexdigest()
        stamp = settings.STATIC_ROOT / ".collected"
        if not stamp.is_file() or stamp.read_text() != digest:
            call_command("collectstatic", interactive=False, verbosity=0)
            stamp.write_text(digest)

    def create_administrator(self) -> None:
        users: Any = get_user_model().objects
        if users.superusers().exists():
            return
        password = os.environ.get("DJANGO_SUPERUSER_PASSWORD") or secrets.token_urlsafe(12)
        username = users.free_username("admin")
        try:
            users.create_superuser(username, password=password)
        except ValidationError as error:
            raise CommandError(f"DJANGO_SUPERUSER_PASSWORD cannot be used. {' '.join(error.messages)}") from None
        if os.environ.get("DJANGO_SUPERUSER_PASSWORD"):
            self.stdout.write(f"Created the administrator '{username}' with the password of DJANGO_SUPERUSER_PASSWORD.")
        else:
            self.stdout.write(f"Created the administrator '{username}' with the password {password} (shown only now).")
