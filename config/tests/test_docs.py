"""The commands in README and docs return the documented responses on a new database."""

import io
import json
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from django.conf import settings
from django.core import mail
from django.core.management import call_command

from conftest import PASSWORD, import_or_skip, mailed_token
from records.scaffold.project import Change
from users.models import User

#: Pages with transcripts, and their number of commands.
TRANSCRIPTS = {"README.md": 8, "docs/api.md": 15, "docs/safe-writes.md": 4}
PAGES = sorted(
    str(path.relative_to(settings.BASE_DIR))
    for folder in (".", "docs", "docs/decisions")
    for path in Path(settings.BASE_DIR, folder).glob("*.md")
)
#: Fields whose values differ between databases.
VARIABLE_FIELDS = {"id", "user_id", "object_id", "created_at", "updated_at", "request_id"}
MARKER = "-- next --"


def page_text(page: str) -> str:
    return Path(settings.BASE_DIR, page).read_text()


def steps(page: str) -> list[tuple[str, str]]:
    """Return the commands of a page, each with its answer or an empty string."""
    return re.findall(r"```sh\n(.*?)```\n(?:```json\n(.*?)```)?", page_text(page), re.DOTALL)


def without_variable_fields(value):
    if isinstance(value, dict):
        return {key: without_variable_fields(item) for key, item in value.items() if key not in VARIABLE_FIELDS}
    if isinstance(value, list):
        return [without_variable_fields(item) for item in value]
    return re.sub(r"/\d+/|(?<=^Stock )\d+", "…", value) if isinstance(value, str) else value


def wait_for_mail(address: str) -> None:
    for _ in range(600):
        if any(message.to == [address] for message in mail.outbox):
            return
        time.sleep(0.1)


@pytest.mark.skipif(
    subprocess.run(["curl", "--json", "", "--version"], capture_output=True).returncode != 0, reason="old curl"
)
@pytest.mark.parametrize("page", TRANSCRIPTS)
def test_commands_return_the_documented_responses(page, live_server):
    User.objects.create_superuser("admin", None, PASSWORD, is_verified=True)
    expected = [answer for _, answer in steps(page)]
    assert len(expected) == TRANSCRIPTS[page]
    script = "\n".join(f"{command}\necho '{MARKER}'" for command, _ in steps(page))
    script = script.replace("localhost:8000", live_server.url.removeprefix("http://"))
    shell = subprocess.Popen(["bash", "-ec", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    inputs = []
    for name in re.findall(r"read -r (\w+)", script):
        if name == "TOKEN_FROM_MAIL":
            wait_for_mail("grace@example.com")
            inputs.append(mailed_token())
        else:
            assert name == "ADMIN_PASSWORD"
            inputs.append(PASSWORD)
    output = shell.communicate("".join(f"{line}\n" for line in inputs), timeout=60)[0]
    assert shell.returncode == 0, output
    for answer, documented in zip(output.split(MARKER), expected, strict=False):
        if documented:
            assert without_variable_fields(json.loads(answer)) == without_variable_fields(json.loads(documented))


def test_every_page_with_a_transcript_is_tested():
    assert {page for page in PAGES if "```sh" in page_text(page)} == set(TRANSCRIPTS)


def test_startresource_prints_the_documented_output(monkeypatch):
    import_or_skip("inflect")
    monkeypatch.setattr(Change, "apply", lambda self: None)
    monkeypatch.setattr("records.management.commands.startresource.has_ruff", lambda: True)
    block = re.search(
        r"^    \$ \.venv/bin/python manage\.py (startresource.*?)^    \$ ",
        page_text("docs/resources.md"),
        re.DOTALL | re.MULTILINE,
    )
    lines = [line.removeprefix("    ") for line in block[1].splitlines()]
    length = next(number for number, line in enumerate(lines, start=1) if not line.endswith("\\"))
    command = shlex.split("\n".join(lines[:length]).replace("\\\n", ""))
    stdout = io.StringIO()
    call_command(*command, stdout=stdout)
    assert stdout.getvalue().splitlines() == lines[length:]


def test_readme_is_short():
    assert len(page_text("README.md").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_links_point_to_existing_files(page):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page_text(page))
    folder = Path(settings.BASE_DIR, page).parent
    assert [target for target in targets if not (folder / target).exists()] == []
