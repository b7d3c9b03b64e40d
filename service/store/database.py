"""The database: its engine, its transactions, and the migration of its schema."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from threading import Semaphore
from typing import Any, TypeVar, cast

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    URL,
    Connection,
    CursorResult,
    Delete,
    Engine,
    Insert,
    MetaData,
    Update,
    create_engine,
    event,
    insert,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.sql.dml import ReturningInsert

from service.store.clock import now_s as now_s
from service.store.columns import Document, Instant, Words, to_json
from service.store.errors import StoreError

VERSION_TABLE = "clr_alembic_version"  # `alembic_version` is Optuna's
LOCK_TIMEOUT_S = 30
CONNECT_TIMEOUT_S = 10
POOL, OVERFLOW = 10, 5  # connections of a process: that stay open, and that come and go
LOG_PAGES = 4_000  # of 4 KiB, that SQLite's log ahead holds before they are moved into the file
_MIGRATION_LOCK = 0x636C72  # the advisory lock's number: "clr"


class Base(DeclarativeBase):
    """Root of the models."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Words, datetime: Instant, dict[str, Any]: Document, Any: Document}  # noqa: RUF012


Stored = TypeVar("Stored", bound=Base)


class Database:
    """One database: opens transactions, and connects when the first one begins."""

    def __init__(self, url: str) -> None:
        target = database_url(url)
        self.url = target.render_as_string(hide_password=False)
        self._engine = connect(target)
        reading = self._engine.execution_options(clr_reading=True, postgresql_readonly=True)
        self._writes = sessionmaker(self._engine, expire_on_commit=False)
        self._reads = sessionmaker(reading, expire_on_commit=False)
        # SQLite has one writer at a time, and lets the others sleep between looks at whether it is their turn.
        self._turn = Semaphore() if target.drivername == "sqlite" else None

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A transaction that may write: commits on success, rolls back on error."""
        with _taken(self._turn), self._writes.begin() as session:
            yield session

    def read(self) -> AbstractContextManager[Session]:
        """A transaction that cannot write, and so waits for no writer."""
        return self._reads()

    def ping(self) -> None:
        """Raise unless the database answers."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def dispose(self) -> None:
        """Close the idle connections."""
        self._engine.dispose()

    close = dispose


@contextmanager
def _taken(turn: Semaphore | None) -> Iterator[None]:
    """Hold the turn. Who waited too long for it goes on without, and is told by SQLite that the database is locked."""
    taken = turn is not None and turn.acquire(timeout=LOCK_TIMEOUT_S)
    try:
        yield
    finally:
        if turn is not None and taken:
            turn.release()


def database_url(url: str) -> URL:
    """``url`` with its driver; only a SQLite file and PostgreSQL will do."""
    target = make_url(url)
    kind = target.drivername.partition("+")[0]
    if kind in ("postgresql", "postgres"):
        return target.set(drivername="postgresql+psycopg")
    if kind == "sqlite" and target.database not in (None, "", ":memory:"):
        return target.set(drivername="sqlite")
    raise StoreError(
        "database_url: must be sqlite:///<path of a file> or postgresql://<user>@<host>/<database>, "
        f"but got {target.render_as_string()!r}"
    )


def connect(url: URL, *, foreign_keys: bool = True) -> Engine:
    """An engine whose transactions begin as both databases need them to."""
    if url.drivername == "sqlite":
        return _sqlite(url, foreign_keys)
    waiting = {"connect_timeout": CONNECT_TIMEOUT_S}
    pool: dict[str, Any] = {"pool_pre_ping": True, "pool_size": POOL, "max_overflow": OVERFLOW}
    engine = create_engine(url, **pool, connect_args=waiting, json_serializer=to_json)

    @event.listens_for(engine, "connect")
    def _limit_idle_transactions(connection: Any, _record: Any) -> None:
        # A frozen worker must not hold a job's row, and with it the job, for ever.
        connection.execute(f"SET idle_in_transaction_session_timeout = '{LOCK_TIMEOUT_S}s'")
        connection.commit()

    return engine


def _sqlite(url: URL, foreign_keys: bool) -> Engine:
    Path(str(url.database)).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # sqlite3's own transaction control begins too late for SAVEPOINT and never IMMEDIATE: switched off.
    waiting: dict[str, Any] = {"isolation_level": None, "timeout": LOCK_TIMEOUT_S}
    engine = create_engine(url, connect_args=waiting, json_serializer=to_json)

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: Any, _record: Any) -> None:
        write_ahead(connection)
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("clr_reading", False)
        if connection.info.get("clr_reading") != reading:
            connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if reading else 'OFF'}")
            connection.info["clr_reading"] = reading
        # A transaction that reads first and writes later fails at once when another wrote between: lock at the start.
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def write_ahead(connection: Any) -> None:
    """How a connection of sqlite3 writes to a file that keeps a log ahead."""
    connection.execute("PRAGMA synchronous = NORMAL")  # several times the writes; safe with the log
    # Jobs write the same dozen pages after one another: the longer the log, the fewer times each goes into the file.
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")


