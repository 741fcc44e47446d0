"""Sets of Unicode characters, written as character classes of regular expressions."""

from collections.abc import Callable


def expand_ranges(text: str) -> list[tuple[int, int]]:
    """Return ranges of code points: `41-5a` is one range, `100-104/2` is three ranges of one code point each."""
    ranges: list[tuple[int, int]] = []
    for item in text.split():
        span, _, step = item.partition("/")
        first, _, last = span.partition("-")
        start, end = int(first, 16), int(last or first, 16)
        ranges += [(code, code) for code in range(start, end + 1, int(step))] if step else [(start, end)]
    return ranges


def _character_class(ranges: list[tuple[int, int]], escape: Callable[[int], str]) -> str:
    return "".join(escape(start) if start == end else f"{escape(start)}-{escape(end)}" for start, end in ranges)


def _escape(code: int) -> str:
    # Python and PostgreSQL accept these escapes, also within brackets.
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def json_schema_class(ranges: list[tuple[int, int]]) -> str:
    """Return the character class for regular expressions of JSON Schema, which have no ranges beyond U+FFFF."""
    return _character_class([pair for pair in ranges if pair[1] <= 0xFFFF], _escape)


#: The upper and title case letters (Lu, Lt) of Unicode 14. They are listed because the predefined classes of regular
#: expressions differ between databases, locales and versions.
CAPITAL_RANGES = expand_ranges(
    """
    41-5a c0-d6 d8-de 100-136/2 139-147/2 14a-178/2 179-17d/2 181-182 184-186/2 187-189/2 18a-18b 18e-191 193-194
    196-198 19c-19d 19f-1a0 1a2-1a6/2 1a7-1a9/2 1ac-1ae/2 1af-1b1/2 1b2-1b3 1b5-1b7/2 1b8 1bc 1c4-1c5 1c7-1c8 1ca-1cb
    1cd-1db/2 1de-1ee/2 1f1-1f2 1f4-1f6/2 1f7-1f8 1fa-232/2 23a-23b 23d-23e 241-243/2 244-246 248-24e/2 370-372/2 376
    37f 386-388/2 389-38a 38c-38e/2 38f-391/2 392-3a1 3a3-3ab 3cf 3d2-3d4 3d8-3ee/2 3f4 3f7-3f9/2 3fa 3fd-42f 460-480/2
    48a-4c0/2 4c1-4cd/2 4d0-52e/2 531-556 10a0-10c5 10c7 10cd 13a0-13f5 1c90-1cba 1cbd-1cbf 1e00-1e94/2 1e9e-1efe/2
    1f08-1f0f 1f18-1f1d 1f28-1f2f 1f38-1f3f 1f48-1f4d 1f59-1f5f/2 1f68-1f6f 1f88-1f8f 1f98-1f9f 1fa8-1faf 1fb8-1fbc
    1fc8-1fcc 1fd8-1fdb 1fe8-1fec 1ff8-1ffc 2102 2107 210b-210d 2110-2112 2115 2119-211d 2124-212a/2 212b-212d 2130-2133
    213e-213f 2145 2183 2c00-2c2f 2c60-2c62/2 2c63-2c64 2c67-2c6d/2 2c6e-2c70 2c72 2c75 2c7e-2c80 2c82-2ce2/2
    2ceb-2ced/2 2cf2 a640-a66c/2 a680-a69a/2 a722-a72e/2 a732-a76e/2 a779-a77d/2 a77e-a786/2 a78b-a78d/2 a790-a792/2
    a796-a7aa/2 a7ab-a7ae a7b0-a7b4 a7b6-a7c4/2 a7c5-a7c7 a7c9 a7d0 a7d6-a7d8/2 a7f5 ff21-ff3a 10400-10427 104b0-104d3
    10570-1057a 1057c-1058a 1058c-10592 10594-10595 10c80-10cb2 118a0-118bf 16e40-16e5f 1d400-1d419 1d434-1d44d
    1d468-1d481 1d49c-1d49e/2 1d49f 1d4a2 1d4a5-1d4a6 1d4a9-1d4ac 1d4ae-1d4b5 1d4d0-1d4e9 1d504-1d505 1d507-1d50a
    1d50d-1d514 1d516-1d51c 1d538-1d539 1d53b-1d53e 1d540-1d544 1d546 1d54a-1d550 1d56c-1d585 1d5a0-1d5b9 1d5d4-1d5ed
    1d608-1d621 1d63c-1d655 1d670-1d689 1d6a8-1d6c0 1d6e2-1d6fa 1d71c-1d734 1d756-1d76e 1d790-1d7a8 1d7ca 1e900-1e921
    """
)
#: The content of a bracket expression for Python and PostgreSQL.
CAPITALS = _character_class(CAPITAL_RANGES, _escape)
JSON_SCHEMA_CAPITALS = json_schema_class(CAPITAL_RANGES)
#: Characters that `validate_line` refuses, without its exceptions, and without surrogates, which UTF-8 cannot encode.
JSON_SCHEMA_INVISIBLE = json_schema_class(
    expand_ranges(
        """
        0-1f 7f-9f ad 34f 600-605 61c 6dd 70f 890-891 8e2 115f-1160 17b4-17b5 180e 200b-200f 2028-202e 2060-2064
        2066-206f 3164 e000-f8ff feff ffa0 fff9-fffb fffe-ffff
        """
    )
)
#: Characters that `validate_lines` refuses.
JSON_SCHEMA_CONTROLS = json_schema_class(expand_ranges("0-8 b-c e-1f 7f-9f fffe-ffff"))
