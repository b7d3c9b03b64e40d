"""The runs of one claimed job: started on the engine, recorded in the store, each exactly once."""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from ray.exceptions import RayError
from sqlalchemy.orm import Session as Transaction

from clr.run import Point
from clr.trials.study import StudyMirror
from clr.tuning.orders import Order, Stage, ToldRun, Waiting
from clr.tuning.session import Session
from service.store import jobs, recommendations, runs
from service.store.database import Database
from service.store.jobs import Lease
from service.store.sessions import tell_progress
from worker.checkpoints import Checkpoints
from worker.cluster import Resources
from worker.engine import ATTEMPTS, Engine, Stream, pause
from worker.errors import Cancelled, HandedBack, LimitReached, LostProcess, LostRun, RunFailed
from worker.measures import MEASURES
from worker.remote import Bundle, RunName, Trainee

log = logging.getLogger(__name__)

WRITE_EVERY_S = 0.5
"""Points wait this long for one transaction: often enough to watch, rare enough for one writer on SQLite."""


@dataclass
class _Flight:
    """A run under way."""

    order: Order
    attempt: int
    stream: Stream
    unwritten: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    restored: int = 0  # of these, how many were read back and are not written yet
    began: float = field(default_factory=time.monotonic)

    @property
    def place(self) -> tuple[Stage, int]:
        return self.order.stage, self.order.number

    @property
    def identity(self) -> dict[str, Any]:
        return {"stage": self.order.stage, "number": self.order.number, "attempt": self.attempt}


