"""Valid characters and case-insensitive search on both databases."""

import re
import sys
import unicodedata
from importlib import import_module

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.db import IntegrityError, connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.test import Client as Browser

from records.db.case import simple_upper
from records.db.text import CAPITALS, StartsWithCapital, validate_line, validate_lines
from records.tests.browser import opened_form
from users.models import User
from users.models.user import CAPITALS as USER_CAPITALS

USERS = "/api/v1/users"
ALL_CHARACTERS = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code <= 0xDFFF]

# Case-insensitive search

#: Name, search terms that match it, search terms that do not.
SEARCHES = [
    ("Straße", ["ß", "straß", "STRAß"], ["SS", "ss", "ẞ"]),
    ("STRASSE", ["ss", "Strasse"], ["ß", "ẞ"]),
    ("STRAẞE", ["ẞ"], ["ß", "SS"]),
    ("İstanbul", ["İ", "STANBUL"], ["istanbul", "ıstanbul"]),
    ("Ilık", ["ı", "ILIK", "ilik", "I"], ["İ"]),
    ("Ὀδυσσεύς", ["σ", "ς", "ΔΥΣΣ", "ὀδυσσεύσ"], ["οδ"]),
    ("Renée", ["é", "É", "e\u0301", "E\u0301", "REN"], ["renee"]),
    ("Rene\u0301e", ["é", "É", "e\u0301"], ["renee"]),
    ("Ａlpha", ["ａ", "Ａ", "LPHA"], ["alpha"]),
    ("Ǆemal", ["ǆ", "ǅ", "Ǆ"], ["dž"]),
    ("Ada ſmith", ["smith", "SMITH", "ſ"], []),
    ("Ada \ufb01n", ["\ufb01"], ["fi"]),
    ("Ada ᾳ", ["ᾳ", "ᾼ"], ["ΑΙ"]),
    ("Ada 100%_\\", ["0%", "_", "\\", "%_\\"], ["1%0", "a_a"]),
    ("Ada 𐐨", ["𐐀", "𐐨"], []),
]


def search_api(client, text):
    return [row["id"] for row in client.get(USERS, {"search": text, "size": 200}).json()["items"]]


def search_admin(client, text):
    browser = Browser()
    browser.force_login(client.user)
    page = browser.get("/admin/users/user/", {"q": text})
    assert page.status_code == 200
    return [row.pk for row in page.context["cl"].result_list]


@pytest.mark.parametrize(("name", "texts", "others"), SEARCHES)
@pytest.mark.parametrize("search", [search_api, search_admin])
def test_search_is_case_insensitive_in_api_and_admin(superuser, make_user, search, name, texts, others):
    user = make_user(name=name, username="12345", email=None)
    assert [text for text in texts if user.pk not in search(superuser, text)] == []
    assert [text for text in others if user.pk in search(superuser, text)] == []


@pytest.mark.parametrize(("lookup", "text"), [("iexact", "ILIK"), ("istartswith", "ıL"), ("iendswith", "IK")])
def test_lookups_are_case_insensitive(make_user, lookup, text):
    user = make_user(name="Ilık")
    assert User.objects.filter(**{f"name__{lookup}": text}).get() == user


def test_upper_case_is_the_same_in_python_and_database(db):
    """Only characters known to this version of Python are compared: PostgreSQL may support others."""
    text = "".join(character for character in ALL_CHARACTERS if unicodedata.category(character) != "Cn")
    with connection.cursor() as cursor:
        cursor.execute("SELECT UPPER(%s)", [text])
        [upper] = cursor.fetchone()
    assert len(upper) == len(text)
    pairs = zip(text, upper, simple_upper(text), strict=True)
    assert [
        (character, expected_upper, accepted)
        for character, expected_upper, accepted in pairs
        if expected_upper != accepted
    ] == []


def test_search_uses_its_index_on_postgresql(make_user):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite scans.")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    assert "users_search" in User.all_objects.filter(name__icontains="Ándré").explain()


# Normal form


def test_names_are_stored_in_nfc(superuser, owner):
    answer = superuser.patch(f"{USERS}/{owner.user.pk}", {"name": "E\u0301va", "bio": "o\u0308"})
    assert (answer.json()["name"], answer.json()["bio"]) == ("Éva", "ö")
    version = answer.json()["version"]
    again = superuser.patch(f"{USERS}/{owner.user.pk}", {"name": "E\u0301va", "bio": "o\u0308"})
    assert again.json()["version"] == version
    User.objects.filter(pk=owner.user.pk).update(name="A\u030ase")
    assert User.objects.get(name="A\u030ase").name == "Åse"


