import os
import re
import runpy
import shutil
import stat
import subprocess
from unittest.mock import patch

import pytest
import yaml
from django.conf import settings

from config.env_file import load_env_file

MISSING = "run 'make env' first, which writes a .env with generated secrets"


@pytest.fixture
def checkout(tmp_path):
    """A checkout with what `make env` and docker compose read."""
    (tmp_path / "config").mkdir()
    for name in ("Makefile", ".env.example", "docker-compose.yml", "config/write_env.py"):
        shutil.copy2(settings.BASE_DIR / name, tmp_path / name)
    return tmp_path


def make_env(checkout, *arguments):
    environment = {"PATH": os.environ["PATH"]}
    command = ["make", "-s", "env", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)


def variables(checkout):
    values = {}
    load_env_file(checkout / ".env", values)
    return values


class MissingVariableError(Exception):
    pass


def services(checkout):
    """Return the services with their variables replaced as docker compose does, and `.env` read where it is named."""
    values = variables(checkout)

    def replaced(match):
        name, kind, rest = match["name"], match["kind"], match["rest"]
        if values.get(name):
            return values[name]
        if kind == ":?":
            raise MissingVariableError(name, rest)
        assert kind == ":-"
        return rest

    def interpolated(value):
        if isinstance(value, dict):
            return {key: interpolated(item) for key, item in value.items()}
        if isinstance(value, list):
            return [interpolated(item) for item in value]
        pattern = r"\$\{(?P<name>\w+)(?P<kind>:[-?])(?P<rest>[^}]*)\}"
        return re.sub(pattern, replaced, value) if isinstance(value, str) else value

    compose_services = interpolated(yaml.safe_load((checkout / "docker-compose.yml").read_text())["services"])
    for service in compose_services.values():
        if service.get("env_file") == [{"path": ".env", "required": False}]:
            service["environment"] = values | service["environment"]
    return compose_services


def load(environment):
    with (
        patch.dict(os.environ, {name: str(value) for name, value in environment.items()}, clear=True),
        patch("config.env_file.load_env_file", lambda path: {}),
    ):
        return runpy.run_path(str(settings.BASE_DIR / "config" / "settings.py"))


def test_env_file_serves_docker_and_the_host(checkout):
    done = make_env(checkout)
    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_IMODE((checkout / ".env").stat().st_mode) == 0o600
    compose_services = services(checkout)
    inside, outside = load(compose_services["web"]["environment"]), load(variables(checkout))
    password = compose_services["db"]["environment"]["POSTGRES_PASSWORD"]
    [inside_database], [outside_database] = inside["DATABASES"].values(), outside["DATABASES"].values()
    assert inside_database["PASSWORD"] == outside_database["PASSWORD"] == password
    assert inside["SECRET_KEY"] == outside["SECRET_KEY"]
    assert (inside_database["HOST"], outside_database["HOST"]) == ("db", "127.0.0.1")
    assert compose_services["db"]["ports"] == [f"127.0.0.1:{outside_database['PORT']}:5432"]
    assert inside["MIGRATION_DATABASE"]["PASSWORD"] == password
    assert (
        inside["MIGRATION_DATABASE"]["USER"]
        == outside_database["USER"]
        == compose_services["db"]["environment"]["POSTGRES_USER"]
    )
    assert outside_database["NAME"] == compose_services["db"]["environment"]["POSTGRES_DB"]
    secrets = {inside["SECRET_KEY"], password}
    assert not any(secret in done.stdout for secret in secrets)
    (checkout / ".env").unlink()
    make_env(checkout)
    assert secrets & set(variables(checkout).values()) == set()


def test_port_of_the_database_is_chosen(checkout):
    assert make_env(checkout, "POSTGRES_PORT=5433").returncode == 0
    assert services(checkout)["db"]["ports"] == ["127.0.0.1:5433:5432"]
    assert variables(checkout)["DATABASE_URL"] == "postgres://stocks@127.0.0.1:5433/stocks"


@pytest.mark.parametrize("port", ["0", "65536", "a", "5432\nDEBUG=true"])
def test_port_that_is_none_is_refused(checkout, port):
    done = make_env(checkout, f"POSTGRES_PORT={port}")
    assert done.returncode != 0
    assert "POSTGRES_PORT" in done.stderr
    assert not (checkout / ".env").exists()


@pytest.mark.parametrize("content", ["", "SECRET_KEY=mine\n"])
def test_env_file_is_never_overwritten(checkout, content):
    (checkout / ".env").write_text(content)
    done = make_env(checkout)
    assert done.returncode != 0
    assert "Error: .env exists and stays as it is." in done.stderr
    assert (checkout / ".env").read_text() == content
    assert sorted(path.name for path in checkout.glob(".env*")) == [".env", ".env.example"]


def test_link_is_never_overwritten(checkout):
    (checkout / ".env").symlink_to(checkout / "elsewhere")
    assert make_env(checkout).returncode != 0
    assert not (checkout / "elsewhere").exists()


def test_copy_of_the_example_says_what_to_run_and_that_works(checkout):
    shutil.copy2(checkout / ".env.example", checkout / ".env")
    with pytest.raises(MissingVariableError) as missing:
        services(checkout)
    assert missing.value.args == ("POSTGRES_PASSWORD", MISSING)
    assert make_env(checkout).returncode == 0
    assert load(services(checkout)["web"]["environment"])["DATABASES"]["default"]["HOST"] == "db"


def test_without_env_file_docker_says_what_to_run(checkout):
    with pytest.raises(MissingVariableError) as missing:
        services(checkout)
    assert missing.value.args == ("POSTGRES_PASSWORD", MISSING)
    (checkout / ".env").write_text("POSTGRES_PASSWORD=x\n")
    with pytest.raises(MissingVariableError) as missing:
        services(checkout)
    assert missing.value.args == ("SECRET_KEY", MISSING)


def test_every_setting_of_the_env_file_reaches_the_service(checkout):
    make_env(checkout)
    with (checkout / ".env").open("a") as file:
        file.write(
            "PORT=9000\nAPP_NAME=Holdings\nTHROTTLE_USER=5/min\nCORS_ALLOWED_ORIGINS=https://app.example.com\n"
            "POSTGRES_PASSWORD_FILE=/run/secrets/of-the-host\nCACHE_URL=locmemcache://\n"
            "OAUTH_ID_CLIENT_ID=a\nOAUTH_ID_CLIENT_SECRET='$b'\nOAUTH_ID_DISCOVERY_URL=https://id.example.com/\n"
        )
    web = services(checkout)["web"]
    loaded = load(web["environment"])
    assert web["ports"] == ["127.0.0.1:9000:9000"]
    assert (loaded["PORT"], loaded["APP_URL"], loaded["APP_NAME"]) == (9000, "http://127.0.0.1:9000", "Holdings")
    assert loaded["REST_FRAMEWORK"]["DEFAULT_THROTTLE_RATES"]["user"] == "5/min"
    assert loaded["CORS_ALLOWED_ORIGINS"] == ["https://app.example.com"]
    assert loaded["OAUTH_PROVIDERS"]["id"]["client_secret"] == "$b"
    assert loaded["CACHES"]["throttles"]["LOCATION"] == "redis://cache:6379/0"


def test_nothing_is_published_to_other_machines(checkout):
    make_env(checkout)
    ports = [port for service in services(checkout).values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)
