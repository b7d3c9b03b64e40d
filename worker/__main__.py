"""Run a worker: ``python -m worker``, which is what ``clr worker`` does."""

import gc
import logging
import os
import signal
import sys
from contextlib import suppress
from threading import Event

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
        worker.publish({})  # jobs can be accepted while Ray starts
        sweep(settings.checkpoints)
        if (cluster := _cluster(settings, worker)) is not None:
            engine = Engine(cluster, "~/.clr/code" if settings.ray_address else str(settings.home / "code"))
            engine.warm()
            gc.freeze()  # what was imported stays: no collection need look at it again
            worker.work(engine)
            if cluster.loss() is None:
                cluster.stop()
    finally:
        database.dispose()
    if not stopping.is_set():
        _begin_anew()
    return 0


def _cluster(settings: Settings, worker: Worker) -> Cluster | None:
    """Ray, as soon as it is there; None when that was not to be, and this process is of no more use for it."""
    try:
        return Cluster(settings.ray_address, settings.home, settings.cpus, settings.task_env)
    except SystemExit:  # Ray's answer to SIGTERM
        worker.stopping.set()
    except Exception as error:
        log.warning("there is no Ray, trying again in %g s: %s: %s", START_AGAIN_S, type(error).__name__, error)
        worker.stopping.wait(START_AGAIN_S)
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
