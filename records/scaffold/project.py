"""The files of a resource: created and registered in a copy of the project, and then applied all or none."""

import ast
import difflib
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError
from django.core.management.templates import TemplateCommand

from records.scaffold.admin_code import AdminCode
from records.scaffold.api_code import APICode
from records.scaffold.model_code import ModelCode
from records.scaffold.resource import Resource
from records.scaffold.tests_code import Lists, Personas, Values

TEMPLATE = Path(__file__).parent / "template"
SETTINGS, URLS = Path("config/settings.py"), Path("config/urls.py")
#: Files that the copy does not need: caches, and packages of tests.
IGNORED = shutil.ignore_patterns("__pycache__", "node_modules", ".*_cache")


def root() -> Path:
    return Path(settings.BASE_DIR)


def own_apps() -> list[str]:
    """Return the packages of the project, in the order of the settings."""
    paths = [Path(config.path) for config in apps.get_app_configs()]
    return [path.name for path in paths if path.parent == root()]


# Registration


def registered(path: Path, text: str, app: str) -> str:
    """Return the text of the file with the app registered."""
    lines = text.splitlines(keepends=True)
    # From the last line on, so that the other line numbers stay valid.
    for index, line in sorted(_places(path, text, app), reverse=True):
        lines.insert(index, line)
    return "".join(lines)


def unregistered(path: Path, text: str, app: str) -> str:
    """Return the text of the file without the lines that register the app."""
    lines = text.splitlines(keepends=True)
    for _, line in _places(path, text, app):
        if lines.count(line) != 1:
            raise CommandError(f"{path} has not just one line '{line.strip()}': take the app out by hand.")
        lines.remove(line)
    return "".join(lines)


def _places(path: Path, text: str, app: str) -> list[tuple[int, str]]:
    """Return the lines that register the app, each with the index at which to insert it."""
    tree = ast.parse(text)
    return _place_in_settings(tree, text, app) if path == SETTINGS else _places_in_urls(tree, app)


