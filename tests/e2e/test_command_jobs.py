"""Programs of a user's own as jobs of a real ``clr serve``."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from clr.client.sync import Client, Job
from tests.conftest import wait_until_gone
from tests.e2e.conftest import serving

pytestmark = pytest.mark.timeout(400)

AWK = Path(__file__).parents[2] / "examples" / "commands" / "least_squares.awk"
GPUS = 4
MARK = "clr_test_command_jobs_sleeper"

DEVICES = f"""
import os, sys, time
devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
if len(devices.split(",")) != {GPUS}:
    sys.exit("devices: " + repr(devices))
import clr
run = clr.current_run()
for step in range(run.steps):
    run.lr(step)
    run.log(loss=1.0 + (step % 3))
"""
SLEEPER = f"""
import time, clr
run = clr.current_run()
for step in range(run.steps):
    run.lr(step)
    run.log(loss=1.0)
    time.sleep(0.05)  # {MARK}
"""


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as found:
        yield found


def submit(client: Client, *command: str, **more: Any) -> Job:
    spec = {"mode": "command", "command": list(command), "epochs": 20, "iterations_per_epoch": 30, "budget": 1}
    return client.submit(spec | {"direction": "minimize", "resources": {"gpus": 0}} | more)


def sleepers() -> list[psutil.Process]:
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            found += [one] if any(MARK in word for word in one.cmdline()) and one.pid != os.getpid() else []
    return found


@pytest.mark.long
def test_a_program_is_tuned_and_compared_within_its_budget(client: Client) -> None:
    job = submit(client, "awk", "-f", str(AWK), budget=3).wait(300)
    assert job.state == "succeeded", job.error
    found = job.recommendation()
    assert found.max_lr is not None
    assert found.evidence is not None
    assert found.cost is not None
    assert found.cost.relative_to_one_training <= 3
    assert job.document["under_way"] == []


@pytest.mark.long
def test_a_run_has_the_devices_that_were_asked_for(tmp_path: Path) -> None:
    counted = json.dumps({"GPU": GPUS})
    with serving(tmp_path, CLR_ALLOW_CODE="true", RAY_OVERRIDE_RESOURCES=counted) as url, Client(url) as client:
        job = submit(client, sys.executable, "-c", DEVICES, resources={"gpus": GPUS}).wait(300)
        refused = submit(client, sys.executable, "-c", DEVICES, resources={"gpus": GPUS + 1}).wait(300)
    assert (job.state, job.error) == ("succeeded", None)
    assert job.document["trained_with"]["gpus"] == GPUS
    assert refused.state == "failed"
    assert "no node has" in str(refused.error)


def test_a_crash_fails_the_job_with_the_last_that_was_printed(client: Client) -> None:
    job = submit(client, sys.executable, "-c", "raise SystemExit('no such data: /data/train')").wait(300)
    assert job.state == "failed"
    assert "ended with code 1 after 0 of" in str(job.error)
    assert "no such data: /data/train" in str(job.error)


def test_a_run_under_way_is_told_and_ends_with_the_job_that_is_cancelled(client: Client) -> None:
    job = submit(client, sys.executable, "-c", SLEEPER)
    deadline = time.monotonic() + 180
    while not (standing := job.refresh().document["under_way"]) or standing[0]["step"] == 0:
        assert time.monotonic() < deadline, job.document
        time.sleep(0.1)
    assert standing[0]["stage"] == "range_test"
    assert standing[0]["loss"] == 1.0
    running = sleepers()
    assert running
    job.cancel().wait(60)
    assert job.state == "cancelled"
    wait_until_gone(running)
    assert not sleepers()
