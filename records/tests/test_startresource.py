"""Field specifications of `startresource`, and the messages for invalid ones."""

import re
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from conftest import import_or_skip
from records.scaffold import naming, project
from records.scaffold.errors import SpecificationError
from records.scaffold.model_code import ModelCode
from records.scaffold.naming import SQL_RESERVED, Names
from records.scaffold.project import SETTINGS, URLS, Change, registered, unregistered
from records.scaffold.reader import read_fields
from records.scaffold.resource import Resource


@pytest.fixture(autouse=True)
def _inflect():
    """Not on import, which takes over a second in every worker."""
    import_or_skip("inflect")


BASE = Path(settings.BASE_DIR)


def specification_error(text: str) -> tuple[str, int]:
    """Return the message and the position of its caret."""
    with pytest.raises(SpecificationError) as caught:
        read_fields([text])
    message, excerpt, caret = str(caught.value).split("\n")
    assert excerpt == f"    {text}"
    return message, caret.index("^") - 4


@pytest.mark.parametrize(("text", "words", "column"), [
    ("title", "no ':' follows", 5),
    ("title:", "There is no type ''", 6),
    (":str", "begin with a letter", 0),
    ("1st:str", "begin with a letter", 0),
    ("Title:str", "lower case", 0),
    ("due date:date", "lower case", 3),
    ("due-date:date", "lower case", 3),
    ("naïve:str", "lower case", 2),
    ("due__date:date", "two _", 4),
    ("due_:date", "two _", 3),
    ("a" * 51 + ":str", "longer than 50", 50),
    ("class:str", "reserved by Python", 0),
    ("None:str", "lower case", 0),
    ("order:int", "reserved by SQL", 0),
    ("select:int", "reserved by SQL", 0),
    ("index:int", "reserved by SQL", 0),
    ("id:int", "every record has", 0),
    ("version:int", "every record has", 0),
    ("created_at:date", "every record has", 0),
    ("date_created:date", "every record has", 0),
    ("deleted_at:date", "every record has", 0),
    ("objects:str", "every record has", 0),
    ("save:bool", "every record has", 0),
    ("title:strng", "no type 'strng'. Did you mean 'str'?", 6),
    ("title:Str", "no type 'Str'", 6),
    ("slug:slug", "no type 'slug'", 5),
    ("title:str(9)", "takes nothing in brackets", 9),
    ("title:str??", "'?' is there twice", 10),
    ("title:str!?!", "'!' is there twice", 11),
    ("title:str=", "default is missing", 10),
    ("title:str?x", "?, ! and =default, in this order", 10),
    ("amount:int=many", "'many' is no int: a whole number", 11),
    ("amount:int=1.5", "'1.5' is no int", 11),
    ("amount:int=1_000", "'1_000' is no int", 11),
    ("amount:int=9223372036854775808", "does not fit", 11),
    ("weight:float=nan", "'nan' is no float", 13),
    ("weight:float=1e999", "'1e999' is no float", 13),
    ("price:decimal=1.23456", "does not fit", 14),
    ("price:decimal=NaN", "'NaN' is no decimal", 14),
    ("is_on:bool=yes", "'yes' is no bool: true or false", 11),
    ("seen_at:datetime=soon", "'soon' is no datetime", 17),
    ("built_on:date=2026-02-30", "'2026-02-30' is no date", 14),
    ("key:uuid=1", "'1' is no uuid", 9),
    ("data:json={", "'{' is no json", 10),
    ("data:json=1e400", "does not fit", 10),
    ("mail:email=nobody", "does not fit", 11),
    ("site:url=nowhere", "does not fit", 9),
    ("title:str=" + "x" * 256, "does not fit", 10),
    ("state:choice", "written choice(a,b)", 12),
    ("state:choice()", "A choice is of", 13),
    ("state:choice(open)", "two values at least", 17),
    ("state:choice(open,open)", "'open' is there already", 18),
    ("state:choice(open,Open)", "'Open' is there already", 18),
    ("state:choice(open, \"x\")", "A choice is of", 19),
    ("state:choice(open,done", "bracket is not closed", 12),
    ("state:choice(open,done)=dne", "none of the choices open, done. Did you mean 'done'?", 24),
    ("state:choice(open,done)!", "cannot be unique", 23),
    ("is_on:bool!", "cannot be unique", 10),
    ("text:text!", "cannot be unique", 9),
    ("data:json!", "cannot be unique", 9),
    ("code:str!=x", "unique serves one row only", 9),
    ("user:fk(users.User)", "reserved by SQL", 0),
    ("boss:fk", "written fk(app.Model)", 7),
    ("boss:fk(users.Usr)", "no model 'users.Usr'. Did you mean 'users.User'?", 8),
    ("boss:fk(nowhere.Person)", "no model 'nowhere.Person'", 8),
    ("boss:fk(auth.Group)", "no model 'auth.Group'", 8),
    ("boss:fk(users.User,users.User)", "to one model", 18),
    ("boss:fk(users.User)=1", "A relation has no default", 19),
    ("author:user", "Only owner is of the type user", 0),
    ("owner:user?", "Every row has an owner", 10),
    ("owner:user!", "cannot be unique", 10),
])  # fmt: skip
def test_invalid_field_is_reported_with_its_position(text, words, column):
    message, position = specification_error(text)
    assert words in message
    assert position == column


