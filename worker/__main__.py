"""Run a worker: ``python -m worker``, which is what ``clr worker`` does."""

import gc
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any

import optuna
import psutil

from service import logs
from service.settings import Settings
from service.store.database import Database, is_migrated
from worker.checkpoints import sweep
from worker.cluster import Cluster
from worker.engine import Engine
from worker.loop import Worker

log = logging.getLogger(__name__)

START_AGAIN_S = 5.0
"""Between two tries to start Ray, or to reach the cluster."""

ENDED_WITHIN_S = 5.0
"""How long what is killed of a Ray may take to be gone."""


def main() -> int:
    """Work until SIGTERM or SIGINT; 0 when every job was handed back. Without its Ray the process begins anew."""
    settings = Settings()
    logs.configure(settings)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    database = Database(settings.database_url)
    try:
        if not is_migrated(database):
            print("error: the database is not migrated; run `clr migrate`", file=sys.stderr)
            return 1
        worker = Worker(settings, database, stopping)
        sweep(settings.checkpoints)
        with _describing() as tasks:  # while Ray starts
            cluster = _cluster(settings, stopping)
            worker.tasks = tasks()
        if cluster is not None:
            engine = Engine(cluster, "~/.clr/code" if settings.ray_address else str(settings.home / "code"))
            engine.warm()
            gc.freeze()  # what was imported stays: no collection need look at it again
            worker.work(engine)
            if cluster.loss() is None:
                cluster.stop()
        elif not stopping.is_set():
            worker.publish({})  # jobs can be checked meanwhile
            stopping.wait(START_AGAIN_S)
    finally:
        database.dispose()
    if not stopping.is_set():
        _begin_anew()
    return 0


@contextmanager
def _describing() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Another process finds out which tasks there are to train, and what is given back waits for it.

    It takes some seconds: torch comes with them, and this process needs none.
    """
    command = [sys.executable, "-P", "-m", "worker.probe", "tasks"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:

        def tasks() -> list[dict[str, Any]]:
            told, _ = process.communicate()
            if process.returncode != 0:
                raise subprocess.CalledProcessError(process.returncode, command)
            described: list[dict[str, Any]] = json.loads(told)
            return described

        yield tasks


def _cluster(settings: Settings, stopping: Event) -> Cluster | None:
    """Ray, as soon as it is there; None when that was not to be, and this process is of no more use for it."""
    try:
        return Cluster(settings.ray_address, settings.home, settings.cpus, settings.task_env)
    except SystemExit:  # Ray's answer to SIGTERM
        stopping.set()
    except Exception as error:
        log.warning("there is no Ray, trying again in %g s: %s: %s", START_AGAIN_S, type(error).__name__, error)
    return None


def _begin_anew() -> None:
    """Become a new process in the place of this one: of a Ray that is gone threads stay, and one of them ends it."""
    log.warning("the worker begins anew")
    family = psutil.Process().children(recursive=True)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=ENDED_WITHIN_S)  # and be told so, lest they stay as zombies
    os.execv(sys.executable, sys.orig_argv)


if __name__ == "__main__":
    sys.exit(main())
