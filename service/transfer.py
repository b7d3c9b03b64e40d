"""Moves jobs between databases as JSON lines, with all that belongs to them. The format is in docs/operations.md."""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import chain, groupby, islice
from typing import Any

from sqlalchemy import Table, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.store import audit, jobs, studies, study_documents
from service.store.columns import Instant
from service.store.database import Database
from service.store.errors import Conflict, NotFound, StoreError
from service.store.models import EventRow, Job, NoticeRow, PointsRow, RecommendationRow, RunRow

VERSION = 1
BATCH = 500
"""Rows that are written at once."""

TABLES: dict[str, Table] = {
    kind: model.__table__  # type: ignore[misc]
    for kind, model in {
        "job": Job,
        "run": RunRow,
        "points": PointsRow,
        "event": EventRow,
        "recommendation": RecommendationRow,
        "notice": NoticeRow,
    }.items()
}
"""Kinds of lines that are rows, in the order in which rows refer to one another."""

OWN = {"event": {"id"}}
"""Columns that each database fills by itself."""

RENAMED = {"epoch": "fencing_token"}
"""Columns that had other names when 0.1.0 wrote its exports."""

Line = tuple[str, Any]


def export(database: Database, ids: Iterable[str]) -> Iterator[str]:
    """Lines of the jobs, each job as it is at one moment."""
    yield _written("clr-export", {"version": VERSION})
    for job_id in ids:
        yield from (_written(kind, document) for kind, document in _lines(database, job_id))


def movable(database: Database) -> Iterator[str]:
    """Ids of all jobs that nobody works on."""
    last = ""
    query = select(Job.id).where(Job.state != "running").order_by(Job.id).limit(BATCH)
    while True:
        with database.read() as session:
            found = list(session.scalars(query.where(Job.id > last)))
        if not found:
            return
        yield from found
        last = found[-1]


def running(database: Database) -> int:
    """How many jobs cannot be moved at present."""
    with database.read() as session:
        return jobs.unfinished(session)["running"]


def take_in(database: Database, lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Store exported jobs, each in one transaction; its id, and whether it was not there before."""
    parsed = _parsed(lines)
    if next(parsed, None) != ("clr-export", {"version": VERSION}):
        raise StoreError(f'line 1: must be {{"clr-export": {{"version": {VERSION}}}}}, the head of a clr export')
    for kind, job in parsed:
        if kind != "job":
            raise StoreError(f"a job must begin with a line of kind job, but this is a {kind}")
        rest = _until_end(parsed, job["id"])
        with database.read() as session:
            known = session.get(Job, job["id"]) is not None
        if known:
            with suppress(_Unfinished):
                deque(rest, maxlen=0)
            yield job["id"], False
        elif _store(database, job, rest):
            yield job["id"], True


def _lines(database: Database, job_id: str) -> Iterator[Line]:
    with database.read() as session:
        if database.url.startswith("postgresql"):  # SQLite reads all of a transaction at one moment anyway
            session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        job = session.get(Job, job_id)
        if job is None:
            raise NotFound(f"no job has the id {job_id!r}")
        if job.state == "running":
            raise Conflict(f"job {job_id} is running: wait for its end, or stop its worker, which hands it back")
        kinds = iter(TABLES)
        yield from _rows(session, next(kinds), job_id)
        document = study_documents.study(database.url, job_id)
        if document is not None:
            yield "study", document
            yield from (("trial", trial) for trial in study_documents.trials(database.url, job_id))
        for kind in kinds:
            yield from _rows(session, kind, job_id)
    with database.read() as session:  # claimed meanwhile, its study may be ahead of the rows
        token = session.scalar(select(Job.fencing_token).where(Job.id == job_id))
        yield "end", {"id": job_id, "complete": token == job.fencing_token}


def _rows(session: Session, kind: str, job_id: str) -> Iterator[Line]:
    table = TABLES[kind]
    columns = [column for column in table.columns if column.name not in OWN.get(kind, ())]
    query = select(*columns).where(table.c["id" if kind == "job" else "job_id"] == job_id)
    for row in session.execute(query.order_by(*table.primary_key), execution_options={"yield_per": BATCH}).mappings():
        yield kind, {name: _plain(value) for name, value in row.items()}


def _store(database: Database, job: dict[str, Any], rest: Iterator[Line]) -> bool:
    """Store one job; False when the export left it unfinished.

    Study first: Optuna writes on a connection of its own, which a transaction here would keep waiting.
    """
    url, job_id = database.url, job["id"]
    studies.delete(url, job_id)  # of an import that was interrupted
    try:
        rows = _study_stored(url, job_id, rest)
        with database.begin() as session:
            _insert(session, "job", iter([job]))
            for kind, lines in groupby(rows, key=lambda line: line[0]):
                _insert(session, kind, (document for _, document in lines))
            audit.record(session, None, "import", job_id=job_id)
    except BaseException as error:
        studies.delete(url, job_id)
        if isinstance(error, _Unfinished):
            return False
        if isinstance(error, IntegrityError):
            raise Conflict(f"job {job_id} does not go together with what is here: {error.orig}") from error
        if isinstance(error, KeyError | TypeError | ValueError):
            raise StoreError(f"job {job_id}: a line lacks something or holds another kind of it: {error!r}") from error
        raise
    return True


def _study_stored(url: str, job_id: str, lines: Iterator[Line]) -> Iterator[Line]:
    """Store the study that comes first, if any; the lines after it."""
    number = None
    for kind, document in lines:
        if kind == "study":
            number = study_documents.restore(url, job_id, document)
        elif kind == "trial" and number is not None:
            study_documents.restore_trial(url, number, document)
        else:
            return chain([(kind, document)], lines)
    return lines


def _insert(session: Session, kind: str, documents: Iterator[dict[str, Any]]) -> None:
    table = TABLES.get(kind)
    if table is None:
        raise StoreError(f"a line must be of kind {', '.join(TABLES)}, study, trial or end, but one is of {kind!r}")
    while batch := [_values(table, document) for document in islice(documents, BATCH)]:
        session.execute(insert(table), batch)


def _values(table: Table, document: dict[str, Any]) -> dict[str, Any]:
    document = {RENAMED.get(name, name): value for name, value in document.items()}
    if unknown := document.keys() - table.columns.keys():
        raise StoreError(f"{', '.join(sorted(unknown))}: unknown here; the export is of a newer version than this one")
    return {
        name: datetime.fromisoformat(value) if value is not None and _is_instant(table, name) else value
        for name, value in document.items()
    }


def _is_instant(table: Table, name: str) -> bool:
    return isinstance(table.columns[name].type, Instant)


def _until_end(lines: Iterator[Line], job_id: str) -> Iterator[Line]:
    for kind, document in lines:
        if kind == "end":
            if not document["complete"]:
                raise _Unfinished
            return
        yield kind, document
    raise StoreError(f"the export ends in the middle of job {job_id}: that job is not stored, those before it are")


def _parsed(lines: Iterable[str]) -> Iterator[Line]:
    for number, line in enumerate(lines, 1):
        try:
            ((kind, document),) = json.loads(line).items()
        except (ValueError, AttributeError):
            raise StoreError(f"line {number}: must be a JSON object of one kind, but got {line[:60]!r}") from None
        yield kind, document


def _written(kind: str, document: dict[str, Any]) -> str:
    return json.dumps({kind: document}, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


class _Unfinished(Exception):
    """The job was claimed while it was exported."""
