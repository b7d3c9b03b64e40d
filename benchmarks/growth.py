"""How far one store and one driver carry: recorded curves in place of trainings, all else as in a worker.

    python -m benchmarks.growth                            # 1 to 1,000 slots, with 100,000 runs stored
    python -m benchmarks.growth --database sqlite --slots 1 10 --stored 0

Jobs are claimed, driven and stored by the worker's own code on a real database, a thread for each slot, as a worker has
them; only the engine is another, whose runs are over as soon as they are asked for: noisy descent down a parabola, in
place of training. So what a run takes here is what store, session and driver take of it, without Ray. ``busy`` is how
many slots one worker process keeps busy with trainings of that length before its own work is the limit.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from random import Random
from threading import Event, Thread
from typing import Any

import psutil
from sqlalchemy import func, insert, literal, select

from benchmarks.api import KINDS, STORED, databases
from benchmarks.table import markdown
from clr.run import Run
from clr.schedules.cycles import rate_of
from clr.spec import JobSpec
from service.settings import Settings
from service.store import jobs
from service.store.clock import now
from service.store.database import Database
from service.store.models import Job, RunRow
from worker.cluster import Resources
from worker.job import JobDriver

ITERATIONS_PER_EPOCH, EPOCHS = 20, 10
OWNER = "growth"
CURVATURE, NOISE = 10.0, 0.05
RUN_S = (1.0, 10.0, 60.0)
"""Lengths of trainings, for which the slots that are kept busy are told."""


class Curves:
    """In place of the engine and its cluster: every run is over as soon as it is asked for."""

    def __init__(self, slots: int) -> None:
        self.cluster, self._slots = self, slots
        self.nodes, self.is_settled = [object()], True

    def slots(self, _wanted: Resources) -> int:
        return self._slots

    def room(self, **_asked: Any) -> Resources:
        return Resources(1.0, 0.0)

    def loss(self) -> None:
        return None

    def check(self) -> None:
        pass

    def inspect_task(self, *_: Any, check: Callable[[], None]) -> dict[str, Any]:
        trained_with = {"optimizer": {"name": "SGD", "args": {}}, "batch_size": 64}
        length = {"iterations_per_epoch": ITERATIONS_PER_EPOCH, "metric": "accuracy", "direction": "minimize"}
        return length | {"trained_with": trained_with}

    def stream(self, _trainee: Any, _bundle: Any, run: dict[str, Any], about: Any, *_: Any) -> Iterator[Any]:
        return ((about["attempt"], [(False, point)]) for point in curve(Run(**run)))

    def ready(self, streams: list[Any], timeout_s: float) -> list[Any]:
        return streams

    def next(self, stream: Iterator[Any]) -> Any:
        return next(stream)

    def cancel(self, streams: list[Any]) -> None:
        pass


def curve(run: Run) -> Iterator[dict[str, Any]]:
    """The points of one run, as a training process gives them."""
    chance, rate, weight = Random(run.seed), rate_of(run), 3.0
    lr: list[float] = []
    loss: list[float] = []
    for step in range(run.steps):
        lr.append(rate(step))
        loss.append(CURVATURE * weight**2 / 2)
        weight -= lr[-1] * (CURVATURE * weight + chance.gauss(0, NOISE))
        diverged = not math.isfinite(weight) or abs(weight) > 1e6
        if diverged or (step + 1) % run.evaluate_every == 0 or step + 1 == run.steps:
            metric = None if diverged else CURVATURE * weight**2 / 2
            yield {"step": step + 1, "lr": lr, "loss": loss, "metric": metric, "diverged": diverged}
            lr, loss = [], []
        if diverged:
            return


def store_runs(database: Database, number: int) -> None:
    """Give each of the stored jobs as many finished runs as make ``number`` together."""
    with database.begin() as session:
        for index in range(number // STORED):
            same = {"stage": "search", "number": index, "state": "complete", "steps": 200, "attempt": 1, "losses": 0}
            values = [literal(value).label(name) for name, value in same.items()]
            documents = [literal({}, RunRow.params.type).label("params"), literal({}, RunRow.run.type).label("run")]
            rows = select(Job.id, *values, *documents, now().label("started_at"))
            names = ["job_id", *same, "params", "run", "started_at"]
            session.execute(insert(RunRow).from_select(names, rows, include_defaults=False))


def finished(database: Database) -> int:
    with database.read() as session:
        ended = select(func.count()).select_from(RunRow).join(Job, Job.id == RunRow.job_id)
        return session.scalar(ended.where(Job.owner == OWNER, RunRow.state != "running")) or 0


def drive(database: Database, settings: Settings, engine: Any, spec: JobSpec, over: Event) -> None:
    """One job after the other, as a worker does it."""
    while not over.is_set():
        with database.begin() as session:
            values = spec.model_dump(mode="json")
            jobs.submit(session, spec=values, name="growth", task=spec.task)
        with database.begin() as session:
            claimed = jobs.claim(session, owner=OWNER, lease_s=settings.lease_s)
        if claimed is not None:
            JobDriver(database, engine, *claimed, settings=settings, stopping=over).drive()


def measure(database: Database, slots: int, seconds: float, servers: list[psutil.Process]) -> list[str]:
    """A row of the table: so many slots at work for so long."""
    settings, over = Settings(), Event()
    spec = JobSpec(task="digits", epochs=EPOCHS)
    engine = Curves(slots)
    threads = [Thread(target=drive, args=(database, settings, engine, spec, over)) for _ in range(slots)]
    before, began, cpu, theirs = finished(database), time.monotonic(), time.process_time(), database_cpu_s(servers)
    for thread in threads:
        thread.start()
    over.wait(seconds)
    runs = finished(database) - before
    took, cpu, theirs = time.monotonic() - began, time.process_time() - cpu, database_cpu_s(servers) - theirs
    over.set()
    for thread in threads:
        thread.join()
    own_s = cpu / max(1, runs)
    told = [f"{runs / took:.0f}", f"{1e3 * own_s:.1f}", f"{1e3 * theirs / max(1, runs):.1f}"]
    return [str(slots), *told, *(f"{length / own_s:,.0f}" for length in RUN_S)]


def database_cpu_s(servers: list[psutil.Process]) -> float:
    """CPU seconds of servers and all that they started, whether it has ended or not."""
    ended = [server.cpu_times() for server in servers]
    times = [one.cpu_times() for server in servers for one in (server, *server.children())]
    return sum(one.user + one.system for one in times) + sum(one.children_user + one.children_system for one in ended)


def main() -> None:
    """Measure, and print a table and the machine's load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=KINDS, default="postgresql")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--stored", type=int, default=100_000, help="runs that the store holds before")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each row")
    chosen = parser.parse_args()
    with databases(STORED) as made:
        url = made(chosen.database)
        servers = [one for one in psutil.process_iter() if serves(one, url)]
        with closing(Database(url)) as database:
            store_runs(database, chosen.stored)
            rows = [measure(database, slots, chosen.seconds, servers) for slots in chosen.slots]
    busy = [f"busy at {length:g} s a run" for length in RUN_S]
    print(markdown(["slots", "runs a second", "worker's CPU ms a run", "PostgreSQL's", *busy], rows))
    print(
        f"\n{chosen.database}, {chosen.stored:,} runs stored; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def serves(process: psutil.Process, url: str) -> bool:
    """Whether it is the server of that URL, whose folder is its socket's."""
    with suppress(psutil.Error):
        command = process.cmdline()
        return "postgres" in process.name() and "-D" in command and url.rpartition("host=")[2] in command
    return False


if __name__ == "__main__":
    main()
