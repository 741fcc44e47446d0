"""JSON as people mean it: no duplicate keys, nothing rounded, nothing that cannot be stored as text."""

import json
import re
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser

from records.http.hints import excerpt

# Beyond this a digit string is no number that any field takes; a Decimal carries it to its field's own error.
LONGEST_INTEGER = 30
MOST_ITEMS = 10_000
DEEPEST = 100

# Also matches a text without an end, so that no search starts again within it.
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_NOT_EMPTY = re.compile(rb"[\[{](?!\s*+[\]}])")
_BRACKETS = re.compile(rb"[\[{\]}]")


class PayloadTooLarge(APIException):
    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_detail = "The request body is larger than 1 MiB."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ParseError(f"The key '{excerpt(twice)}' stands twice in one JSON object.")
    return result


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= LONGEST_INTEGER else Decimal(digits)


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:  # an exponent beyond all bounds
        return Decimal("NaN")


def check_bounds(body: bytes) -> None:
    """Refuse JSON with too many keys and items, on all levels together, or nested too deep, before it is parsed."""
    if len(body) <= MOST_ITEMS and body.count(b"[") + body.count(b"{") <= DEEPEST:
        return
    structure = _TEXT.sub(b"0", body)
    # Each container but the outermost is an item itself, and has one item more than commas unless it is empty.
    items = structure.count(b"[") + structure.count(b"{") - 1
    if items <= MOST_ITEMS:
        items = structure.count(b",") + len(_NOT_EMPTY.findall(structure))
    if items > MOST_ITEMS:
        raise ParseError(f"The JSON of the request body has more than {MOST_ITEMS:,} keys and items.")
    depth = 0
    for bracket in _BRACKETS.finditer(structure):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth <= 0:
            return  # the end, or invalid
        if depth > DEEPEST:
            raise ParseError("The JSON of the request body is nested too deep.")


class StrictJSONParser(JSONParser):
    """Numbers with a point arrive as Decimal, exactly as they were written; NaN and Infinity reach their field."""

    def parse(self, stream, media_type=None, parser_context=None) -> Any:
        body = stream.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise PayloadTooLarge
        check_bounds(body)
        try:
            data = json.loads(
                body.decode("utf-8"),
                object_pairs_hook=_object,
                parse_float=_decimal,
                parse_int=_integer,
                parse_constant=Decimal,
            )
        except UnicodeDecodeError:
            raise ParseError("The request body is not valid UTF-8.") from None
        except RecursionError:
            raise ParseError("The JSON of the request body is nested too deep.") from None
        except ValueError as error:
            raise ParseError(f"The request body is not valid JSON: {error}") from None
        return data
