import os

import pytest

from worker.environment import shared


def test_what_is_started_inherits_the_usual_variables_and_those_that_the_operator_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"CLR_DATABASE_URL": "a", "AWS_PROFILE": "b", "HF_HOME": "c", "HF_TOKEN": "d", "DATA_A": "e", "OMP_X": "f"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with shared(["HF_HOME", "DATA_*"]):
        assert {name for name in given if name in os.environ} == {"HF_HOME", "DATA_A", "OMP_X"}
        assert {"PATH", "HOME"} <= os.environ.keys()
        os.environ["RAY_ADDED"] = "kept"
    assert os.environ == before | {"RAY_ADDED": "kept"}
    del os.environ["RAY_ADDED"]
