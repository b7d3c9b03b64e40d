import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli import app
from service.settings import Settings
from service.store.database import database_url

ROOT = Path(__file__).parents[2]
OWN = ("migrate", "api", "worker")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = COMPOSE["services"][name]
    return found


def resolve(text: str) -> str:
    """``text`` with its variables replaced as compose does."""
    return re.sub(r"\$\{\w+(?::?-([^}]*)|:\?[^}]*)\}", lambda match: match[1] or "secret", text)


def instructions() -> list[tuple[str, str]]:
    joined = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


@pytest.mark.parametrize("name", OWN)
def test_each_of_our_services_runs_a_command_that_exists(name: str) -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert dict(instructions())["ENTRYPOINT"] == '["clr"]'
    assert service(name)["command"][0] == name
    assert name in commands


@pytest.mark.parametrize("name", OWN)
def test_each_variable_is_a_setting_with_a_legal_value(name: str) -> None:
    given = {key: resolve(value) for key, value in service(name)["environment"].items()}
    known = {f"CLR_{field}".upper(): field for field in Settings.model_fields}
    assert given.keys() <= known.keys()
    settings = Settings(**{known[key]: value for key, value in given.items()})
    assert database_url(settings.database_url).host == "postgres"


def test_the_database_is_asked_for_by_the_user_and_password_it_was_made_with() -> None:
    made = service("postgres")["environment"]
    url = database_url(resolve(service("api")["environment"]["CLR_DATABASE_URL"]))
    assert (url.username, url.database) == (made["POSTGRES_USER"], made["POSTGRES_DB"])
    assert url.password == resolve(made["POSTGRES_PASSWORD"])


def test_a_password_must_be_given_and_none_is_in_the_file() -> None:
    for text in (
        service("postgres")["environment"]["POSTGRES_PASSWORD"],
        service("api")["environment"]["CLR_DATABASE_URL"],
    ):
        assert "${CLR_DB_PASSWORD:?" in text


def test_the_first_token_is_a_secret_that_migrating_stores() -> None:
    (secret,) = service("migrate")["secrets"]
    assert service("migrate")["environment"]["CLR_BOOTSTRAP_TOKEN_FILE"] == f"/run/secrets/{secret}"
    assert list(COMPOSE["secrets"]) == [secret]
    assert resolve(COMPOSE["secrets"][secret]["file"]) == "./clr-token"
    assert "clr-token" in (ROOT / ".gitignore").read_text().splitlines()


def test_nothing_starts_before_the_database_is_migrated() -> None:
    assert service("migrate")["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert service("postgres")["healthcheck"]["test"][1] == "pg_isready"
    assert service("migrate")["restart"] == "no"
    for name in ("api", "worker"):
        assert service(name)["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_the_api_is_published_on_loopback_alone_and_the_database_not_at_all() -> None:
    assert [resolve(port) for port in service("api")["ports"]] == ["127.0.0.1:8000:8000"]
    assert all("ports" not in service(name) for name in ("postgres", "migrate", "worker"))


def test_what_must_outlive_a_container_is_on_a_volume() -> None:
    mounts = [mount for one in COMPOSE["services"].values() for mount in one.get("volumes", [])]
    # the image of PostgreSQL 18 keeps its data in a folder of this one, named for the version
    assert "postgres:/var/lib/postgresql" in mounts
    assert {mount.partition(":")[0] for mount in mounts} == COMPOSE["volumes"].keys()


def test_the_worker_reserves_the_gpus() -> None:
    (device,) = service("worker")["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_the_image_runs_as_a_user_without_rights_on_pinned_packages() -> None:
    steps = instructions()
    assert ("USER", "clr") in steps[max(i for i, (name, _) in enumerate(steps) if name == "FROM") :]
    installs = [text for name, text in steps if name == "RUN" and "pip install" in text]
    assert installs
    assert all("-c constraints.txt" in text for text in installs)


def test_the_image_is_given_every_file_that_it_copies() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for name, text in instructions()
        if name == "COPY" and "--from" not in text
        for source in text.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_every_constraint_is_one_exact_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert lines == sorted(lines, key=str.lower)
