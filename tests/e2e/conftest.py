"""One real service for all tests that use one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import wait_until_gone


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that takes code."""
    with serving(tmp_path_factory.mktemp("home"), CLR_ALLOW_CODE="true") as url:
        yield url


@contextmanager
def serving(home: Path, **settings: str) -> Iterator[str]:
    """Where ``clr serve`` answers, once it can train; stopped in the end with nothing left."""
    environment = os.environ | {"CLR_HOME": str(home), "CLR_CPUS": "2"} | settings
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
    log = home / "log"
    with log.open("w") as file, subprocess.Popen(command, env=environment, stderr=file) as process:
        try:
            yield _ready(log)
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(timeout=20)
            wait_until_gone(family)


def _ready(log: Path) -> str:
    """Its address. The API answers before the first worker has said what it can train."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        said = log.read_text().split("\n")
        if len(said) > 1 and httpx.get(f"{(url := said[0].split()[3])}/readyz", timeout=60).is_success:
            return url
        time.sleep(0.1)
    raise AssertionError(log.read_text())
