"""Strict parsing of JSON: no duplicate keys, no rounded numbers, limited size and depth."""

import json
import re
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any

from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser

from records.http.hints import excerpt
from records.http.limits import BODY_TOO_LARGE

#: Digits of an integer. Longer ones become Decimals, because int() takes quadratic time; their field refuses them.
MAX_INTEGER_DIGITS = 30
MAX_ITEMS = 10_000
MAX_DEPTH = 100

# Also matches an unterminated string, so that no search starts inside of it.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_NOT_EMPTY = re.compile(rb"[\[{](?!\s*+[\]}])")
_BRACKETS = re.compile(rb"[\[{\]}]")


class PayloadTooLarge(APIException):
    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_detail = BODY_TOO_LARGE


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ParseError(f"The key '{excerpt(twice)}' stands twice in one JSON object.")
    return result


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else Decimal(digits)


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:  # the exponent is too large
        return Decimal("NaN")


def check_bounds(body: bytes) -> None:
    """Raise ParseError for JSON with too many keys and items or too many levels, before it is parsed."""
    if len(body) <= MAX_ITEMS and body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    structure = _STRING.sub(b"0", body)
    # Each container except the outermost is an item, and a container has one item more than commas unless it is empty.
    items = structure.count(b"[") + structure.count(b"{") - 1
    if items <= MAX_ITEMS:
        items = structure.count(b",") + len(_NOT_EMPTY.findall(structure))
    if items > MAX_ITEMS:
        raise ParseError(f"The JSON of the request body has more than {MAX_ITEMS:,} keys and items.")
    depth = 0
    for bracket in _BRACKETS.finditer(structure):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth <= 0:
            return  # the end of the JSON, or invalid
        if depth > MAX_DEPTH:
            raise ParseError("The JSON of the request body is nested too deep.")


class StrictJSONParser(JSONParser):
    """Parse decimal numbers as Decimal, with all digits. NaN and Infinity are passed on to their field."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        body = stream.read()
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
