"""Settings come from the environment's variables that begin with ``CLR_``."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CLR_{name.upper()}", raising=False)


def test_the_defaults_serve_one_machine() -> None:
    settings = Settings()
    assert settings.home == Path.home() / ".clr"
    assert settings.database_url == f"sqlite:///{Path.home()}/.clr/clr.db"
    assert (settings.host, settings.port, settings.ray_address) == ("127.0.0.1", 8000, None)
    assert (settings.allow_code, settings.lease_s, settings.poll_s) == (False, 10.0, 0.5)
    assert (settings.code_limit, settings.code_requirements) == (2**24, "refuse")
    assert (settings.rate_limit, settings.queued_limit, settings.running_limit) == (100, 1000, None)
    assert settings.bootstrap_token_file is None
    assert (settings.cpus, settings.body_limit, settings.log_level) == (None, 2**20, "info")


def test_the_database_is_in_the_home_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLR_HOME", "~/elsewhere")
    assert Settings().database_url == f"sqlite:///{Path.home()}/elsewhere/clr.db"
    monkeypatch.setenv("CLR_DATABASE_URL", "postgresql://u@h/d")
    assert Settings().database_url == "postgresql://u@h/d"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("LEASE_S", "0"),
        ("POLL_S", "-1"),
        ("CPUS", "0"),
        ("BODY_LIMIT", "0"),
        ("LOG_LEVEL", "loud"),
        ("RATE_LIMIT", "0"),
        ("QUEUED_LIMIT", "0"),
        ("RUNNING_LIMIT", "0"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"CLR_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_every_setting_is_documented_with_its_default_and_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {}
    for line in (Path(__file__).parents[2] / "docs/settings.md").read_text().splitlines():
        if found := re.fullmatch(r"\| `CLR_([A-Z_]+)` \| (.+?) \| (.+) \|", line):
            rows[found[1].lower()] = found[2], found[3].replace("`", "")
    assert rows.keys() - {"url", "token"} == Settings.model_fields.keys()
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in Settings():
        text, description = rows[name]
        shown = {None: "unset", (): "none", False: "`false`"}.get(
            value, f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
        )
        assert text.replace("$CLR_HOME", "/home/me/.clr").replace("~", "/home/me") == shown, name
        assert description == (Settings.model_fields[name].description or "").replace("`", ""), name


def test_folders_and_modules_are_written_as_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLR_DATA", "/data: ~/more :")
    monkeypatch.setenv("CLR_TASK_MODULES", "mine, theirs.tasks")
    monkeypatch.setenv("CLR_TASK_ENV", "HF_HOME,DATA_*")
    settings = Settings()
    assert settings.data == (Path("/data"), Path.home() / "more")
    assert (settings.task_modules, settings.task_env) == (("mine", "theirs.tasks"), ("HF_HOME", "DATA_*"))


def test_what_a_job_may_read_depends_on_whether_it_came_with_a_token(tmp_path: Path) -> None:
    assert Settings(home=tmp_path).reach("ann")["folders"] == [f"{tmp_path}/data"]
    assert Settings(home=tmp_path).reach(None)["folders"] == [f"{tmp_path}/data", str(Path.cwd()), "/"]
    assert Settings(home=tmp_path, data=["/data"]).reach(None)["folders"] == ["/data"]
