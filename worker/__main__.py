"""Run a worker: ``python -m worker``, which is what ``clr worker`` does."""

import signal
import sys
from threading import Event

import optuna

from service import logs
from service.settings import Settings
from service.store.database import Database, is_migrated
from worker.checkpoints import sweep
from worker.engine import Engine
from worker.loop import Worker


def main() -> int:
    """Work until SIGTERM or SIGINT; 0 when every job was handed back."""
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
        engine = Engine(settings.ray_address, settings.home, settings.cpus, settings.task_env)
        try:
            engine.warm()
            worker.work(engine)
        finally:
            engine.stop()
    finally:
        database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
