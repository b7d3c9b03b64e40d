"""What a long training leaves and takes: one run of so many steps through ``clr serve``.

    python -m benchmarks.long_run                     # 1,000,000 steps of the digits
    python -m benchmarks.long_run --steps 100000
    python -m benchmarks.long_run --command           # of examples/commands/least_squares.awk

Prints one JSON document: seconds, size of the database after the job, the most memory that API, worker and Ray's
training process held (resident), the longest time between two reports of the run's step, seconds to open the job's page
while it runs and after, and the bytes and points that the run's curve is kept in.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from clr.client.sync import Client

ITERATIONS_PER_EPOCH = 18
LOOK_EVERY_S = 0.25
PAGES = 5


@contextmanager
def service(home: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Where ``clr serve`` answers, and its process."""
    environment = os.environ | {"CLR_HOME": str(home), "CLR_CPUS": "1", "CLR_ALLOW_CODE": "true"}
    log = home / "log"
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
    with log.open("w") as file, subprocess.Popen(command, env=environment, stderr=file) as process:
        try:
            while len(said := log.read_text().split("\n")) < 2:
                time.sleep(0.1)
            yield said[0].split()[3], psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=20)


def memory(serve: psutil.Process) -> dict[str, int]:
    """MiB that each part holds."""
    found: dict[str, int] = {}
    for one in serve.children(recursive=True):
        with suppress(psutil.Error):
            line, held = " ".join(one.cmdline()), one.memory_info().rss >> 20
            for part, sign in (("api", "cli api"), ("worker", "-m worker"), ("training", "ray::train")):
                if sign in line:
                    found[part] = max(found.get(part, 0), held)
    return found


def opened(url: str) -> float:
    """Seconds to open a page, the least of five."""
    times = []
    for _ in range(PAGES):
        began = time.perf_counter()
        httpx.get(url, headers={"Accept": "text/html"}).raise_for_status()
        times.append(time.perf_counter() - began)
    return round(min(times), 3)


DIGITS = {"task": "digits", "args": {"hidden": 16}}

AWK = {
    "mode": "command",
    "command": ["awk", "-f", str(Path(__file__).parents[1] / "examples" / "commands" / "least_squares.awk")],
    "iterations_per_epoch": ITERATIONS_PER_EPOCH,
    "direction": "minimize",
}


def followed(client: Client, url: str, serve: psutil.Process, steps: int, trained: dict[str, Any]) -> dict[str, Any]:
    """Submit the job and look at it until it is over."""
    epochs = steps / ITERATIONS_PER_EPOCH
    search = {"trials": 1, "stepsize_multiplier": [epochs / 2, epochs / 2]}
    asked = {"epochs": epochs, "range_test": {"seeds": 1}, "search": search, "confirm": None}
    job = client.submit(asked | trained)
    most: dict[str, int] = {}
    changed, step, silent, page = time.monotonic(), -1, 0.0, 0.0
    while not job.refresh().finished:
        now = time.monotonic()
        (standing,) = job.document["under_way"][:1] or [{"steps": 0, "step": -1}]
        if standing["steps"] == steps and standing["step"] != step:
            silent = max(silent, now - changed if step > 0 else 0.0)
            changed, step = now, standing["step"]
            page = page or (opened(f"{url}/jobs/{job.id}") if step > steps / 2 else 0.0)
        most = {part: max(most.get(part, 0), held) for part, held in memory(serve).items()}
        time.sleep(LOOK_EVERY_S)
    if job.document["cost"]["steps"] < steps:
        raise SystemExit(f"no run of {steps} steps was made: {job.recommendation().reasons}")
    return {
        "state": job.state,
        "seconds": round(job.document["cost"]["seconds"], 1),
        "steps": job.document["cost"]["steps"],
        "longest_silence_s": round(silent, 2),
        "memory_mib": most,
        "page_s": {"half-way": page, "after": opened(f"{url}/jobs/{job.id}")},
    }


def kept(database: Path) -> dict[str, Any]:
    """What the store holds of the long run."""
    with sqlite3.connect(database) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = [row for (row,) in file.execute("SELECT data FROM clr_points WHERE stage = 'search'")]
        (events,) = file.execute("SELECT count(*) FROM clr_events").fetchone()
    points = sum(len(json.loads(row)["loss"]) for row in rows)
    curve = {"rows": len(rows), "points": points, "bytes": sum(map(len, rows))}
    return {"curve": curve, "events": events, "database_bytes": database.stat().st_size}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the run")
    parser.add_argument("--command", action="store_true", help="a program as the trainer, not a task")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        with service(Path(home)) as (url, serve):
            found = followed(Client(url), url, serve, chosen.steps, AWK if chosen.command else DIGITS)
        print(json.dumps(found | kept(Path(home) / "clr.db"), indent=2))


if __name__ == "__main__":
    main()