def test_all_invalid_fields_are_reported():
    with pytest.raises(SpecificationError) as caught:
        read_fields(["title:strng", "due:date", "order:int"])
    assert str(caught.value).count("^") == 2


@pytest.mark.parametrize("word", sorted(SQL_RESERVED))
def test_reserved_words_are_refused(word):
    assert "reserved" in specification_error(f"{word}:str")[0]


def resource(name: str, *fields: str, **options) -> Resource:
    code_resource = Resource(Names(name), read_fields(list(fields or ("title:str",))), **options)
    ModelCode(code_resource)  # checks the names that its code uses
    return code_resource


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("item", "named like a class"), ("1Item", "named like a class"), ("Order-Line", "named like a class"),
        ("Ítem", "named like a class"), ("", "named like a class"), ("I" * 51, "longer than 50"),
        ("None", "reserved by Python"), ("Exception", "reserved by Python"), ("Select", "reserved by SQL"),
        ("Table", "reserved by SQL"), ("Value", "reserved by SQL"), ("Items", "singular: Item?"),
        ("User", "model users.User already"), ("Stock", "model stocks.Stock already"),
        ("Group", "model auth.Group already"), ("Permission", "already"), ("Session", "already"),
        ("Record", "already"), ("Message", "app 'messages' already"), ("Type", "package 'types' already"),
        ("Owned", "class OwnedSerializer already"), ("Model", "class ModelSerializer already"),
        ("Slugged", "code of the model itself"),
    ],
)  # fmt: skip
def test_invalid_name_is_reported(name, words):
    fields, options = ["name:str", "code:str!"], {"is_slugged": True}
    with pytest.raises(SpecificationError) as caught:
        resource(name, *fields, **options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "name", ["Portfolio", "Holding", "Order", "Transaction", "Trade", "Position", "Account", "Index", "Check", "Limit"]
)
@pytest.mark.parametrize("options", [{}, {"is_soft": True, "is_searchable": True, "is_managed": True}])
def test_common_trading_terms_are_valid_names(name, options):
    assert resource(name, "name:str", "stock:fk(stocks.Stock)", "owner:user", **options).names.model == name