def changed(session: Session, statement: Update | Delete) -> int:
    """Run ``statement``; the number of rows that it changed."""
    options = {"synchronize_session": False}
    return cast(CursorResult[Any], session.execute(statement, execution_options=options)).rowcount


def insert_row(session: Session, model: type[Base], **values: Any) -> None:
    """Insert a row whose object nobody asks for, past the unit of work, which takes several times as long."""
    session.connection().execute(_insertion(model), values)


def insert_rows(session: Session, model: type[Base], rows: Sequence[dict[str, Any]]) -> None:
    """Insert several rows likewise."""
    session.connection().execute(_insertion(model), rows)


def insert_new(session: Session, model: type[Base], **values: Any) -> bool:
    """Insert a row likewise, unless there is one with its key; whether there was none."""
    insertion = _dialect(session).insert(model.__table__).inline().on_conflict_do_nothing()
    return session.connection().execute(insertion, values, execution_options={"preserve_rowcount": True}).rowcount > 0


def insert_object(session: Session, model: type[Stored], **values: Any) -> Stored:
    """Insert a row, likewise; its object as the database has it. The session does not know it."""
    values = _defaults(model) | values
    given = {name: value for name, value in values.items() if value is not None}  # each other one would cost time
    row = session.connection().execute(_returning(model), given).one()
    made = model()
    vars(made).update(values, **row._mapping)  # attribute by attribute, SQLAlchemy would keep what it replaces
    return made


@cache  # to make it takes longer than to run it
def _insertion(model: type[Base]) -> Insert:
    return insert(model.__table__).inline()  # type: ignore[arg-type]  # a declared model's is a table


@cache
def _returning(model: type[Base]) -> ReturningInsert[Any]:
    """An insert that gives back what the database itself fills in."""
    table: Any = model.__table__
    return insert(table).returning(*(column for column in table.c if column.name not in _defaults(model)))


@cache
def _defaults(model: type[Base]) -> dict[str, Any]:
    """What is not the database's to fill in, by column."""
    columns = [column for column in model.__table__.c if column.default is None or column.default.is_scalar]
    return {column.name: getattr(column.default, "arg", None) for column in columns}


def upsert(session: Session, model: type[Base], key: str, **values: Any) -> None:
    """Insert a row, or overwrite the one with the same ``key``; right also when two do it at once."""
    dialect = _dialect(session)
    rest = {column: value for column, value in values.items() if column != key}
    session.execute(dialect.insert(model).values(**values).on_conflict_do_update(index_elements=[key], set_=rest))


def _dialect(session: Session) -> Any:
    return sqlite if session.get_bind().dialect.name == "sqlite" else postgresql


def migrate(url: str) -> None:
    """Bring the schema to its head, and create Optuna's tables, whoever else does so at the same time."""
    from service.store import studies  # Optuna is slow to import, and only this function here needs it

    target = database_url(url)
    # Recreating a SQLite table drops it, which would cascade to the rows that refer to it.
    engine = connect(target, foreign_keys=False)
    try:
        with _alone(engine):
            _use_wal(engine)
            with engine.begin() as connection:
                command.upgrade(alembic_config(connection), "head")
            studies.create_tables(url)
    finally:
        engine.dispose()


def is_migrated(database: Database) -> bool:
    """Whether the schema is at its head."""
    with database.read() as session:
        context = MigrationContext.configure(session.connection(), opts={"version_table": VERSION_TABLE})
        return context.get_current_heads() == (_head(),)


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's settings for this project's revisions, to be run on ``connection``."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "migrations:")
    return config


@cache
def _head() -> str | None:
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """No other process migrates meanwhile."""
    if engine.dialect.name == "sqlite":
        # Not the file itself: closing a second descriptor of it would drop SQLite's own locks.
        folder = os.open(Path(str(engine.url.database)).parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _MIGRATION_LOCK})


def _use_wal(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        return
    # Kept in the file, so once is enough; outside a transaction, and while nobody else does the same.
    with closing(engine.raw_connection()) as connection:
        connection.cursor().execute("PRAGMA journal_mode = WAL")
