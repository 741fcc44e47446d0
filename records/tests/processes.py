"""Python commands that run in a process and an environment of their own."""

import atexit
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings


@cache
def _fork_server() -> subprocess.Popen:
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("fork_server.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    atexit.register(server.communicate)
    return server


def run_python(*command: str, cwd: Path = settings.BASE_DIR, **environment: str) -> subprocess.CompletedProcess:
    """Run `python *command` with only this environment, in a fork of a process that has imported Django already."""
    server = _fork_server()
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | environment
    with TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        print(json.dumps([command, cwd, environment, *outputs], default=str), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(command, code, *(output.read_text() for output in outputs))
