import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import started


@pytest.fixture
def service(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """``clr serve`` on a free port; killed with all that it started should a test not have stopped it."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
    environment = os.environ | {"CLR_HOME": str(tmp_path), "CLR_CPUS": "1"}
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True, bufsize=1
    )
    yield process
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
    assert process.stderr is not None
    process.stderr.close()
    process.wait(30)


def url_of(service: "subprocess.Popen[str]") -> str:
    assert service.stderr is not None
    return service.stderr.readline().split()[3]


def answer(url: str, status: int, within_s: float) -> httpx.Response:
    """The answer of ``url`` once it has that status."""
    deadline = time.monotonic() + within_s
    while True:
        found = httpx.get(url, timeout=within_s)
        if found.status_code == status:
            return found
        assert time.monotonic() < deadline, found.text
        time.sleep(0.1)


def test_the_port_answers_at_once_and_a_stop_while_ray_starts_leaves_nothing(
    service: "subprocess.Popen[str]",
) -> None:
    url = url_of(service)
    answer(f"{url}/healthz", 200, 30)
    family = psutil.Process(service.pid).children(recursive=True)
    assert len(family) >= 2
    began = time.monotonic()
    os.killpg(service.pid, signal.SIGINT)
    assert service.wait(20) == 0
    assert time.monotonic() - began < 11
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def test_api_and_worker_come_back_after_kill_9_and_a_stop_leaves_nothing(
    service: "subprocess.Popen[str]",
) -> None:
    url = url_of(service)
    answer(f"{url}/readyz", 200, 60)
    before, old = psutil.Process(service.pid).children(), psutil.Process(service.pid).children(recursive=True)
    assert len(before) == 2
    for child in before:
        child.kill()
    answer(f"{url}/healthz", 200, 30)  # the request itself waits while no API is there
    deadline = time.monotonic() + 30
    while len(now := psutil.Process(service.pid).children()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert {child.pid for child in now}.isdisjoint(child.pid for child in before)
    family = psutil.Process(service.pid).children(recursive=True)
    service.send_signal(signal.SIGTERM)
    assert service.wait(20) == 0
    _, alive = psutil.wait_procs(family + old, timeout=10)
    assert alive == []


def test_an_api_alone_says_where_it_listens(migrated_sqlite: Path, tmp_path: Path) -> None:
    shutil.copy(migrated_sqlite, tmp_path / "clr.db")
    command = [sys.executable, "-m", "service.cli", "api", "--port", "0"]
    environment = os.environ | {"CLR_HOME": str(tmp_path)}
    with started(command, env=environment, stderr=subprocess.PIPE, text=True) as api:
        assert api.stderr is not None
        said = next(line for line in api.stderr if "listening at" in line)
        api.terminate()
    assert re.search(r"listening at http://127.0.0.1:\d{4,}$", said)
