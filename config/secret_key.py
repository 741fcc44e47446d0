"""The secret key, and a key of this installation where none is set."""

import os
import secrets
from pathlib import Path


def is_weak(key: str) -> bool:
    return len(key) < 50 or len(set(key)) < 5 or key.startswith("django-insecure-")


def get_or_create(path: Path) -> str:
    """Return the key in this file, which the first start creates and only its user can read."""
    path.parent.mkdir(exist_ok=True)
    try:
        # O_EXCL: of concurrent processes exactly one creates the key, and all read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(64))
    return path.read_text().strip()
