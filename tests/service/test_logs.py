import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from service import logs
from service.settings import Settings

log = logging.getLogger("clr.test")


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str], root_logger: None) -> Callable[[str, Callable[[], Any]], str]:
    """What is written to standard error in that format."""

    def logged(log_format: str, act: Callable[[], Any]) -> str:
        logs.configure(Settings.model_validate({"log_format": log_format}))
        act()
        return capsys.readouterr().err

    return logged


def test_json_lines_hold_one_object_each_with_the_job_they_are_about(logged: Callable[..., str]) -> None:
    def act() -> None:
        log.info("first\nof %s", "two")
        log.warning("claimed", extra={"job": "j1"})
        token = logs.job_id.set("j2")
        log.info("deep inside")
        logs.job_id.reset(token)

    first, claimed, inside = map(json.loads, logged("json", act).splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("info", "clr.test", "first\nof two")
    assert first["time"].endswith("+00:00")
    assert ("job" in first, claimed["job"], inside["job"]) == (False, "j1", "j2")


def test_an_error_keeps_its_traceback_within_its_line(logged: Callable[..., str]) -> None:
    def act() -> None:
        try:
            raise ValueError("no")
        except ValueError:
            log.exception("failed")

    (line,) = logged("json", act).splitlines()
    assert "ValueError: no" in json.loads(line)["error"]


def test_lines_for_people_hold_level_and_message(logged: Callable[..., str]) -> None:
    line = logged("text", lambda: (log.info("claimed: job=%s", "j1"), log.debug("no")))
    assert line.endswith("INFO clr.test: claimed: job=j1\n")
