import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.store import tokens
from service.store.database import Database

CONFIG = """\
[checks.positive_data_acceptance]
# 422 too: which tasks are published, and how two fields must agree, is beyond a JSON schema
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "422", "429", "5xx"]
[checks.negative_data_rejection]
# 413 too: of a list that is too long the body may be as well
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "5xx"]
"""

# A stream that lasts as long as its job (a finished one's is fuzzed below), and what is 503 where no worker was seen
# lately: that of these tests is seen once.
LASTING = "--exclude-path-regex=/events$|^/readyz$"

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def fuzz(url: str, app: FastAPI, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs schemathesis with all its checks against the API; it must find nothing."""
    command, times = Path(sys.executable).with_name("schemathesis"), int(request.config.getoption("--fuzz"))

    def run(*options: str, examples: int, config: str = "") -> None:
        (tmp_path / "schemathesis.toml").write_text(CONFIG + config)
        (tmp_path / "openapi.json").write_text(json.dumps(app.openapi()))  # whoever has no token is not given it
        arguments = ["--config-file", "schemathesis.toml", "run", "openapi.json", "--url", url, "--seed", "7", *options]
        arguments += ["--max-examples", str(times * examples)]
        done = subprocess.run([command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=200 * times)
        assert done.returncode == 0, done.stdout

    return run


@pytest.fixture
def finished(worker: Any, submit: Callable[..., dict[str, Any]], recommendation: dict[str, Any]) -> str:
    """A job with a result of every kind."""
    job_id: str = submit()["id"]
    worker.claim()
    point = {"step": 2, "lr": [0.1, 0.2], "loss": [2.0, 1.0], "metric": 0.5, "diverged": False}
    worker.run("range_test", 0, [point], params={"policy": "exponential_ramp"})
    worker.run("search", 0, [point], value=0.5)
    worker.recommend(recommendation | {"job_id": job_id})
    worker.end()
    return job_id


def test_a_fuzzer_finds_nothing(fuzz: Callable[..., None], worker: Any) -> None:
    fuzz("--phases=examples,coverage,fuzzing", LASTING, examples=15)


def test_a_fuzzer_finds_nothing_about_a_job_with_results(fuzz: Callable[..., None], finished: str) -> None:
    parameters = f'[parameters]\n"path.job_id" = "{finished}"\n'
    fuzz(
        "--phases=coverage,fuzzing",
        "--include-path-regex=job_id",
        "--exclude-method=DELETE",
        examples=5,
        config=parameters,
    )


def test_a_fuzzer_finds_nothing_in_sequences_of_calls(fuzz: Callable[..., None], worker: Any) -> None:
    fuzz("--phases=stateful", LASTING, examples=8)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("role", ["anonymous", "read", "submit", "admin"])
def test_a_fuzzer_finds_nothing_whatever_its_role(
    role: str, fuzz: Callable[..., None], database: Database, worker: Any
) -> None:
    """Anonymous where there are tokens, so that every route is refused as it says."""
    with database.begin() as session:
        made = {name: tokens.create(session, name, name) for name in ("read", "submit", "admin")}
    holder = [] if role == "anonymous" else ["--header", f"Authorization: Bearer {made[role]}"]
    fuzz("--phases=examples,coverage,fuzzing,stateful", *holder, LASTING, examples=2)


def test_no_pattern_means_another_thing_to_the_service_than_to_json_schema(app: FastAPI) -> None:
    """Classes such as \\w hold all of Unicode's letters here, and ASCII alone there."""
    patterns = re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', json.dumps(app.openapi()))
    assert patterns
    assert [pattern for pattern in map(json.loads, patterns) if re.search(r"\\[wdsb]", pattern)] == []


def test_every_route_is_described_with_its_problems(app: FastAPI) -> None:
    document = app.openapi()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            if path != "/healthz":
                problems = [a for status, a in operation["responses"].items() if int(status) >= 400]
                assert problems, (method, path)
                assert all(list(answer["content"]) == ["application/problem+json"] for answer in problems)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_a_fuzzer_finds_nothing_about_an_external_job(fuzz: Callable[..., None], client: httpx.Client) -> None:
    points = [{"lr": 1e-5 * 1.06**step, "loss": 2.0 if step < 100 else 1.0} for step in range(200)]
    spec = {"mode": "external", "task": "mine", "epochs": 10, "iterations_per_epoch": 10, "direction": "maximize"}
    path = client.post("/v1/jobs", json=spec | {"search": {"trials": 10_000}}).headers["location"]
    assert client.put(f"{path}/range-test", json={"points": points}).status_code == 200
    assert client.post(f"{path}/runs").status_code == 201
    named = {"job_id": path.rpartition("/")[2], "stage": "search", "number": 0}
    parameters = "[parameters]\n" + "".join(f'"path.{name}" = {json.dumps(value)}\n' for name, value in named.items())
    fuzz(
        "--phases=examples,coverage,fuzzing",
        "--include-path-regex=runs|trials|range-test$",
        examples=5,
        config=parameters,
    )
