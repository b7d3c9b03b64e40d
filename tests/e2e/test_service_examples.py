"""The examples as their reader runs them, on one real service with a real worker."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(url: str) -> Run:
    """Runs a command with CLR_URL set."""

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"CLR_URL": url}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)

    return run


def test_curl_alone_is_enough(run: Run) -> None:
    done = run("bash", str(EXAMPLES / "curl_only.sh"))
    assert done.returncode == 0, done.stderr
    job, queued, *_, bounds = done.stdout.splitlines()
    assert job.startswith("job ")
    assert json.loads(queued.removeprefix("data: "))["state"] == "queued"
    assert '"state":"succeeded"' in done.stdout.replace(" ", "")
    assert "torch.optim.lr_scheduler.CyclicLR(" in done.stdout
    assert 0 < json.loads(bounds)["base_lr"] < json.loads(bounds)["max_lr"]


def test_code_of_ones_own_is_uploaded_trained_and_recommended_for(run: Run, url: str) -> None:
    clr = [sys.executable, "-m", "service.cli"]
    job, code = str(EXAMPLES / "own_code" / "job.yaml"), str(EXAMPLES / "own_code")
    done = run(*clr, "submit", job, "--code", code, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["source"] == "search"
    assert 0 < found["base_lr"] < found["max_lr"]
    listed = httpx.get(f"{url}/v1/jobs").json()["items"][0]
    assert (listed["id"], listed["task"]) == (found["job_id"], "task:digits")
    assert httpx.get(f"{url}/v1/code/{listed['spec']['code']}").json()["files"] == 3
    trials = httpx.get(f"{url}/v1/jobs/{listed['id']}/trials").json()["items"]
    assert max(trial["value"] for trial in trials) > 0.8
