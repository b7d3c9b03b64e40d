"""How heavy and how quick the pages are: a real browser on loopback, a job with 10,000 trials written to the store.

    python -m benchmarks.pages

Prints one JSON document: bytes transferred for each page (first visit, and again with the browser's cache), seconds to
the first chart of the large job (first in a fresh process, then the median of five), and seconds from an event's
transaction to its being seen on the page.
"""

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import insert

from service.store import jobs, recommendations, runs
from service.store.database import Database, migrate
from service.store.jobs import Lease
from service.store.models import RunRow

CHROMIUM = "/usr/bin/chromium"
TRIALS = 10_000
EVENTS = 20
VISITS = 5

FIRST_CHART = """async () => {
  const image = document.querySelector("picture img");
  await image.decode();
  return performance.now() / 1000;
}"""


def main() -> None:
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        url = f"sqlite:///{home}/clr.db"
        migrate(url)
        database = Database(url)
        large, live = write(database)
        with service(home) as address:
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
            found = measure(browser, database, address, large, live)
            browser.close()
        database.dispose()
    print(json.dumps(found | {"machine": platform.platform(), "cpus": os.cpu_count(), "trials": TRIALS}, indent=2))


def measure(browser: Browser, database: Database, address: str, large: str, live: Lease) -> dict[str, Any]:
    cold = first_chart(browser, f"{address}/jobs/{large}")
    warm = [first_chart(browser, f"{address}/jobs/{large}") for _ in range(VISITS)]
    pages = {
        "jobs": "/",
        "new": "/jobs/new",
        "job": f"/jobs/{large}",
        "compare": f"/compare?job={large}&job={live.job_id}",
    }
    return {
        "first_chart_s": {"fresh_process": round(cold, 3), "median": round(statistics.median(warm), 3)},
        "bytes": {name: weigh(browser, address + path) for name, path in pages.items()},
        "event_to_page_s": delays(browser, database, f"{address}/jobs/{live.job_id}", live),
    }


def write(database: Database) -> tuple[str, Lease]:
    """A finished job with many trials and all pictures, and one that runs; the id of one, the lease of the other."""
    random.seed(0)
    leases = [lease(database) for _ in range(2)]
    for held in leases:
        with database.begin() as session:
            jobs.set_training(
                session, held, iterations_per_epoch=18, metric="accuracy", direction="maximize", predicted_steps=9**6
            )
            ramp(session, held)
    large, live = leases
    with database.begin() as session:
        rows = [
            {
                "job_id": large.job_id,
                "stage": "search",
                "number": number,
                "state": "complete",
                "value": random.gauss(0.95, 0.01),
                "steps": 180,
                "params": {
                    "policy": "triangular",
                    "base_lr": 0.01,
                    "max_lr": random.uniform(0.05, 0.3),
                    "ratio": random.uniform(1.5, 20),
                    "stepsize_multiplier": 10 / random.randint(1, 10),
                },
                "run": {},
            }
            for number in range(TRIALS)
        ]
        session.execute(insert(RunRow), rows)
        recommendations.put(session, large, document=document(large.job_id), task="digits", optimizer="SGD")
        jobs.succeed(session, large)
    return large.job_id, live


def lease(database: Database) -> Lease:
    spec = {"task": "digits", "epochs": 10, "optimizer": {"name": "SGD"}}
    with database.begin() as session:
        jobs.submit(session, spec=spec, name="large", task="digits")
        claimed = jobs.claim(session, owner="benchmark", lease_s=3600)
    assert claimed is not None
    return claimed[1]


def ramp(session: Any, held: Lease) -> None:
    """Six ramps of 200 steps."""
    for number in range(6):
        params = {"policy": "exponential_ramp"}
        attempt = runs.start(session, held, stage="range_test", number=number, params=params, run={"seed": number})
        points = [
            {
                "step": 10 * point + 10,
                "lr": [10 ** (-4 + (10 * point + step) / 50) for step in range(10)],
                "loss": [2.3 - 0.01 * point + random.gauss(0, 0.05) for _ in range(10)],
                "metric": 0.1 + 0.04 * point,
                "diverged": False,
            }
            for point in range(20)
        ]
        place = {"stage": "range_test", "number": number, "attempt": attempt}
        runs.append(session, held, **place, points=points)
        runs.finish(session, held, **place, state="complete", value=0.9, steps=200)


def document(job_id: str) -> dict[str, Any]:
    names = ("recommended", "fixed", "one_cycle", "cosine")
    evidence = [{"name": name, "mean": 0.96, "std": 0.01, "values": [0.95, 0.96, 0.97]} for name in names]
    return {
        "job_id": job_id,
        "source": "confirm",
        "policy": "triangular",
        "base_lr": 0.01,
        "max_lr": 0.1,
        "ratio": 10.0,
        "stepsize": 90,
        "stepsize_multiplier": 5.0,
        "iterations_per_epoch": 18,
        "gamma": None,
        "interval": {"base_lr": [0.008, 0.02], "max_lr": [0.08, 0.15]},
        "confidence": "high",
        "reasons": ["12 runs in 2 repetitions"],
        "warnings": [],
        "evidence": {
            "metric": "accuracy",
            "direction": "maximize",
            "epochs": 10.0,
            "seeds": 3,
            "runs": evidence,
            "verdict": "no difference",
        },
        "cost": {"steps": 1800000, "seconds": 60.0, "relative_to_one_training": 10000.0},
        "torch": None,
    }


@contextmanager
def service(home: str) -> Iterator[str]:
    """The API alone, in a fresh process."""
    log = Path(home, "log")
    command = [sys.executable, "-m", "service.cli", "api", "--port", "18097"]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=os.environ | {"CLR_HOME": home}, stderr=output)
        try:
            while "startup complete" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.02)
            yield "http://127.0.0.1:18097"
        finally:
            process.terminate()
            process.wait(20)


def first_chart(browser: Browser, address: str) -> float:
    """Seconds from the start of the navigation to the first chart decoded, in a fresh profile."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address, wait_until="commit")
    page.wait_for_selector("picture img", state="attached")
    seconds: float = page.evaluate(FIRST_CHART)
    page.close()
    return seconds


def weigh(browser: Browser, address: str) -> dict[str, int]:
    """Bytes that come over the wire, headers too: on a first visit, and on the next."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    received: list[int] = []
    session.on("Network.loadingFinished", lambda event: received.append(int(event["encodedDataLength"])))
    weights = {}
    for visit in ("first", "again"):
        received.clear()
        page.goto(address, wait_until="networkidle")
        weights[visit] = sum(received)
    weights["requests"] = len(received)
    context.close()
    return weights


def delays(browser: Browser, database: Database, address: str, live: Lease) -> dict[str, float]:
    """Seconds from the commit of a job's progress to its being shown."""
    page: Page = browser.new_page()
    page.goto(address)
    page.wait_for_timeout(1000)
    seconds = []
    for number in range(1, EVENTS + 1):
        with database.begin() as session:
            jobs.progress(session, live, stage="search", progress=number / 100, steps=7000 + number)
        committed = time.monotonic()
        page.locator("#progress", has_text=f"7\u202f{number:03}").wait_for()
        seconds.append(time.monotonic() - committed)
        page.wait_for_timeout(random.uniform(300, 900))
    page.close()
    return {"median": round(statistics.median(seconds), 3), "longest": round(max(seconds), 3)}


if __name__ == "__main__":
    main()
