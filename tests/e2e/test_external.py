"""A trainer of one's own against the API alone, as its process: no worker, no Ray."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clr.client.sync import Client
from service.serving import address, listen
from tests.conftest import started

EXAMPLE = Path(__file__).parents[2] / "examples/external_numpy.py"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """``clr api`` on a migrated file."""
    environment = os.environ | {"CLR_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "service.cli"]
    subprocess.run([*command, "migrate"], env=environment, check=True, timeout=60)
    with listen("127.0.0.1", 0) as listener:  # calls wait until the API is there
        fd = listener.fileno()
        process = subprocess.Popen([*command, "api", "--fd", str(fd)], env=environment, pass_fds=[fd])
        try:
            yield address(listener)
        finally:
            process.terminate()
            process.wait(20)


def test_two_numpy_trainers_share_a_job_and_end_it(url: str) -> None:
    run = [sys.executable, str(EXAMPLE), url]
    with started(run, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        job_id = first.stdout.readline().split()[1]
        assert first.stdout.readline().startswith("range_test run 0:")
        second = subprocess.run([*run, job_id], capture_output=True, text=True, timeout=60, check=True).stdout
        both = first.stdout.read() + second
        assert first.wait(60) == 0
    assert both.count("search run") >= 3
    with Client(url) as client:
        job = client.job(job_id)
        assert (job.state, job.recommendation().source) == ("succeeded", "search")
        assert sum(trial.value is not None and trial.value > 0.85 for trial in job.trials()) >= 3
