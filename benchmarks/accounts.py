"""Measure logins and authenticated requests with few and with a million sessions.

    python benchmarks/accounts.py

The application runs in this process. Compare ratios within one run only.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import django

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.contrib.auth.hashers import check_password, make_password  # noqa: E402
from django.db import connection  # noqa: E402
from django.test.utils import CaptureQueriesContext, setup_test_environment  # noqa: E402
from django.utils import timezone  # noqa: E402
from rest_framework.test import APIClient  # noqa: E402

from users.models.session import Session  # noqa: E402
from users.models.user import User  # noqa: E402

PASSWORD = "analytical-engine-1843"
SESSION_COUNT = 1_000_000
AUTH = "/api/v1/auth"


class AuthenticatedUser:
    def __init__(self, user: User) -> None:
        self.user, self.token_client, self.browser = user, APIClient(), APIClient()
        self.log_in()
        self.browser.force_login(user)

    def log_in(self) -> None:
        client = APIClient()
        self.pair = client.post(f"{AUTH}/login", {"username": self.user.username, "password": PASSWORD}).json()
        self.token_client.credentials(HTTP_AUTHORIZATION=f"Bearer {self.pair['access_token']}")

    def refresh(self) -> None:
        self.pair = APIClient().post(f"{AUTH}/refresh", {"refresh_token": self.pair["refresh_token"]}).json()

    def me_by_token(self) -> None:
        assert self.token_client.get("/api/v1/users/me?fields=id").status_code == 200

    def me_by_cookie(self) -> None:
        assert self.browser.get("/api/v1/users/me?fields=id").status_code == 200

    def sessions(self) -> None:
        assert self.token_client.get(f"{AUTH}/sessions").status_code == 200

    def ping(self) -> None:
        assert self.token_client.get("/ping").status_code == 200


def measure(action: Callable[[], object], times: int) -> tuple[int, float]:
    """Return the number of statements, without transaction control, and the median time in milliseconds."""
    action()
    with CaptureQueriesContext(connection) as queries:
        action()
    control = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")
    statements = sum(not query["sql"].startswith(control) for query in queries)
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return statements, statistics.median(seconds) * 1000


def fill(user: User) -> None:
    expiry = timezone.now() + timedelta(days=14)
    for start in range(Session.objects.count(), SESSION_COUNT, 10_000):
        Session.objects.bulk_create(
            Session(user_id=user.pk, family_hash=f"bench-{start + number}", expires_at=expiry)
            for number in range(10_000)
        )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE sessions")


def main() -> None:
    setup_test_environment()
    User.all_objects.filter(username__startswith="bench-ada").purge()
    user = AuthenticatedUser(User.objects.create_user("bench-ada", "bench-ada@example.com", PASSWORD))
    other_user = User.objects.create_user("bench-ada-others", "bench-ada-others@example.com")
    actions = [user.ping, user.me_by_token, user.me_by_cookie, user.sessions, user.refresh, user.log_in]
    for label in ("few sessions", f"{SESSION_COUNT:,} sessions"):
        print(label)
        for action in actions:
            statements, milliseconds = measure(action, 20 if action == user.log_in else 300)
            print(f"  {action.__name__:14} {statements:2} statements  {milliseconds:8.2f} ms")
        fill(other_user)
    hashed = make_password(PASSWORD)
    print(f"one password hash {measure(lambda: check_password(PASSWORD, hashed), 20)[1]:.2f} ms")


main()