def _place_in_settings(tree: ast.Module, text: str, app: str) -> list[tuple[int, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INSTALLED_APPS":
            names: list[Any] = getattr(node.value, "elts", [])
            if names and text.splitlines()[names[-1].lineno - 1].strip() == f'"{names[-1].value}",':
                return [(names[-1].lineno, f'{" " * names[-1].col_offset}"{app}",\n')]
    raise CommandError(f"{SETTINGS} has no INSTALLED_APPS with a line for each app.")


def _places_in_urls(tree: ast.Module, app: str) -> list[tuple[int, str]]:
    """Return the import, in alphabetical order, and the routes, between those of other apps and of records."""
    imports, routes = _registered_urls(tree)
    others = [line for name, line in routes.items() if name not in {"records", app}]
    if not imports or not others:
        raise CommandError(f"{URLS} has no imports of urls, or does not add their routers' registries to its own.")
    later = [line for name, line in imports.items() if name > f"{app}.urls"]
    position = min(later) - 1 if later else max(imports.values())
    return [
        (position, f"import {app}.urls\n"),
        (max(others), f"router.registry += {app}.urls.router.registry\n"),
    ]


def _registered_urls(tree: ast.Module) -> tuple[dict[str, int], dict[str, int]]:
    """Return the lines of the imports of urls by module, and of the routes by app."""
    imports, routes = {}, {}
    for node in tree.body:
        if isinstance(node, ast.Import) and node.names[0].name.endswith(".urls"):
            imports[node.names[0].name] = node.lineno
        elif isinstance(node, ast.AugAssign) and ast.unparse(node.target) == "router.registry":
            routes[ast.unparse(node.value).partition(".")[0]] = node.lineno
    return imports, routes


# Changes


class Change:
    """New texts of files by path; None removes a file."""

    def __init__(self, files: dict[Path, str | None]) -> None:
        self.files = dict(sorted(files.items()))

    def diff(self) -> str:
        return "".join(self._diff_of(path, text) for path, text in self.files.items())

    @staticmethod
    def _diff_of(path: Path, text: str | None) -> str:
        before = (root() / path).read_text(errors="replace") if (root() / path).exists() else None
        if before is None and not text:
            return f"--- /dev/null\n+++ b/{path}\n"
        return "".join(
            difflib.unified_diff(
                (before or "").splitlines(keepends=True),
                (text or "").splitlines(keepends=True),
                "/dev/null" if before is None else f"a/{path}",
                "/dev/null" if text is None else f"b/{path}",
            )
        )

    def _in_order(self) -> list[Path]:
        """Return the paths so that files exist while the settings name them."""
        wiring = [path for path in self.files if path in {SETTINGS, URLS}]
        others = [path for path in self.files if path not in wiring]
        is_removal = any(text is None for text in self.files.values())
        return [*wiring, *others] if is_removal else [*others, *wiring]

    def apply(self) -> None:
        """Apply all of the change, or nothing if it fails or is interrupted."""
        before = {path: _read(root() / path) for path in self.files}
        try:
            for path in self._in_order():
                text = self.files[path]
                _write(root() / path, None if text is None else text.encode())
        except BaseException:
            for path, content in before.items():
                _write(root() / path, content)
            raise


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _write(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            draft.write_bytes(content)
            if path.exists():
                shutil.copymode(path, draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return
    path.unlink(missing_ok=True)
    for folder in path.parents:
        if not folder.exists():
            continue
        if folder == root() or {path.name for path in folder.iterdir()} - {"__pycache__"}:
            break
        shutil.rmtree(folder)


def _context(resource: Resource) -> dict[str, Any]:
    """Return the variables of the templates."""
    api = APICode(resource)
    return {
        "resource": resource,
        "names": resource.names,
        "model": ModelCode(resource),
        "api": api,
        "admin": AdminCode(resource),
        "personas": Personas(resource),
        "values": Values(resource),
        "lists": Lists(resource, api),
    }


def addition(resource: Resource) -> Change:
    """Return the change that adds the resource to the project."""
    with _copy() as copy:
        name = resource.names.app
        app = copy / name
        app.mkdir()
        options = {"template": str(TEMPLATE), "extensions": ["py"], "files": [], "verbosity": 0}
        TemplateCommand().handle("app", name, str(app), **options, **_context(resource))
        wires = {path: registered(path, (root() / path).read_text(), name) for path in (SETTINGS, URLS)}
        for path, text in wires.items():
            (copy / path).write_text(text)
        _run(copy, "manage.py", "makemigrations", name, "--name", name, "--no-header", "--verbosity", "0")
        _add_trigrams(app / "migrations" / f"0001_{name}.py")
        if has_ruff():
            _run(copy, "-m", "ruff", "check", "--fix-only", "--quiet", name)
            _run(copy, "-m", "ruff", "format", "--quiet", name)
        files = {path.relative_to(copy): path.read_text() for path in app.rglob("*.py")}
    return Change({**files, **wires})


def removal(app: str) -> Change:
    files = [path for path in (root() / app).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wires = {path: unregistered(path, (root() / path).read_text(), app) for path in (SETTINGS, URLS)}
    return Change({**{path.relative_to(root()): None for path in files}, **wires})


def importers(app: str) -> list[Path]:
    """Return the files of other apps that import this one, or whose migrations depend on it."""
    paths_found = []
    for name in [*own_apps(), "conftest.py"]:
        paths = [root() / name] if name.endswith(".py") else sorted((root() / name).rglob("*.py"))
        for path in paths if name != app else ():
            relative = path.relative_to(root())
            text = path.read_text()
            if relative in {SETTINGS, URLS}:
                text = unregistered(relative, text, app)
            if re.search(rf"""^\s*(from|import) {app}\b|^\s*\(['"]{app}['"], ['"]\d""", text, re.MULTILINE):
                paths_found.append(relative)
    return paths_found


def has_ruff() -> bool:
    return importlib.util.find_spec("ruff") is not None


@contextmanager
def _copy() -> Iterator[Path]:
    """Copy the packages of the project to a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="startresource-") as name:
        copy = Path(name)
        for part in own_apps():
            shutil.copytree(root() / part, copy / part, ignore=IGNORED)
        for part in ("manage.py", "pyproject.toml"):
            shutil.copy2(root() / part, copy / part)
        yield copy


def _run(copy: Path, *arguments: str) -> None:
    # On SQLite in the copy, so that the state of the database does not matter.
    others = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "PYTHONPATH"}}
    environment = others | {"SECRET_KEY": secrets.token_urlsafe(64), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True)  # noqa: S603
    if process.returncode:
        raise CommandError(f"{' '.join(arguments[:3])} failed, and nothing was changed:\n{process.stderr.strip()}")


def _add_trigrams(migration: Path) -> None:
    """Create the extension of PostgreSQL that a search index needs, in case this app is migrated first."""
    text = migration.read_text()
    if "records.db.constraints.SearchIndex(" in text:
        before, start, rest = text.partition("    operations = [\n")
        migration.write_text(f"{before}{start}        records.db.constraints.Trigrams(),\n{rest}")
