import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from service.store import audit, tokens
from service.store.database import Database
from tests.service.conftest import Run, is_one_error_line


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLR_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def stored(home: Path) -> Callable[[str], str | None]:
    """The name of a token's holder, as the database has it."""

    def name_of(token: str) -> str | None:
        database = Database(f"sqlite:///{home}/clr.db")
        with database.read() as session:
            row = tokens.find(session, token)
        database.dispose()
        return row and row.name

    return name_of


def test_create_prints_the_token_alone_and_list_tells_all_but_it(run: Run, stored: Callable[[str], str | None]) -> None:
    ran = run("token", "create", "--role", "submit", "--name", "ann")
    token = ran.out.rstrip("\n")
    assert ran.code == 0, ran.err
    assert re.fullmatch(r"clr_[\w-]{43}", token)
    assert stored(token) == "ann"
    assert token not in ran.err
    listed = run("token", "list")
    (row,) = json.loads(listed.out)
    assert (row["name"], row["role"], row["used_at"], row["revoked_at"]) == ("ann", "submit", None, None)
    assert token not in listed.out
    assert "ann" in run("token", "list", terminal=True).out
    assert run("token", "revoke", "ann").code == 0
    assert stored(token) is None
    assert json.loads(run("token", "list").out)[0]["revoked_at"].endswith("Z")


def test_making_and_ending_tokens_is_audited(run: Run, home: Path) -> None:
    run("token", "create", "--role", "admin", "--name", "ann")
    run("token", "revoke", "ann")
    database = Database(f"sqlite:///{home}/clr.db")
    with database.read() as session:
        acts = [(act.token, act.action, act.detail) for act in audit.browse(session)]
    database.dispose()
    assert acts == [(None, "token revoke", "ann"), (None, "token create", "ann (admin)")]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["create", "--role", "root", "--name", "x"], "root"),
        (["create", "--role", "read", "--name", "a b"], "name: must be"),
        (["revoke", "nobody"], "nobody"),
    ],
)
def test_what_cannot_be_is_one_line_that_says_why(run: Run, args: list[str], said: str) -> None:
    ran = run("token", *args)
    assert is_one_error_line(ran)
    assert said in ran.err


def test_a_name_is_given_once(run: Run) -> None:
    run("token", "create", "--role", "read", "--name", "x")
    ran = run("token", "create", "--role", "read", "--name", "x")
    assert is_one_error_line(ran)
    assert "choose another" in ran.err


def test_migrate_stores_the_bootstrap_token_of_its_file(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, stored: Callable[[str], str | None]
) -> None:
    monkeypatch.setenv("CLR_BOOTSTRAP_TOKEN_FILE", str(home / "secret"))
    assert is_one_error_line(run("migrate"))  # there is no such file
    (home / "secret").write_text("s" * 40 + "\n")
    assert [run("migrate").code for _ in range(2)] == [0, 0]
    assert stored("s" * 40) == "bootstrap"


@pytest.mark.parametrize("command", ["serve", "api"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_listening_beyond_loopback_without_tokens_is_refused(run: Run, command: str, host: str) -> None:
    run("migrate")
    ran = run(command, "--host", host, "--port", "0")
    assert is_one_error_line(ran)
    assert "clr token create" in ran.err
