import re
from pathlib import Path
from typing import Any

import pytest

from service.cli import app
from service.settings import Settings
from service.store.database import database_url
from tests.e2e.topology import COMPOSE, resolve

ROOT = Path(__file__).parents[2]
OWN = ("migrate", "api", "worker")
NODES = ("ray", "worker", "gpu")


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = COMPOSE["services"][name]
    return found


def instructions() -> list[tuple[str, str]]:
    joined = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


@pytest.mark.parametrize("name", OWN)
def test_each_of_our_services_runs_a_command_that_exists(name: str) -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert dict(instructions())["ENTRYPOINT"] == '["clr"]'
    command = service(name)["command"]
    assert (
        " ".join(["clr", *command] if "entrypoint" not in service(name) else command).split("clr ")[-1].split()[0]
        == name
    )
    assert name in commands


@pytest.mark.parametrize("name", OWN)
def test_each_variable_is_a_setting_with_a_legal_value(name: str, tmp_path: Path) -> None:
    given = {key: resolve(value) for key, value in service(name)["environment"].items() if key.startswith("CLR_")}
    known = {f"CLR_{field}".upper(): field for field in Settings.model_fields}
    assert given.keys() <= known.keys()
    (tmp_path / "db-password").write_text("p@ss/word\n")
    given["CLR_DATABASE_PASSWORD_FILE"] = given["CLR_DATABASE_PASSWORD_FILE"].replace("/run/secrets", str(tmp_path))
    url = database_url(Settings(**{known[key]: value for key, value in given.items()}).database_url)
    made = service("postgres")["environment"]
    assert (url.host, url.username, url.database) == ("postgres", made["POSTGRES_USER"], made["POSTGRES_DB"])
    assert url.password == "p@ss/word"


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_secrets_are_files_that_a_service_is_given_when_it_names_them(name: str) -> None:
    named = re.findall(r"/run/secrets/([\w-]+)", str(service(name).get("environment")))
    assert set(named) == set(service(name).get("secrets", []))
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for secret in named:
        assert resolve(COMPOSE["secrets"][secret]["file"]) == f"./{secret}"
        assert secret in ignored


@pytest.mark.parametrize("name", [*OWN, "ray", "gpu", "proxy", "postgres"])
def test_a_container_can_change_nothing_but_its_volumes(name: str) -> None:
    assert (service(name)["read_only"], service(name)["cap_drop"]) == (True, ["ALL"])


def test_the_database_has_no_more_rights_than_to_become_its_own_user() -> None:
    database = service("postgres")
    assert database["security_opt"] == ["no-new-privileges:true"]
    assert set(database["cap_add"]) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    assert {"/tmp", "/var/run/postgresql"} <= set(database["tmpfs"])


@pytest.mark.parametrize("name", NODES)
def test_every_node_asks_for_the_clusters_token(name: str) -> None:
    environment = service(name)["environment"]
    assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN_PATH"]) == ("token", "/run/secrets/ray-token")


def test_two_apis_are_behind_the_one_port_that_is_published() -> None:
    assert [name for name, one in COMPOSE["services"].items() if "ports" in one] == ["proxy"]
    assert [resolve(port) for port in service("proxy")["ports"]] == ["127.0.0.1:8000:8000"]
    assert service("api")["deploy"]["replicas"] == 2
    assert "dynamic a api 8000" in COMPOSE["configs"]["proxy"]["content"]


def test_nothing_starts_before_the_database_is_migrated() -> None:
    assert service("migrate")["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert service("postgres")["healthcheck"]["test"][1] == "pg_isready"
    for name in ("api", "worker"):
        assert service(name)["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_what_must_outlive_a_container_is_on_a_volume() -> None:
    mounts = [mount for one in COMPOSE["services"].values() for mount in one.get("volumes", [])]
    # the image of PostgreSQL 18 keeps its data in a folder of this one, named for the version
    assert "postgres:/var/lib/postgresql" in mounts
    assert {mount.partition(":")[0] for mount in mounts if ":" in mount} == COMPOSE["volumes"].keys()


def test_the_nodes_that_scale_reserve_gpus() -> None:
    (device,) = service("gpu")["deploy"]["resources"]["reservations"]["devices"]
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
    assert all((ROOT / source).exists() for source in copied - {"requirements*.txt"}), (
        "a lock is made where it is wanted"
    )


def test_every_constraint_is_one_exact_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert lines == sorted(lines, key=str.lower)
