"""One real service for all tests that use one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.conftest import wait_until_gone


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``clr serve`` with an empty home on a free port, which takes code; stopped in the end with nothing left."""
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
    """The API answers before the first worker has said what it can train."""
    deadline = time.monotonic() + 60
    while not httpx.get(f"{url}/readyz", timeout=60).is_success:
        assert time.monotonic() < deadline, "the service must get ready"
        time.sleep(0.1)
