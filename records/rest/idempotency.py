"""Idempotency keys: a write that is sent again with the same key is answered again, not repeated.

The answer is stored in the transaction of the write, so that both exist or neither does.
https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse, RawPostDataException
from django.utils.crypto import constant_time_compare, salted_hmac
from rest_framework.exceptions import APIException, ParseError
from rest_framework.request import Request

from records.db.clock import DatabaseNow, database_now
from records.models.idempotency import MAX_KEY_LENGTH, IdempotencyKey

HEADER = "HTTP_IDEMPOTENCY_KEY"
#: The query parameter of dry runs, which leave no key behind.
DRY_RUN = "dry_run"
#: Bytes of a stored answer.
MAX_ANSWER_SIZE = 64 * 1024
#: Headers of an answer that are sent again.
STORED_HEADERS = ("Content-Type", "ETag", "Location")
#: Answers that say nothing about the write itself: the same request may succeed later.
NOT_STORED = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.PRECONDITION_FAILED,
        HTTPStatus.PRECONDITION_REQUIRED,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
_VALID_KEY = re.compile(rf"[ -~]{{1,{MAX_KEY_LENGTH}}}")


class KeyInUse(APIException):
    status_code = HTTPStatus.CONFLICT
    default_detail = "A request with this Idempotency-Key is still running. Try again when it has ended."
    wait = 1


class KeyReused(APIException):
    status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    default_detail = "This Idempotency-Key was used for another request. Use a new key for each request."


class AnswerTooLarge(APIException):
    status_code = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, size: int) -> None:
        super().__init__(
            f"The response has {size:,} bytes, and one of at most {MAX_ANSWER_SIZE:,} can be kept for an "
            "Idempotency-Key. Nothing was written. Send fewer rows at once, or no key."
        )


class KeyedRequest:
    """A request with an idempotency key."""

    def __init__(self, request: Request, key: str) -> None:
        user: Any = request.user
        self._user_id: int = user.pk
        self._key = key
        self._described = _description(request._request)

    @classmethod
    def from_request(cls, request: Request) -> "KeyedRequest | None":
        """Return None if the request has no key; raise ParseError for an invalid one."""
        key = request.META.get(HEADER)
        if key is None:
            return None
        if not _VALID_KEY.fullmatch(key):
            raise ParseError(f"An Idempotency-Key must have 1–{MAX_KEY_LENGTH} printable ASCII characters.")
        return cls(request, key)

    def lock(self) -> None:
        """Hold the key until the end of the transaction; raise KeyInUse if another request does."""
        if not IdempotencyKey.objects.try_lock(self._user_id, self._key):
            raise KeyInUse

    def stored_response(self) -> HttpResponse | None:
        """Return the answer that is stored under the key, if any; raise KeyReused if it belongs to another request."""
        stored: Any = IdempotencyKey.objects.of_caller(self._user_id, self._key).annotate(now=DatabaseNow()).first()
        if stored is None or stored.is_expired(stored.now):
            return None
        if not any(constant_time_compare(stored.fingerprint, known) for known in self._fingerprints()):
            raise KeyReused
        headers = {**stored.headers, "Idempotent-Replayed": "true"}
        return HttpResponse(bytes(stored.body), status=stored.status, headers=headers)

    def store(self, response: HttpResponse) -> None:
        """Store a rendered response in the current transaction; raise AnswerTooLarge if it cannot be kept."""
        if len(response.content) > MAX_ANSWER_SIZE:
            raise AnswerTooLarge(len(response.content))
        keys = IdempotencyKey.objects.of_caller(self._user_id, self._key)
        keys.expired(database_now()).delete()
        keys.create(
            user_id=self._user_id,
            key=self._key,
            fingerprint=next(self._fingerprints()),
            status=response.status_code,
            headers={name: response.headers[name] for name in STORED_HEADERS if name in response.headers},
            body=response.content,
            created_at=DatabaseNow(),
        )

    def _fingerprints(self) -> Iterator[str]:
        """Yield the fingerprints of this request by the current secret key and by former ones."""
        for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
            yield salted_hmac("records.idempotency", self._described, secret, algorithm="sha256").hexdigest()


def _description(request: HttpRequest) -> bytes:
    """Return what makes two requests with the same key the same: method, path, query and body."""
    query = sorted((name, values) for name, values in request.GET.lists() if name != DRY_RUN)
    try:
        body = request.body
    except RawPostDataException:  # the CSRF check has read the form
        body = orjson.dumps(sorted(request.POST.lists()))
    return orjson.dumps([request.method, request.path.rstrip("/"), query]) + body


def is_stored(status: int) -> bool:
    """Return True if answers with this status are kept."""
    return status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in NOT_STORED