@pytest.mark.parametrize(
    ("fields", "options", "words"),
    [
        (["owner:user"], {}, "A resource has fields"),
        (["title:str", "title:text"], {}, "'title' is there twice"),
        (["boss:fk(users.User)", "boss_id:int"], {}, "both are 'boss_id'"),
        (["title:str", "owner:user", "user_id:int"], {}, "both are 'user_id'"),
        (["owner:user", "owner:user"], {}, "there twice"),
        (["size:int"], {"is_searchable": True}, "'size' is a parameter of every list"),
        (["format:choice(a,b)"], {}, "'format' is a parameter of every list"),
        (["models:str"], {}, "code of the model itself"),
        (["timezone:str", "seen_at:datetime=now"], {}, "code of the model itself"),
        (["label:str"], {"is_slugged": True}, "neither as str or text"),
        (["title:int"], {"is_slugged": True}, "neither as str or text"),
        (["title:str", "slug:int"], {"is_slugged": True}, "the slug is a str"),
        (["title:str", "slug:str=x"], {"is_slugged": True}, "the slug is a str"),
        (["stock:fk(stocks.Stock)"], {}, "rows of stocks.Stock belong to users, so these must too"),
    ],
)
def test_conflicting_fields_are_refused(fields, options, words):
    with pytest.raises(SpecificationError) as caught:
        resource("Item", *fields, **options)
    assert words in str(caught.value)


def test_command_reports_the_error_and_writes_nothing():
    before = {path: path.read_bytes() for path in (BASE / SETTINGS, BASE / URLS)}
    with pytest.raises(CommandError, match=r"no type 'strng'.*\n    title:strng\n +\^\nNothing was written\."):
        call_command("startresource", "Item", "title:strng")
    assert {path: path.read_bytes() for path in before} == before
    assert not (BASE / "items").exists()


@pytest.mark.parametrize(
    ("name", "app"),
    [
        ("Item", "items"), ("Category", "categories"), ("Person", "people"), ("Address", "addresses"),
        ("OrderLine", "order_lines"), ("Child", "children"), ("Status", "statuses"), ("Equipment", "equipment"),
        ("HTTPLog", "http_logs"), ("SalesPerson", "sales_people"), ("Analysis", "analyses"), ("Bus", "buses"),
    ],
)  # fmt: skip
def test_plurals(name, app):
    assert Names(name).app == app


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("x:str=a b", "'a b'"), ("x:int=-5", "-5"), ("x:float=1e3", "1000.0"), ("x:decimal=9.50", 'Decimal("9.50")'),
        ("x:bool", "False"), ("x:bool=false", "False"), ("x:bool=true", "True"), ("x:bool?", None),
        ("x:datetime=now", "timezone.now"), ("x:date=today", "timezone.localdate"),
        ("x:date=2026-01-02", 'dt.date.fromisoformat("2026-01-02")'), ("x:uuid!=random", "uuid4"),
        ("x:datetime=2026-01-02T03:04", 'dt.datetime.fromisoformat("2026-01-02T03:04:00+00:00")'),
        ("x:json={}", "{}"), ("x:choice(a,in work)=in work", "X.IN_WORK"), ("x:str=a=b!", "'a=b!'"),
    ],
)  # fmt: skip
def test_defaults(text, default):
    [field] = read_fields([text])
    assert field.default == default


def test_modifiers_are_accepted_in_any_order():
    [first, second] = read_fields(["a:str?!", "b:str!?"])
    assert (first.is_optional, first.is_unique) == (second.is_optional, second.is_unique) == (True, True)


def test_index_names_are_short_and_unique():
    searchable = resource("LongWindedDescription", "an_attribute_with_a_long_name:int", is_searchable=True)
    names = re.findall(r'name="(\w+)"', "".join(ModelCode(searchable).indexes))
    assert max(map(len, names)) <= 30
    assert len(set(names)) == len(names)


# The files


@pytest.mark.parametrize("path", [SETTINGS, URLS])
def test_unregistering_restores_the_file(path):
    text = (BASE / path).read_text()
    once = registered(path, text, "items")
    both = registered(path, once, "boxes")
    assert unregistered(path, unregistered(path, both, "items"), "boxes") == text
    assert len(both.splitlines()) == len(text.splitlines()) + 2 * (1 if path == SETTINGS else 2)


