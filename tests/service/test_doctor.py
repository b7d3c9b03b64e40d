import json
import socket
from collections import namedtuple
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service import doctor
from service.doctor import CHECKS, Finding
from service.settings import Settings
from service.store import tokens, workers
from service.store.database import Database
from tests.service.conftest import Run


def finding(name: str, settings: Settings, **given: Any) -> Finding:
    return doctor._finding(name, settings.model_copy(update=given))


def test_a_migrated_database_with_a_worker_and_a_token_is_well(settings: Settings, database: Database) -> None:
    with database.begin() as session:
        tokens.create(session, "ann", "admin")
        workers.publish(session, owner="w", host="gpu1", slots={"cpus": 1}, tasks=[])
    found = {name: finding(name, settings) for name in ("database", "migrations", "tokens", "workers")}
    assert {one.state for one in found.values()} == {"ok"}
    assert found["database"].found.startswith(settings.database_url.partition(":")[0])
    assert (found["tokens"].found, found["workers"].found) == ("1 in force", "1 alive: gpu1")


def test_a_database_that_is_not_migrated_fails_and_says_how_to(empty_database_url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=empty_database_url)
    with closing(Database(empty_database_url)) as database:
        database.ping()  # makes SQLite's file
    found = finding("migrations", settings)
    assert (found.state, found.mend) == ("fail", "run `clr migrate`")


def test_a_database_that_does_not_answer_fails_without_its_password(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url="postgresql://u:secret@127.0.0.1:1/x")
    for name in ("database", "migrations", "tokens", "workers"):
        found = finding(name, settings)
        assert (found.state, "refused" in found.found, "CLR_DATABASE_URL" in str(found.mend)) == ("fail", True, True)
        assert "secret" not in str(found)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_address_that_others_reach_needs_a_token_in_force(settings: Settings, database: Database) -> None:
    assert finding("tokens", settings).state == "ok"
    assert finding("tokens", settings, host="0.0.0.0").state == "fail"
    with database.begin() as session:
        tokens.create(session, "ann", "admin")
        tokens.revoke(session, "ann")
    found = finding("tokens", settings)
    assert (found.state, "clr token create" in str(found.mend)) == ("warn", True)


def test_a_full_disk_fails_and_a_fuller_one_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    states = []
    for free in (2**29, 2**31, 2**34):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, free=free: usage(free))
        states.append(finding("disk", Settings(home=tmp_path / "deep" / "down")).state)
    assert states == ["fail", "warn", "ok"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_port_is_well_when_free_or_ours(settings: Settings, url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    found = finding("port", settings, host=host, port=int(port))
    assert (found.state, "a service answers" in found.found) == ("ok", True)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        other.settimeout(0)  # it takes connections, and says nothing
        assert finding("port", settings, port=port).state == "fail"
    assert finding("port", settings, port=port).state == "ok"


def test_ray_and_torch_that_do_not_start_fail_with_their_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no libcuda here')")
    (tmp_path / "ray.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    assert finding("gpu", Settings()).found == "torch: ImportError: no libcuda here"
    monkeypatch.setattr(doctor, "PROBE_S", 1.5)
    assert finding("ray", Settings()).found == "embedded: no answer within 1.5 s"


@pytest.mark.timeout(180)
def test_the_command_tells_all_checks_and_fails_when_one_does(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLR_HOME", str(tmp_path / "new"))
    monkeypatch.setenv("CLR_PORT", "0")
    monkeypatch.setattr(doctor, "PROBE_S", 150)
    ran = run("doctor", "--json")
    found = json.loads(ran.out)
    assert [one["check"] for one in found] == list(CHECKS)
    assert {one["check"]: one["state"] for one in found} == dict.fromkeys(CHECKS, "ok") | {"workers": "warn"}
    assert ran.code == 0
    assert not (tmp_path / "new").exists()  # looking makes nothing
    monkeypatch.setattr(doctor, "CHECKS", {"tokens": CHECKS["tokens"]})
    monkeypatch.setenv("CLR_HOST", "0.0.0.0")
    ran = run("doctor")
    assert (ran.code, ran.out.startswith("FAIL  tokens     none")) == (1, True)
    assert "clr token create" in ran.out
