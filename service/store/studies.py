"""Optuna's studies, in tables of its own in the same database. A job's study bears the job's id as its name."""

import os
from contextlib import suppress
from functools import lru_cache
from threading import Lock
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy import event

from service.store.database import LOCK_TIMEOUT_S, database_url, write_ahead

REMEMBERED = 100
"""Jobs whose finished trials are held in memory, about 2 kB each."""

_open: dict[tuple[int, str], RDBStorage] = {}
_opening = Lock()  # two that open one at once would leave the connections of the one that is forgotten open


def storage(url: str) -> RDBStorage:
    """The storage of all studies; one a process, because connections do not survive a fork."""
    key = os.getpid(), url
    with _opening:
        if key not in _open:
            _open[key] = _connect(url)
        return _open[key]


@lru_cache(maxsize=REMEMBERED)
def remembering(url: str, job_id: str) -> BaseStorage:
    """The same for one job's study, reading each finished trial once: for those who come back to it call after call."""
    return get_storage(storage(url))


def dispose() -> None:
    """Close the process's idle connections to studies."""
    remembering.cache_clear()
    while _open:
        _open.popitem()[1].engine.dispose()


def create_tables(url: str) -> None:
    """Create Optuna's tables where they are missing."""
    _connect(url).engine.dispose()


def delete(url: str, job_id: str) -> None:
    """Delete the job's study, if it has one."""
    with suppress(KeyError):
        optuna.delete_study(study_name=job_id, storage=storage(url))


def find(url: str, job_id: str) -> optuna.Study | None:
    """The job's study, if it has one."""
    with suppress(KeyError):
        return optuna.load_study(study_name=job_id, storage=remembering(url, job_id))
    return None


def number(url: str, job_id: str) -> int | None:
    """Optuna's own number of the job's study, if it has one."""
    with suppress(KeyError):
        return storage(url).get_study_id_from_name(job_id)
    return None


def _connect(url: str) -> RDBStorage:
    target = database_url(url)
    # Optuna fills in the braces of a URL as if it were a template.
    escaped = target.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    if target.drivername != "sqlite":
        return RDBStorage(escaped, engine_kwargs={"pool_pre_ping": True})
    opened = RDBStorage(escaped, engine_kwargs={"connect_args": {"timeout": LOCK_TIMEOUT_S}})
    event.listen(opened.engine, "connect", _set_pragmas)
    opened.engine.dispose()  # connections from here on are set up
    return opened


def _set_pragmas(connection: Any, _record: Any) -> None:
    write_ahead(connection)
