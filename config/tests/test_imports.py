"""Test modules do not import each other; they share fixtures and helper modules."""

import ast
from pathlib import Path

import pytest
from django.conf import settings

APPS = ("config", "records", "stocks", "users")
MODULES = sorted(path for app in APPS for path in Path(settings.BASE_DIR, app).glob("tests/**/test_*.py"))
#: Packages of requirements-dev.txt, which tests import with `import_or_skip`.
OPTIONAL = {
    "h2",
    "hypothesis",
    "inflect",
    "openapi_schema_validator",
    "openapi_spec_validator",
    "playwright",
    "schemathesis",
    "zeal",
}


def imported_modules(path: Path) -> set[str]:
    """Return the absolute names of all modules, and of all names in them, that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module or ''}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.parent.name}/{path.stem}")
def test_test_module_imports_no_other_test_module(path):
    assert not [name for name in imported_modules(path) if any(part.startswith("test_") for part in name.split("."))]


@pytest.mark.parametrize(
    "path",
    [Path(settings.BASE_DIR, "conftest.py"), *MODULES],
    ids=lambda path: f"{path.parent.parent.name}/{path.stem}",
)
def test_optional_package_is_not_required_for_collection(path):
    assert not {name.partition(".")[0] for name in imported_modules(path)} & OPTIONAL
