"""Run the storm, then check what must hold; exit code 1 where something does not."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from service.store import jobs
from service.store.database import Database
from service.store.models import Job
from tests.storm.clients import at_work
from tests.storm.faults import strike
from tests.storm.invariants import Finished, broken, finished, second_attempts
from tests.storm.world import PostgreSQL, World, serving, until

CALM_S = 1800.0
"""How long after the storm the last job may take to end."""

LOG_LINES = 200


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of faults; the jobs end after them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between faults, on average")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--log", type=Path, help="where to keep the service's log")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="storm"))
    try:
        with (
            stored(given.database, home) as (url, postgresql),
            serving(home, url, postgresql) as world,
            closing(Database(url)) as database,
        ):
            with at_work(world, given.seed):
                before = rage(world, database, Random(given.seed), given.minutes * 60, given.every)
                began = time.monotonic()
                world.calm.set()
                until(lambda: is_calm(database), CALM_S)
            found = broken(world, database, before)
            report(world, database, found, time.monotonic() - began)
    finally:
        log = (home / "log").read_text()
        if given.log:
            given.log.write_text(log)
        print("\n".join(log.splitlines()[-LOG_LINES:]), file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
    return 1 if any(found.values()) else 0


@contextmanager
def stored(kind: str, home: Path) -> Iterator[tuple[str, PostgreSQL | None]]:
    """The URL of a new database, and its server where it has one."""
    if kind == "sqlite":
        yield f"sqlite:///{home}/clr.db", None
        return
    postgresql = PostgreSQL(home / "pg")
    try:
        yield postgresql.url, postgresql
    finally:
        postgresql.stop()


def rage(world: World, database: Database, chance: Random, seconds: float, every_s: float) -> Finished:
    """Strike until the time is over; all runs that were seen to have ended meanwhile."""
    seen: Finished = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            strike(world, chance)
        except TimeoutError as error:
            world.wrong.append(str(error))
        time.sleep(chance.expovariate(1 / every_s))
        if chance.random() < 0.1:
            try:
                seen = finished(database) | seen
            except SQLAlchemyError:  # the database is down
                continue
    world.settle()
    return seen


def is_calm(database: Database) -> bool:
    try:
        with database.read() as session:
            behind = session.scalar(select(func.count()).where(Job.unshown > 0))
            return sum(jobs.unfinished(session).values()) == 0 and not behind
    except SQLAlchemyError:
        return False


def report(world: World, database: Database, found: dict[str, list[str]], calm_s: float) -> None:
    for name, number in world.struck.most_common():
        print(f"{number:6}  {name}")
    print(f"{world.struck.total():6}  faults in all; {len(world.accepted)} jobs accepted, {len(world.deleted)} deleted")
    print(f"{second_attempts(database):6}  runs completed on a later attempt")
    load = f"load {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores"
    print(f"{calm_s:6.0f}  seconds from the last fault until the last job had ended; {load}\n")
    for name, lines in found.items():
        print(f"{len(lines):6}  {name}")
        for line in lines[:5]:
            print(f"        {line}")


if __name__ == "__main__":
    sys.exit(main())
