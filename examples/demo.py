"""The whole service in under three minutes: start it, submit a job, watch it, read what it found, stop it.

Each line printed after a `$` is the command it runs; any of them works by hand too.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

SPEC = Path(__file__).with_name("digits.json")
CLR = Path(sys.executable).with_name("clr")
START_S = 180
STOP_S = 15


def main() -> None:
    """Everything in a folder of its own that is gone afterwards."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    home = tempfile.mkdtemp(prefix="clr-")
    url = f"http://127.0.0.1:{free_port()}"
    os.environ |= {"CLR_HOME": home, "CLR_URL": url, "CLR_PORT": url.rpartition(":")[2]}
    try:
        with service(Path(home) / "service.log"):
            show(url)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def show(url: str) -> None:
    """Submit the job, follow it, and print what it found in each form there is."""
    job = clr("submit", os.path.relpath(SPEC), capture=True)
    clr("watch", job)
    clr("recommend", job, "--format", "python")
    print(f"\n$ curl {url}/v1/jobs/{job}/recommendation")
    print(httpx.get(f"{url}/v1/jobs/{job}/recommendation").text)


@contextmanager
def service(log: Path) -> Iterator[None]:
    """`clr serve` with its output in ``log``, ready for jobs; stopped with all that it started."""
    print("$ clr serve &")
    with log.open("wb") as output:
        # In a session of its own, so that Ctrl-C reaches this script alone, which then stops it.
        process = subprocess.Popen([CLR, "serve"], stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until_ready(process, log)
        yield
    finally:
        process.terminate()
        process.wait(STOP_S)


def wait_until_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the API answers and a worker has told it what it can train."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{os.environ['CLR_URL']}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    sys.exit(f"error: the service did not get ready within {START_S} s; its log:\n{log.read_text()}")


def clr(*args: str, capture: bool = False) -> str:
    """Run a command as typed; what it printed, if captured."""
    print(f"\n$ clr {shlex.join(args)}", flush=True)
    done = subprocess.run([CLR, *args], stdout=subprocess.PIPE if capture else None, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    if capture:
        print(done.stdout, end="", flush=True)
    return (done.stdout or "").strip()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
