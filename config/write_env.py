"""Write `.env` from `.env.example` with generated secrets (`make env`), for `make serve` and docker compose.

Uses the standard library only, because docker compose needs no other Python packages.
"""

import os
import re
import secrets
import sys
from pathlib import Path


def main() -> None:
    base = Path(__file__).resolve().parent.parent
    example, path = (base / ".env.example").read_bytes(), base / ".env"
    port = os.environ.get("POSTGRES_PORT") or "5432"
    if not re.fullmatch("[1-9][0-9]{0,4}", port) or int(port) > 65535:
        sys.exit("Error: POSTGRES_PORT must be a port from 1 to 65535.")
    # An unchanged copy of the example may be overwritten.
    if os.path.lexists(path) and not (path.is_file() and path.read_bytes() == example):
        sys.exit(
            "Error: .env exists and stays as it is. Move it away, or set SECRET_KEY, POSTGRES_PASSWORD and "
            "DATABASE_URL in it yourself."
        )
    text = _filled(
        example.decode(),
        {
            "SECRET_KEY": secrets.token_urlsafe(64),
            "POSTGRES_PASSWORD": secrets.token_urlsafe(32),
            "POSTGRES_PORT": port,
            "DATABASE_URL": f"postgres://stocks@127.0.0.1:{port}/stocks",
        },
    )
    draft = path.with_name(f".env.{secrets.token_hex(4)}")
    with open(draft, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
    draft.replace(path)
    print(
        "Wrote .env with a SECRET_KEY and a password for PostgreSQL.\n"
        "Next: docker compose up; or, with the service outside of Docker: docker compose up -d db && make serve.\n"
        "Without Docker take DATABASE_URL out of it, and the service runs on SQLite."
    )


def _filled(example: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        example, count = re.subn(rf"^#?{name}=.*$", f"{name}={value}", example, flags=re.MULTILINE)
        if count != 1:
            sys.exit(f"Error: .env.example has not just one line for {name}.")
    return example


if __name__ == "__main__":
    main()
