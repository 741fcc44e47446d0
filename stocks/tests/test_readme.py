"""The tour of the README does what the README says."""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
from django.conf import settings
from django.core import mail

from conftest import PASSWORD, mailed_token
from users.models import User

CHANGING = {"id", "user_id", "object_id", "created_at", "updated_at", "request_id"}


def steps() -> list[tuple[str, str]]:
    text = Path(settings.BASE_DIR, "README.md").read_text()
    return re.findall(r"```sh\n(.*?)```\n(?:```json\n(.*?)```)?", text, re.DOTALL)


def constant(answer):
    if isinstance(answer, dict):
        return {key: constant(value) for key, value in answer.items() if key not in CHANGING}
    if isinstance(answer, list):
        return [constant(item) for item in answer]
    return re.sub(r"/\d+/", "/…/", answer) if isinstance(answer, str) else answer


@pytest.mark.skipif(
    subprocess.run(["curl", "--json", "", "--version"], capture_output=True).returncode != 0, reason="old curl"
)
def test_tour_of_the_readme(live_server):
    User.objects.create_superuser("admin", None, PASSWORD, is_verified=True)
    marker = "-- next --"
    script = "\n".join(f"{command}\necho '{marker}'" for command, _ in steps())
    script = script.replace("localhost:8000", live_server.url.removeprefix("http://"))
    shell = subprocess.Popen(["bash", "-ec", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(600):
        if any(message.to == ["grace@example.com"] for message in mail.outbox):
            break
        time.sleep(0.1)
    printed = shell.communicate(f"{mailed_token()}\n{PASSWORD}\n", timeout=60)[0].split(marker)
    assert shell.returncode == 0
    expected = [answer for _, answer in steps()]
    assert len(expected) == 18
    for answer, wanted in zip(printed, expected, strict=False):
        if wanted:
            assert constant(json.loads(answer)) == constant(json.loads(wanted))