def test_new_app_is_registered_last_and_imports_are_sorted():
    settings_text = registered(SETTINGS, (BASE / SETTINGS).read_text(), "apples")
    assert settings_text.index('"stocks",') < settings_text.index('"apples",')
    urls = registered(URLS, (BASE / URLS).read_text(), "apples")
    assert urls.index("import apples.urls") < urls.index("import records.urls")
    routes = [line for line in urls.splitlines() if line.startswith("router.registry")]
    assert (len(routes) > 3, "apples" in routes[-2], "records" in routes[-1]) == (True, True, True)


@pytest.mark.parametrize(
    ("path", "text"), [(SETTINGS, 'INSTALLED_APPS = ["users"]'), (SETTINGS, ""), (URLS, "urlpatterns = []\n")]
)
def test_unrecognized_file_is_refused(path, text):
    with pytest.raises(CommandError):
        registered(path, text, "items")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / SETTINGS).write_text("old\n")
    return tmp_path


def contents(tree: Path) -> dict[str, str]:
    return {str(path.relative_to(tree)): path.read_text() for path in sorted(tree.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_failed_write_restores_the_tree(tree, monkeypatch, failing):
    write, before, written = project._write, contents(tree), []

    def fail(path, content):
        if len(written) == failing:
            written.append(path)
            raise OSError("No space left on device")
        written.append(path)
        write(path, content)

    monkeypatch.setattr(project, "_write", fail)
    change = Change({Path("items/a.py"): "a\n", Path("items/tests/b.py"): "b\n", SETTINGS: "new\n"})
    with pytest.raises(OSError, match="No space"):
        change.apply()
    assert contents(tree) == before
    assert not (tree / "items").exists()


def test_change_is_applied_and_reversed(tree):
    before = contents(tree)
    Change({Path("items/a.py"): "a\n", Path("items/__init__.py"): "", SETTINGS: "new\n"}).apply()
    assert contents(tree) == {"items/a.py": "a\n", "items/__init__.py": "", str(SETTINGS): "new\n"}
    (tree / "items/__pycache__").mkdir()
    reversal = Change({Path("items/a.py"): None, Path("items/__init__.py"): None, SETTINGS: "old\n"})
    assert reversal.diff().splitlines()[:3] == ["--- a/config/settings.py", "+++ b/config/settings.py", "@@ -1 +1 @@"]
    assert "-a\n" in reversal.diff()
    reversal.apply()
    assert contents(tree) == before
    assert not (tree / "items").exists()


@pytest.mark.parametrize("name", ["Nothing", "item", "../users", "User", "Stock", "AuditEntry"])
def test_removeresource_refuses_other_models(db, name):
    with pytest.raises(CommandError, match=r"There is no resource|did not create"):
        call_command("removeresource", name)
    assert (BASE / "users/models/user.py").exists()


@pytest.mark.parametrize(
    ("plural", "app", "route", "words"),
    [
        ("staff", "staff", "staff", "staff"),
        ("staff-members", "staff_members", "staff-members", "staff members"),
        ("staff_members", "staff_members", "staff-members", "staff members"),
    ],
)
def test_plural_can_be_specified(plural, app, route, words):
    names = Names("Staff", plural)
    assert (names.app, names.route, names.verbose_plural) == (app, route, words)


@pytest.mark.parametrize(
    ("plural", "message"),
    [
        ("Staff", "lower case words"), ("staff!", "lower case words"), ("-staff", "lower case words"),
        ("stocks", "table 'stocks' already"), ("x" * 51, "longer than 50"), ("window", "reserved by SQL"),
    ],
)  # fmt: skip
def test_invalid_plural_is_reported(plural, message):
    with pytest.raises(SpecificationError, match=message):
        Resource(Names("Staff", plural), read_fields(["name:str"]))


def test_missing_inflect_package_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "inflect", None)
    naming._inflection.cache_clear()
    with pytest.raises(CommandError, match=r"pip install -r requirements-dev\.txt"):
        call_command("startresource", "Gadget", "name:str")
    naming._inflection.cache_clear()