def test_length_is_checked_after_normalization(superuser, owner):
    assert superuser.patch(f"{USERS}/{owner.user.pk}", {"name": "E\u0301a"}).status_code == 400
    assert superuser.patch(f"{USERS}/{owner.user.pk}", {"name": "E\u0301" * 40}).status_code == 200


def test_migration_normalizes_existing_names(make_user):
    migration = import_module("users.migrations.0007_normalised_names")
    user, short = make_user(bio="x"), make_user()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE users SET name = %s, bio = %s WHERE id = %s", ["E\u0301va", "o\u0308", user.pk])
        cursor.execute("UPDATE users SET name = %s WHERE id = %s", ["E\u0301a", short.pk])
    historical = MigrationLoader(None).project_state(("users", "0007_normalised_names")).apps
    migration.normalise(historical, connection.schema_editor())
    assert User.objects.values_list("name", "bio", "version").get(pk=user.pk) == ("Éva", "ö", 2)
    assert User.objects.values_list("name").get(pk=short.pk) == ("E\u0301a",)


# Capitals


def test_capitals_match_unicode():
    expected = {character for character in ALL_CHARACTERS if unicodedata.category(character) in {"Lu", "Lt"}}
    accepted, validate = set(), StartsWithCapital(message="")
    for character in ALL_CHARACTERS:
        try:
            validate(character)
            accepted.add(character)
        except ValidationError:
            pass
    assert CAPITALS == USER_CAPITALS
    assert accepted == expected if sys.version_info < (3, 12) else accepted <= expected


@pytest.mark.parametrize(
    "name",
    [
        "Əli", "Ñandú", "Ωmega", "Ǆemal", "ǅemal", "Ąžuolas", "Ḱarl", "Ẽva", "Ṧam", "Ꙁima", "Ⴀna", "Აბა", "𐐀bcd",
        "Ａda", "Ɓala", "Արամ", "Ӏсa", "E\u0301va", "Ỹna",
    ],
)  # fmt: skip
def test_name_may_start_with_any_capital(superuser, owner, make_user, name):
    answer = superuser.patch(f"{USERS}/{owner.user.pk}", {"name": name})
    assert (answer.status_code, answer.json()["name"]) == (200, unicodedata.normalize("NFC", name))
    User.objects.filter(pk=make_user().pk).update(name=name)


@pytest.mark.parametrize("name", ["ada", "əli", "ñandú", "ßeta", "中文字", "عمر", "1st", "ⓐda", "-Ada", "ªda", "Ⅷ th"])
def test_name_without_capital_is_refused(superuser, owner, name):
    answer = superuser.patch(f"{USERS}/{owner.user.pk}", {"name": name})
    assert answer.json()["errors"] == {"name": ["Name must start with a capital letter"]}
    with pytest.raises(IntegrityError, match="users_name_check"), transaction.atomic():
        User.objects.filter(pk=owner.user.pk).update(name=name)


def test_reversing_the_migration_names_the_offending_users(make_user):
    migration = import_module("users.migrations.0006_capitals_of_every_script")
    make_user(name="Éva")
    migration.refuse_other_capitals(apps, connection.schema_editor())
    user = make_user(name="Əli")
    with pytest.raises(CommandError, match=rf"names of 1 users first, beginning with the ids {user.pk}\."):
        migration.refuse_other_capitals(apps, connection.schema_editor())


# Invisible characters

LINE_BREAKS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"]
INVISIBLE = [
    "\t", "\x01", "\x1b", "\x7f", "\x9f", "\xad", "\u034f", "\u061c", "\u115f", "\u180e", "\u200b", "\u200c",
    "\u200d", "\u200e", "\u200f", "\u202a", "\u202e", "\u2060", "\u2066", "\u2069", "\u3164", "\ufeff", "\ufff9",
    "\ue000", "\uffff", "\U000e0041", "\U0010fffe",
]  # fmt: skip


