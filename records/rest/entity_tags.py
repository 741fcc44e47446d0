"""Entity tags of single rows, and the conditional requests that use them (RFC 9110, sections 8.8.3 and 13.1).

A tag has the version of the row, and a digest of the response: `"7-9uLeuGP1RkE"`. Writes compare the version; reads
compare the tag as a whole, because other fields, or embedded rows, make another response of the same version.
"""

import base64
import hashlib
import re
from collections.abc import Collection
from http import HTTPStatus
from typing import Any

from django.http import HttpResponse
from rest_framework.exceptions import APIException, ParseError

from records.http.compression import GZIP_SUFFIX

#: A tag in a list: its weakness prefix and its text (RFC 9110, section 8.8.3).
_TAG = re.compile(r'[ \t]*+(W/)?"([!#-~\x80-\xff]*+)"[ \t]*+(?:,|$)')
ANY = "*"


class PreconditionFailed(APIException):
    """The row has another version than the client expects. `tag` is the current one."""

    status_code = HTTPStatus.PRECONDITION_FAILED
    default_detail = "The row has changed since. Nothing was stored. Read it again, and repeat your change."

    def __init__(self, expected: str, version: int, tag: str) -> None:
        super().__init__()
        self.errors = {"version": [f"Expected {expected}, found {version}."]}
        self.headers = {"ETag": tag}


class PreconditionRequired(APIException):
    status_code = HTTPStatus.PRECONDITION_REQUIRED
    default_detail = "Send If-Match with the ETag of the row, so that no change of others is overwritten."


def entity_tag(version: int | None, body: bytes) -> str:
    """Return the strong tag of a response about a row; rows that never change have no version."""
    digest = base64.urlsafe_b64encode(hashlib.blake2b(body, digest_size=9).digest()).decode()
    return f'"{digest}"' if version is None else f'"{version}-{digest}"'


def parse_tags(header: str, name: str) -> list[tuple[bool, str]]:
    """Return the tags of a header, each with whether it is weak; raise ParseError if it is malformed."""
    tags: list[tuple[bool, str]] = []
    header, position = header.strip(" \t"), 0
    while position < len(header) or not tags:
        match = _TAG.match(header, position)
        if match is None:
            raise ParseError(f'{name} must be * or a list of entity tags, such as "7-9uLeuGP1RkE".')
        tags.append((match[1] is not None, match[2]))
        position = match.end()
    return tags


def allows_version(header: str, version: int) -> bool:
    """Return True if `If-Match` names this version of a row, by any of its tags."""
    if header.strip() == ANY:
        return True
    strong = [tag for is_weak, tag in parse_tags(header, "If-Match") if not is_weak]
    return any(tag.partition("-")[0] == str(version) for tag in strong)


def expected_versions(header: str) -> str:
    """Return the versions that `If-Match` names, for a message."""
    return " or ".join(tag.partition("-")[0] or "none" for _, tag in parse_tags(header, "If-Match")[:3])


def known_tags(request: Any) -> set[str]:
    """Return the texts of the tags in `If-None-Match`, which are compared weakly; raise ParseError if malformed."""
    header = request.META.get("HTTP_IF_NONE_MATCH")
    if header is None or request.method not in {"GET", "HEAD"}:
        return set()
    return {ANY} if header.strip() == ANY else {tag for _, tag in parse_tags(header, "If-None-Match")}


def add_entity_tag(response: HttpResponse, version: int | None, known: Collection[str]) -> None:
    """Add the tag of a rendered response, and turn it into 304 if the client knows it."""
    tag = entity_tag(version, response.content)
    response.headers["ETag"] = tag
    own = tag.strip('"')
    matches = {own, f"{own}{GZIP_SUFFIX}"} & set(known)
    if matches or ANY in known:
        response.headers["ETag"] = f'"{max(matches)}"' if matches else tag  # as the client received it
        response.status_code = HTTPStatus.NOT_MODIFIED
        response.content = b""
        del response.headers["Content-Type"]
