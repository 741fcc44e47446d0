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
    """Create a folder with the files that `make env` and docker compose read."""
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
    """Return the services as docker compose reads them: variables interpolated and `env_file` applied."""
    values = variables(checkout)

    def substitute(match):
        name, kind, rest = match["name"], match["kind"], match["rest"]
        if values.get(name):
            return values[name]
        if kind == ":?":
            raise MissingVariableError(name, rest)
        assert kind == ":-"
        return rest

    def interpolate(value):
        if isinstance(value, dict):
            return {key: interpolate(item) for key, item in value.items()}
        if isinstance(value, list):
            return [interpolate(item) for item in value]
        pattern = r"\$\{(?P<name>\w+)(?P<kind>:[-?])(?P<rest>[^}]*)\}"
        return re.sub(pattern, substitute, value) if isinstance(value, str) else value

    compose_services = interpolate(yaml.safe_load((checkout / "docker-compose.yml").read_text())["services"])
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


def test_env_file_configures_docker_and_the_host(checkout):
    process = make_env(checkout)
    assert (process.returncode, process.stderr) == (0, "")
    assert stat.S_IMODE((checkout / ".env").stat().st_mode) == 0o600
    compose_services = services(checkout)
    container_settings, host_settings = load(compose_services["web"]["environment"]), load(variables(checkout))
    password = compose_services["db"]["environment"]["POSTGRES_PASSWORD"]
    [container_database], [host_database] = (
        container_settings["DATABASES"].values(),
        host_settings["DATABASES"].values(),
    )
    assert container_database["PASSWORD"] == host_database["PASSWORD"] == password
    assert container_settings["SECRET_KEY"] == host_settings["SECRET_KEY"]
    assert (container_database["HOST"], host_database["HOST"]) == ("db", "127.0.0.1")
    assert compose_services["db"]["ports"] == [f"127.0.0.1:{host_database['PORT']}:5432"]
    assert container_settings["MIGRATION_DATABASE"]["PASSWORD"] == password
    assert (
        container_settings["MIGRATION_DATABASE"]["USER"]
        == host_database["USER"]
        == compose_services["db"]["environment"]["POSTGRES_USER"]
    )
    assert host_database["NAME"] == compose_services["db"]["environment"]["POSTGRES_DB"]
    secrets = {container_settings["SECRET_KEY"], password}
    assert not any(secret in process.stdout for secret in secrets)
    (checkout / ".env").unlink()
    make_env(checkout)
    assert secrets & set(variables(checkout).values()) == set()


def test_database_port_is_configurable(checkout):
    assert make_env(checkout, "POSTGRES_PORT=5433").returncode == 0
    assert services(checkout)["db"]["ports"] == ["127.0.0.1:5433:5432"]
    assert variables(checkout)["DATABASE_URL"] == "postgres://stocks@127.0.0.1:5433/stocks"


@pytest.mark.parametrize("port", ["0", "65536", "a", "5432\nDEBUG=true"])
def test_invalid_port_is_refused(checkout, port):
    process = make_env(checkout, f"POSTGRES_PORT={port}")
    assert process.returncode != 0
    assert "POSTGRES_PORT" in process.stderr
    assert not (checkout / ".env").exists()


@pytest.mark.parametrize("content", ["", "SECRET_KEY=mine\n"])
def test_env_file_is_never_overwritten(checkout, content):
    (checkout / ".env").write_text(content)
    process = make_env(checkout)
    assert process.returncode != 0
    assert "Error: .env exists and stays as it is." in process.stderr
    assert (checkout / ".env").read_text() == content
    assert sorted(path.name for path in checkout.glob(".env*")) == [".env", ".env.example"]


def test_link_is_never_overwritten(checkout):
    (checkout / ".env").symlink_to(checkout / "elsewhere")
    assert make_env(checkout).returncode != 0
    assert not (checkout / "elsewhere").exists()


def test_copied_example_names_the_command_that_completes_it(checkout):
    shutil.copy2(checkout / ".env.example", checkout / ".env")
    with pytest.raises(MissingVariableError) as error:
        services(checkout)
    assert error.value.args == ("POSTGRES_PASSWORD", MISSING)
    assert make_env(checkout).returncode == 0
    assert load(services(checkout)["web"]["environment"])["DATABASES"]["default"]["HOST"] == "db"


def test_docker_without_env_file_names_the_command_to_run(checkout):
    with pytest.raises(MissingVariableError) as error:
        services(checkout)
    assert error.value.args == ("POSTGRES_PASSWORD", MISSING)
    (checkout / ".env").write_text("POSTGRES_PASSWORD=x\n")
    with pytest.raises(MissingVariableError) as error:
        services(checkout)
    assert error.value.args == ("SECRET_KEY", MISSING)


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
    assert loaded["CACHES"]["default"]["LOCATION"] == "redis://cache:6379/0"


def test_nothing_is_published_to_other_machines(checkout):
    make_env(checkout)
    ports = [port for service in services(checkout).values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)
