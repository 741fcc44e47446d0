"""JSON as people mean it: no duplicate keys, nothing rounded, nothing that cannot be stored as text."""

import json
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser

# Beyond this a digit string is no number that any field takes; a Decimal carries it to its field's own error.
LONGEST_INTEGER = 30


class PayloadTooLarge(APIException):
    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_detail = "The request body is larger than 1 MiB."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ParseError(f"The key {twice!a} stands twice in one JSON object.")
    return result


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= LONGEST_INTEGER else Decimal(digits)


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:  # an exponent beyond all bounds
        return Decimal("NaN")


class StrictJSONParser(JSONParser):
    """Numbers with a point arrive as Decimal, exactly as they were written; NaN and Infinity reach their field."""

    def parse(self, stream, media_type=None, parser_context=None) -> Any:
        body = stream.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise PayloadTooLarge
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