@pytest.mark.parametrize("character", LINE_BREAKS + INVISIBLE)
def test_invisible_character_in_a_name_is_refused(superuser, owner, character):
    name = f"Ada{character}Lovelace"
    path = f"{USERS}/{owner.user.pk}"
    answer = superuser.patch(path, {"name": name})
    expected = "Use one line of text." if character in LINE_BREAKS else f"Remove the character U+{ord(character):04X}"
    assert answer.status_code == 400
    [message] = answer.json()["errors"]["name"]
    assert message.startswith(expected)
    assert superuser.delete(f"{path}", QUERY_STRING=f"reason={encoded(name)}").status_code == 400
    with pytest.raises(ValidationError):
        User(username="ada", name=name).full_clean()


def encoded(text):
    return "".join(f"%{byte:02x}" for byte in text.encode())


@pytest.mark.parametrize("character", ["\u202e", "\x01", "\u2028"])
def test_admin_refuses_invisible_characters(superuser, owner, character):
    browser = Browser()
    browser.force_login(superuser.user)
    path = f"/admin/users/user/{owner.user.pk}/change/"
    page = browser.post(path, opened_form(browser, path) | {"name": f"Ada{character}x"})
    assert page.status_code == 200
    assert list(page.context["adminform"].form.errors) == ["name"]


@pytest.mark.parametrize(
    "name",
    [
        "Ada 👩\u200d💻", "Ada 👩🏽\u200d🚀", "Ada ❤\ufe0f\u200d🔥", "Ali (علی\u200cرضا)", "Ada क्\u200dष",
        "Ada, née 𠮷", "Ada – O’Neil", "Ada \u00a0B",
    ],
)  # fmt: skip
def test_joiners_are_allowed_where_scripts_need_them(superuser, owner, name):
    answer = superuser.patch(f"{USERS}/{owner.user.pk}", {"name": name})
    assert (answer.status_code, answer.json().get("name")) == (200, name)


@pytest.mark.parametrize("field", ["name", "bio"])
def test_combining_marks_in_a_row_are_limited(superuser, owner, field):
    """Normalizing combining marks takes quadratic time."""
    path = f"{USERS}/{owner.user.pk}"
    assert superuser.patch(path, {field: "Ada" + "\u0316" * 30}).status_code == 200
    answer = superuser.patch(path, {field: "Ada" + "\u0316" * 31})
    assert answer.json()["errors"] == {field: ["Use at most 30 combining marks in a row."]}


def test_bio_may_have_lines_but_no_control_characters(superuser, owner):
    path = f"{USERS}/{owner.user.pk}"
    text = "First\tline\r\nsecond \u200f\u2028 third"
    assert superuser.patch(path, {"bio": text}).json()["bio"] == text
    for character in ("\x01", "\x1b", "\x9f", "\x7f"):
        assert list(superuser.patch(path, {"bio": f"a{character}b"}).json()["errors"]) == ["bio"]


def test_user_agent_of_a_session_is_one_line(anonymous, make_user):
    make_user(username="ada", password="correct-horse-7-battery")
    login = {"username": "ada", "password": "correct-horse-7-battery"}
    tokens = anonymous.post("/api/v1/auth/login", login, HTTP_USER_AGENT="curl\t8\x9b2J\xad").json()
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens['access_token']}")
    assert anonymous.get("/api/v1/auth/sessions").json()["items"][0]["user_agent"].split() == ["curl", "8", "2J"]


@pytest.mark.parametrize("text", ["", "a", "é", "x" * 10_000, "👩‍💻" * 1_000])
def test_visible_text_is_valid(text):
    validate_line(text)
    validate_lines(text)


def test_schema_documents_allowed_characters(anonymous):
    """The pattern cannot express joiners and characters beyond U+FFFF."""
    schemas = anonymous.get("/openapi.json").json()["components"]["schemas"]
    fields = schemas["PatchedUserRequest"]["properties"]
    name, bio = (re.compile(pattern) for pattern in (fields["name"]["pattern"], fields["bio"]["pattern"]))
    for text in ("Ada Lovelace", "Əli", "ǅemal", "Ωmega", "O’Neil"):
        assert name.search(text)
    for text in ("ada", "中文字", "Ada\u202e", "Ada\n", "Ada\x01"):
        assert not name.fullmatch(text)
    assert bio.fullmatch("a\n\tb")
    assert not bio.search("a\x01")