class Runs:
    """Starts, follows and records the runs of one job, within its limits and as long as the lease holds.

    Args:
        database, engine: where to write, where to run.
        lease: this worker's hold on the job; every write checks it.
        lease_s: how long a renewal lasts.
        stopping: set when this worker shuts down.
        trainee: task, args, optimizer and batch size, as plain values.
        elapsed_s: seconds since the job was started.
        max_seconds: hard limit from its start on.
        checkpoints: where its runs save how they stand.
    """

    def __init__(
        self,
        database: Database,
        engine: Engine,
        lease: Lease,
        *,
        lease_s: float,
        stopping: Event,
        trainee: Trainee,
        elapsed_s: float,
        max_seconds: float | None,
        checkpoints: Checkpoints,
    ) -> None:
        self.database, self.engine, self.lease, self.lease_s = database, engine, lease, lease_s
        self.stopping, self.trainee = stopping, trainee
        self.max_seconds, self.checkpoints = max_seconds, checkpoints
        self._began = time.monotonic() - elapsed_s
        self.resources: Resources  # of one run, once there is a node that holds it
        self.bundle: Bundle | None = None
        self._flights: dict[Stream, _Flight] = {}
        self._renewed = self._written = 0.0
        self._said: dict[str, Any] | None = None
        self._range_test_is_told = False
        self._stage: Stage | None = None

    def carry_out(self, session: Session, mirror: StudyMirror) -> None:
        """Train what the session orders until it is over; its next run is taken whenever a slot is free.

        Raises:
            Stop: there is a reason to stop that is not one of the job's own limits; ``drop`` what is under way then.
            LeaseLost: another worker has taken the job over.
        """
        self.session, self.mirror = session, mirror
        over = False
        while not over or self._flights:
            orders: list[Order] = []
            while not over and self._has_room(len(orders)) and not isinstance(order := session.next(), Waiting):
                if isinstance(order, Order):
                    orders.append(order)
                else:
                    over = True
            if orders:
                self._start(orders)
            try:
                if self._flights:
                    self._go_on()
                elif not over:  # no node has room for a single run: nodes come back
                    pause(self.check)
            except LimitReached as limit:
                session.limit(str(limit))
                self.drop()
                break
            except (Cancelled, RunFailed):
                self.drop()
                self._show_study("search", over=True)
                raise
        self._publish()

    @property
    def seconds(self) -> float:
        """Since the job was started."""
        return time.monotonic() - self._began

    def check(self) -> None:
        """Renew the lease when it is time to, and raise the reason to stop if there is one."""
        now = time.monotonic()
        if self.stopping.is_set():
            raise HandedBack("the worker stops")
        self.engine.check()
        if self.max_seconds is not None and self.seconds > self.max_seconds:
            raise LimitReached(f"limits.max_seconds = {self.max_seconds:g}")
        if now - self._renewed > min(1.0, self.lease_s / 4):
            with self.database.begin() as session:
                cancelled = jobs.renew(session, self.lease, lease_s=self.lease_s)
            self._renewed = now
            if cancelled:
                raise Cancelled

    def drop(self) -> None:
        """Cancel whatever is under way, and return once it has ended."""
        streams = list(self._flights)
        self._flights.clear()
        with suppress(RayError):  # what cannot be cancelled has ended, with its machine
            self.engine.cancel(streams)

    def _has_room(self, more: int) -> bool:
        return len(self._flights) + more < self.engine.cluster.slots(self.resources)

    def _start(self, orders: list[Order]) -> None:
        """Begin runs, in one transaction for all."""
        stage = orders[-1].stage
        with self.database.begin() as session:
            attempts = [self._begin(session, order) for order in orders]
            if stage != self._stage:
                self._tell_progress(session, stage)
        for order, attempt in zip(orders, attempts, strict=True):
            checkpoint = self.checkpoints.of(order.stage, order.number)
            about: RunName = {"stage": order.stage, "number": order.number, "attempt": attempt}
            run = order.run.to_dict()
            stream = self.engine.stream(self.trainee, self.bundle, run, about, self.resources, checkpoint)
            self._flights[stream] = _Flight(order, attempt, stream)
        self._show_study(stage)

    def _begin(self, transaction: Transaction, order: Order) -> int:
        place: dict[str, Any] = {"stage": order.stage, "number": order.number}
        return runs.start(transaction, self.lease, **place, params=order.params, run=order.run.to_dict())

    def _go_on(self) -> None:
        """Wait a moment for points; write what is new, and what follows from the runs that have ended."""
        self.check()
        ready = self.engine.ready(list(self._flights), timeout_s=WRITE_EVERY_S / 2)
        ended = [flight for stream in ready if self._has_ended(flight := self._flights[stream])]
        if not ended and time.monotonic() - self._written <= WRITE_EVERY_S:
            return
        told = [self.session.end(*flight.place) for flight in ended]
        self._write(ended, told)
        for flight in ended:
            del self._flights[flight.stream]
            MEASURES.run_ended(flight.order.stage, self._written - flight.began)
        if ended:
            self._show_study(ended[-1].order.stage)

    def _has_ended(self, flight: _Flight) -> bool:
        """Take the next point of a run; whether there are no more, or none worth waiting for."""
        try:
            attempt, restored, data = self.engine.next(flight.stream)
        except StopIteration:
            return True
        except LostRun as error:
            self._start_over(flight, error)
            return False
        except RunFailed as error:
            self._fail(flight, str(error))
            raise
        if attempt != flight.attempt:
            return False
        point = Point.from_dict(data)
        flight.unwritten.append(data)
        if restored:
            flight.restored += point.step - flight.steps
        else:
            MEASURES.steps_taken(flight.order.stage, point.step - flight.steps)
        flight.steps = point.step
        stop = self.session.hear(*flight.place, [point], restored=restored).stop
        if self.session.reached is not None:
            raise LimitReached(self.session.reached)
        if stop:
            self.engine.cancel([flight.stream])
        return stop

    def _start_over(self, flight: _Flight, error: LostRun) -> None:
        """A run that was lost begins again, as a new attempt, from its checkpoint if it has one.

        What its own process did counts against it, over all its attempts; what machines did does not.
        """
        log.warning("run lost: job=%s %s: %s", self.lease.job_id, flight.identity, error)
        del self._flights[flight.stream]
        self.engine.check()  # with the raylet its processes end too
        if isinstance(error, LostProcess):
            with self.database.begin() as session:
                losses = runs.lose(session, self.lease, **flight.identity)
            if losses >= ATTEMPTS:
                message = f"{flight.order.stage} run {flight.order.number} was lost {losses} times, last by: {error}"
                self._fail(flight, message)
                raise RunFailed(message)
        else:
            pause(self.check)
        self._start([self.session.hand_out_again(*flight.place)])

    def _fail(self, flight: _Flight, error: str) -> None:
        self._flights.pop(flight.stream, None)
        with self.database.begin() as session:
            runs.finish(
                session,
                self.lease,
                **flight.identity,
                state="failed",
                value=None,
                steps=flight.steps,
                error=error,
            )

    def _write(self, ended: list[_Flight], told: list[ToldRun]) -> None:
        """One transaction for all that is new: points, ends, progress."""
        new = [flight for flight in self._flights.values() if flight.unwritten]
        self._written = time.monotonic()
        if not (new or ended):
            return
        news = self._news() if ended else None
        with self.database.begin() as session:
            for flight in new:
                some, restored = flight.unwritten, flight.restored
                runs.append(session, self.lease, **flight.identity, points=some, restored=restored)
                flight.unwritten, flight.restored = [], 0
            for flight, one in zip(ended, told, strict=True):
                runs.finish(session, self.lease, **flight.identity, state=one.state, value=one.value, steps=one.steps)
            self._tell_progress(session, next(iter(self._flights.values())).order.stage)
            if news is not None:
                self._recommend(session, news)

    def _tell_progress(self, transaction: Transaction, stage: Stage) -> None:
        tell_progress(transaction, self.lease, self.session, stage)
        self._stage = stage

    def _publish(self) -> None:
        """Store what the session says at its end."""
        if (news := self._news(over=True)) is not None:
            with self.database.begin() as session:
                self._recommend(session, news)
        self._show_study("search", over=True)

    def _news(self, *, over: bool = False) -> dict[str, Any] | None:
        """What the session recommends now, where that is new, or its last word."""
        self.session.seconds = self.seconds
        found = self.session.recommendation
        if found is None:
            return None
        document = found.to_dict()
        said = {name: value for name, value in document.items() if name != "cost"}
        before, self._said = self._said, said
        return document if over or said != before else None

    def _recommend(self, transaction: Transaction, document: dict[str, Any]) -> None:
        if self.session.range_test is not None and not self._range_test_is_told:
            jobs.set_range_test(transaction, self.lease, self.session.range_test.to_dict())
            self._range_test_is_told = True
        optimizer = recommendations.optimizer_of(self.session.trained_with)
        recommendations.put(transaction, self.lease, document, task=self.session.spec.task, optimizer=optimizer)

    def _show_study(self, stage: str, *, over: bool = False) -> None:
        if stage == "search" and self.session.study is not None:
            self.mirror.show(self.session.study, over=over)
