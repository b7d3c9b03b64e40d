"""The claiming loop: publishes what this worker can train, claims jobs while there is room, drives each on a thread."""

import logging
import os
import socket
import time
import uuid
from collections.abc import Iterable
from threading import Event, Thread
from typing import Any

from service.settings import Settings
from service.store import jobs, workers
from service.store.database import Database
from worker.cluster import LOOK_EVERY_S
from worker.engine import Engine
from worker.errors import OUTAGE
from worker.job import JobDriver
from worker.measures import MEASURES

log = logging.getLogger(__name__)

SEEN_EVERY_S = 5.0
"""How often a worker says that it lives; half a minute of silence counts as gone."""

NOTICED_WITHIN_S = 0.02
"""How long the end of a job may go unnoticed, and its slot idle."""

PATIENCE_S = 3.0
"""A lease is renewed each second. One that has run out is lost once nobody renewed it for so long."""

STOP_WITHIN_S = 6.0
"""How long the jobs under way may take to be handed back: Ray needs the rest of the ten seconds to a kill."""


class Watch:
    """Leases near their end, as one process sees them. A clock that jumps ends them all, and who is alive renews."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._since: dict[tuple[str, int, float | None], float] = {}

    def silent(self, leases: Iterable[tuple[str, int, float | None]]) -> list[str]:
        """Jobs whose lease has not been renewed for as long as patience lasts, by this process's own steady clock."""
        now = time.monotonic()
        self._since = {lease: self._since.get(lease, now) for lease in leases}
        return [job_id for (job_id, *_), since in self._since.items() if now - since >= self.patience_s]


class Worker:
    """One worker process.

    Args:
        settings: of the process.
        database: migrated.
        stopping: set it to hand all jobs back and return from ``work``.
    """

    def __init__(self, settings: Settings, database: Database, stopping: Event) -> None:
        self.settings, self.database, self.stopping = settings, database, stopping
        self.tasks: list[dict[str, Any]] = []  # what it can train, once that is known
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._threads: list[Thread] = []
        self._watch = Watch(min(PATIENCE_S, settings.lease_s / 2))

    def publish(self, slots: dict[str, float]) -> None:
        """Say which tasks this worker can train and how much it has to train them on; nothing: it has no Ray yet."""
        with self.database.begin() as session:
            workers.publish(
                session,
                owner=self.owner,
                host=socket.gethostname(),
                slots=slots,
                tasks=self.tasks,
            )

    def work(self, engine: Engine) -> None:
        """Claim and drive jobs until ``stopping`` is set or the engine's Ray is gone."""
        self.engine = engine
        told = engine.cluster.total()
        self.publish(told)
        seen_at = looked_at = time.monotonic()
        while not self.stopping.is_set() and engine.cluster.loss() is None:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            now = time.monotonic()
            if now - looked_at > LOOK_EVERY_S:
                engine.cluster.look()
                looked_at = now
            try:
                if told != (told := engine.cluster.total()):
                    self.publish(told)
                elif now - seen_at > SEEN_EVERY_S:
                    with self.database.begin() as session:
                        workers.seen(session, self.owner, MEASURES.to_dict())
                    seen_at = now
                if self._has_room() and self._claim():
                    continue
            except OUTAGE as error:
                log.warning("the database does not answer: %s", error)
            self._rest()
        if (loss := engine.cluster.loss()) is not None:
            log.warning("Ray is gone, its jobs are handed back: %s", loss)
        self._leave()

    def _rest(self) -> None:
        """Wait until it is time to look for a job: at once where one has ended."""
        over = time.monotonic() + self.settings.poll_s
        while all(thread.is_alive() for thread in self._threads) and (left := over - time.monotonic()) > 0:
            if self.stopping.wait(min(left, NOTICED_WITHIN_S)):
                return

    def _leave(self) -> None:
        """Let the jobs be handed back, and be forgotten."""
        deadline = time.monotonic() + STOP_WITHIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        try:
            with self.database.begin() as session:
                workers.retire(session, self.owner)
        except OUTAGE as error:
            log.warning("the database does not answer: %s", error)

    def _has_room(self) -> bool:
        """A job for each CPU of the cluster: more would only wait for the others' runs."""
        return len(self._threads) < int(self.engine.cluster.total()["cpus"])

    def _claim(self) -> bool:
        with self.database.begin() as session:
            silent = self._watch.silent(jobs.ending(session, self._watch.patience_s))
            claimed = jobs.claim(
                session,
                owner=self.owner,
                lease_s=self.settings.lease_s,
                running_limit=self.settings.running_limit,
                silent=silent,
            )
            if claimed is None:
                return False
            job, lease = claimed
        driver = JobDriver(
            self.database,
            self.engine,
            job,
            lease,
            settings=self.settings,
            stopping=self.stopping,
        )
        if lease.lost_by is not None:
            MEASURES.lease_lost()
            log.warning(
                "taken over from %s, which fell silent: job=%s",
                lease.lost_by,
                lease.job_id,
                extra={"job": lease.job_id},
            )
        log.info("claimed: job=%s fencing_token=%s", lease.job_id, lease.fencing_token, extra={"job": lease.job_id})
        thread = Thread(target=driver.drive, name=f"job-{lease.job_id}")
        thread.start()
        self._threads.append(thread)
        return True
