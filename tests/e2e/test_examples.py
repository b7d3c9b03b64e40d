"""The examples as their reader runs them, on one real service with a real worker."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import wait_until_gone

EXAMPLES = Path(__file__).parents[2] / "examples"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``clr serve`` that takes code, stopped in the end with nothing left."""
    home = tmp_path_factory.mktemp("home")
    environment = os.environ | {"CLR_HOME": str(home), "CLR_CPUS": "2", "CLR_ALLOW_CODE": "true"}
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            url = process.stderr.readline().split()[3]
            wait_for_a_worker(url)
            yield url
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.communicate(timeout=20)
            wait_until_gone(family)


def wait_for_a_worker(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the service must get ready"
        time.sleep(0.1)


@pytest.fixture
def run(url: str) -> Run:
    """Runs a command with CLR_URL set."""

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"CLR_URL": url}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)

    return run


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


def test_curl_alone_is_enough(run: Run) -> None:
    done = run("bash", str(EXAMPLES / "curl_only.sh"))
    assert done.returncode == 0, done.stderr
    job, queued, *_, bounds = done.stdout.splitlines()
    assert job.startswith("job ")
    assert json.loads(queued.removeprefix("data: "))["state"] == "queued"
    assert '"state":"succeeded"' in done.stdout.replace(" ", "")
    assert "torch.optim.lr_scheduler.CyclicLR(" in done.stdout
    assert 0 < json.loads(bounds)["base_lr"] < json.loads(bounds)["max_lr"]
