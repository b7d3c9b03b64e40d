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

SHOW_EVERY_S = 1.0
"""Trials that begin and end within so long are shown to Optuna's dashboard once."""

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

    def take(self) -> dict[str, Any]:
        """What is to be written of it: ``points``, and how many of their steps were ``restored``."""
        taken = {"points": self.unwritten, "restored": self.restored}
        self.unwritten, self.restored = [], 0
        return taken


class Runs:
    """Starts, follows and records the runs of one job, within its limits and as long as the lease holds.

    Args:
        database, engine: where to write, where to run.
        lease: this worker's hold on the job; every write checks it.
        lease_s: how long a renewal lasts.
        stopping: set when this worker shuts down.
        trainee: task, args, optimizer and batch size, as plain values.
        worked_s: seconds that earlier workers had the job.
        max_seconds: hard limit of these and its own.
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
        worked_s: float,
        max_seconds: float | None,
        checkpoints: Checkpoints,
    ) -> None:
        self.database, self.engine, self.lease, self.lease_s = database, engine, lease, lease_s
        self.stopping, self.trainee = stopping, trainee
        self.max_seconds, self.checkpoints = max_seconds, checkpoints
        self._began = time.monotonic() - worked_s
        self.resources: Resources  # of one run, once there is a node that holds it
        self.bundle: Bundle | None = None
        self._flights: dict[Stream, _Flight] = {}
        self._renewed = self._written = self._shown = 0.0
        self._over = self._unshown = False
        self._said: dict[str, Any] | None = None
        self._range_test_is_told = False

    def carry_out(self, session: Session, mirror: StudyMirror) -> None:
        """Train what the session orders until it is over; its next run is taken whenever a slot is free.

        Raises:
            Stop: there is a reason to stop that is not one of the job's own limits; ``drop`` what is under way then.
            LeaseLost: another worker has taken the job over.
        """
        self.session, self.mirror = session, mirror
        while not self._over or self._flights:
            try:
                ended = self._go_on() if self._flights else []
                told = [session.end(*flight.place) for flight in ended]
                news = self._news() if ended else None
                self._write(ended, told, news, self._orders(len(ended)))
                self._show_study()
                if not (self._flights or self._over):  # no node has room for a single run: nodes come back
                    pause(self.check)
            except LimitReached as limit:
                session.limit(str(limit))
                self.drop()
                with self.database.begin() as transaction:  # of points that came since the last writing too
                    tell_progress(transaction, self.lease, session, session.stage or "search")
                break
            except (Cancelled, RunFailed):
                self.drop()
                self._show_study(over=True)
                raise
        self._publish()

    @property
    def seconds(self) -> float:
        """That workers have had the job: no clock that is set, and no wait for a worker, counts."""
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
                cancelled = jobs.renew(session, self.lease, lease_s=self.lease_s, worked_s=self.seconds)
            self._renewed = now
            if cancelled:
                raise Cancelled

    def drop(self) -> None:
        """Cancel whatever is under way, and return once it has ended."""
        streams = list(self._flights)
        self._flights.clear()
        with suppress(RayError):  # what cannot be cancelled has ended, with its machine
            self.engine.cancel(streams)

    def _orders(self, free: int) -> list[Order]:
        """Runs to begin, as many as there is room for where ``free`` of those under way have ended."""
        orders: list[Order] = []
        while not self._over and len(self._flights) - free + len(orders) < self.engine.cluster.slots(self.resources):
            order = self.session.next()
            if isinstance(order, Waiting):
                break
            if isinstance(order, Order):
                orders.append(order)
            else:
                self._over = True
        return orders

    def _begin(self, transaction: Transaction, order: Order) -> int:
        place: dict[str, Any] = {"stage": order.stage, "number": order.number}
        return runs.start(transaction, self.lease, **place, params=order.params, run=order.run.to_dict())

    def _launch(self, order: Order, attempt: int) -> None:
        about: RunName = {"stage": order.stage, "number": order.number, "attempt": attempt}
        checkpoint = self.checkpoints.of(order.stage, order.number)
        run = order.run.to_dict()
        stream = self.engine.stream(self.trainee, self.bundle, run, about, self.resources, checkpoint)
        self._flights[stream] = _Flight(order, attempt, stream)

    def _go_on(self) -> list[_Flight]:
        """Wait a moment for points; the runs that have ended."""
        self.check()
        ready = self.engine.ready(list(self._flights), timeout_s=WRITE_EVERY_S / 2)
        return [flight for stream in ready if self._has_ended(flight := self._flights[stream])]

    def _has_ended(self, flight: _Flight) -> bool:
        """Take the next points of a run; whether there are no more, or none worth waiting for."""
        try:
            attempt, points = self.engine.next(flight.stream)
        except StopIteration:
            return True
        except LostRun as error:
            self._start_over(flight, error)
            return False
        except RunFailed as error:
            self._fail(flight, str(error))
            raise
        stop = attempt == flight.attempt and any(self._hear(flight, *point) for point in points)
        if stop:
            self.engine.cancel([flight.stream])
        return stop

    def _hear(self, flight: _Flight, restored: bool, data: dict[str, Any]) -> bool:
        """Take a point; whether the run is worth no more of them."""
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
        self._write([], [], None, [self.session.hand_out_again(*flight.place)])

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

    def _write(
        self, ended: list[_Flight], told: list[ToldRun], news: dict[str, Any] | None, orders: list[Order]
    ) -> None:
        """One transaction for all that is new: progress, points, ends, runs that begin. Points alone wait a moment."""
        if not (ended or orders or time.monotonic() - self._written > WRITE_EVERY_S):
            return
        self._written = time.monotonic()
        flights = list(self._flights.values())
        new = [flight for flight in flights if flight.unwritten and flight not in ended]
        if not (new or ended or orders):
            return
        with self.database.begin() as session:
            tell_progress(session, self.lease, self.session, (orders or [flight.order for flight in flights])[0].stage)
            for flight in new:
                runs.append(session, self.lease, **flight.identity, **flight.take())
            for flight, one in zip(ended, told, strict=True):
                end: dict[str, Any] = {"state": one.state, "value": one.value, "steps": one.steps}
                runs.finish(session, self.lease, **flight.identity, **end, **flight.take())
            attempts = [self._begin(session, order) for order in orders]
            if news is not None:
                self._recommend(session, news)
        for flight in ended:
            del self._flights[flight.stream]
            MEASURES.run_ended(flight.order.stage, self._written - flight.began)
        for order, attempt in zip(orders, attempts, strict=True):
            self._launch(order, attempt)
        self._unshown |= bool(ended or orders)

    def _publish(self) -> None:
        """Store what the session says at its end."""
        if (news := self._news(over=True)) is not None:
            with self.database.begin() as session:
                self._recommend(session, news)
        self._show_study(over=True)

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

    def _show_study(self, *, over: bool = False) -> None:
        """Show what has changed in the study, now and then: a trial costs Optuna's store as much as ten short runs."""
        study, now = self.session.study, time.monotonic()
        if study is not None and (over or (self._unshown and now - self._shown > SHOW_EVERY_S)):
            self.mirror.show(study, over=over)
            self._unshown, self._shown = False, now
