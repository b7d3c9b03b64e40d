"""The runs of one claimed job: started on the engine, recorded in the store, each exactly once."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from clr.run import Curve, Plan, Point, Result, Run
from service.store import jobs, runs
from service.store.database import Database
from service.store.jobs import Lease
from worker.checkpoints import Checkpoints
from worker.engine import ATTEMPTS, Bundle, Engine
from worker.errors import Cancelled, HandedBack, LimitReached, LostRun, RunFailed
from worker.measures import MEASURES

log = logging.getLogger(__name__)

WRITE_EVERY_S = 0.5
"""Points wait this long for one transaction: often enough to watch, rare enough for one writer on SQLite."""

Item = tuple[int, Run, dict[str, Any]]
"""A run to carry out: its number within the stage, the run, and what people read of it."""

Prune = Callable[[int, Sequence[tuple[int, float]]], bool]
"""Whether the run of that number is worth no more steps, by its (step, metric) so far."""


@dataclass
class _Flight:
    """A run under way."""

    stage: str
    number: int
    run: Run
    params: dict[str, Any]
    attempt: int
    stream: Any
    points: list[Point] = field(default_factory=list)
    unwritten: list[dict[str, Any]] = field(default_factory=list)
    pruned: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def curve(self) -> Curve:
        """All that the run recorded; nothing, and so without a value, once it was pruned."""
        return Curve() if self.pruned else Curve.of(self.points)

    @property
    def metrics(self) -> list[tuple[int, float]]:
        return [(point.step, point.metric) for point in self.points if point.metric is not None]

    @property
    def steps(self) -> int:
        return self.points[-1].step if self.points else 0

    @property
    def identity(self) -> dict[str, Any]:
        return {"stage": self.stage, "number": self.number, "attempt": self.attempt}


class Runs:
    """Starts, follows and records the runs of one job, within its limits and as long as the lease holds.

    Args:
        database, engine: where to write, where to run.
        lease: this worker's hold on the job; every write checks it.
        lease_s: how long a renewal lasts.
        stopping: set when this worker shuts down.
        trainee: task, args, optimizer and batch size, as plain values.
        resources: of one run.
        spent: steps the job has cost already.
        max_steps, deadline: hard limits; the deadline is in ``time.monotonic`` seconds.
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
        trainee: dict[str, Any],
        resources: dict[str, Any],
        spent: int,
        max_steps: int | None,
        deadline: float | None,
        checkpoints: Checkpoints,
    ) -> None:
        self.database, self.engine, self.lease, self.lease_s = database, engine, lease, lease_s
        self.stopping, self.trainee, self.resources = stopping, trainee, resources
        self.spent, self.max_steps, self.deadline = spent, max_steps, deadline
        self.checkpoints, self.predicted_steps = checkpoints, 1
        self.bundle: Bundle | None = None
        self._flights: dict[Any, _Flight] = {}
        self._renewed = self._written = 0.0

    def affords(self, steps: int) -> bool:
        """Whether ``steps`` more fit into ``max_steps`` beside what is spent and under way."""
        flying = sum(flight.run.steps - flight.steps for flight in self._flights.values())
        return self.max_steps is None or self.spent + flying + steps <= self.max_steps

    def follow(self, stage: str, plan: Plan[Result]) -> Result:
        """Carry out a plan to its finding; runs that the store holds are read back, not run again."""
        with self.database.read() as session:
            done = [row.number for row in runs.finished(session, self.lease.job_id, stage)]
            points = runs.points(session, self.lease.job_id, stage, done)
        curves = {number: Curve.of(map(Point.from_dict, points.get(number, []))) for number in done}
        sent, offset = None, 0
        while True:
            try:
                batch = plan.send(sent)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as stop:
                finding: Result = stop.value
                return finding
            numbers = range(offset, offset + len(batch))
            todo = [
                (number, run, {"policy": run.policy, "max_lr": run.max_lr, "seed": run.seed})
                for number, run in zip(numbers, batch, strict=True)
                if number not in curves
            ]
            curves.update(self.carry_out(stage, todo))
            sent, offset = [curves[number] for number in numbers], offset + len(batch)

    def carry_out(self, stage: str, queue: Iterable[Item], prune: Prune | None = None) -> Iterator[tuple[int, Curve]]:
        """Number and curve of each run of ``queue`` as it ends; the next is taken whenever a slot is free.

        Args:
            stage, queue: what to run.
            prune: asked at every metric of a run; a run that it ends has an empty curve.

        Raises:
            Stop: there is a reason to stop; see ``worker.errors``. What was under way when ``max_steps`` struck has
                ended by then; for any other reason ``drop`` it.
            LeaseLost: another worker has taken the job over.
        """
        items, limit = iter(queue), None
        more = True
        while more or self._flights:
            while more and self._has_room():
                item = next(items, None)
                if item is not None and not self.affords(item[1].steps):
                    item, limit = None, LimitReached(f"limits.max_steps = {self.max_steps}")
                if item is None:
                    more = False
                else:
                    self._start(stage, *item)
            if self._flights:
                yield from self._ended(prune)
        if limit is not None:
            raise limit

    def check(self) -> None:
        """Renew the lease when it is time to, and raise the reason to stop if there is one."""
        now = time.monotonic()
        if self.stopping.is_set():
            raise HandedBack
        if self.deadline is not None and now > self.deadline:
            raise LimitReached("limits.max_seconds")
        if now - self._renewed > min(1.0, self.lease_s / 4):
            with self.database.begin() as session:
                cancelled = jobs.renew(session, self.lease, lease_s=self.lease_s)
            self._renewed = now
            if cancelled:
                raise Cancelled

    def drop(self) -> None:
        """Cancel whatever is under way, and return once it has ended."""
        self.engine.cancel(list(self._flights))
        self._flights.clear()

    def _has_room(self) -> bool:
        return len(self._flights) < max(1, self.engine.slots(self.resources))

    def _start(self, stage: str, number: int, run: Run, params: dict[str, Any]) -> None:
        values = run.to_dict()
        with self.database.begin() as session:
            attempt = runs.start(session, self.lease, stage=stage, number=number, params=params, run=values)
        checkpoint = self.checkpoints.of(stage, number)
        stream = self.engine.stream(self.trainee, self.bundle, values, attempt, self.resources, checkpoint)
        self._flights[stream] = _Flight(stage, number, run, params, attempt, stream)

    def _ended(self, prune: Prune | None) -> Iterator[tuple[int, Curve]]:
        """Wait a moment for points; write what is new; number and curve of each run that has ended."""
        self.check()
        ready = self.engine.ready(list(self._flights), timeout_s=WRITE_EVERY_S / 2)
        ended = [flight for stream in ready if self._has_ended(flight := self._flights[stream], prune)]
        if ended or time.monotonic() - self._written > WRITE_EVERY_S:
            self._write(ended)
        for flight in ended:
            del self._flights[flight.stream]
            yield flight.number, flight.curve

    def _has_ended(self, flight: _Flight, prune: Prune | None) -> bool:
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
        if attempt == flight.attempt:
            flight.points.append(Point.from_dict(data))
            flight.unwritten.append(data)
            self.spent += 0 if restored else len(data["loss"])
            if prune is not None and 0 < flight.steps < flight.run.steps and data["metric"] is not None:
                flight.pruned = prune(
                    flight.number, [(p.step, p.metric) for p in flight.points if p.metric is not None]
                )
        if flight.pruned:
            self.engine.cancel([flight.stream])
        return flight.pruned

    def _start_over(self, flight: _Flight, error: LostRun) -> None:
        """A run whose process or node was lost begins again, as a new attempt, from its checkpoint if it has one."""
        log.warning("run lost: job=%s %s: %s", self.lease.job_id, flight.identity, error)
        del self._flights[flight.stream]
        if flight.attempt >= ATTEMPTS:
            message = f"{flight.stage} run {flight.number} was lost {flight.attempt} times, last by: {error}"
            self._fail(flight, message)
            raise RunFailed(message)
        self._start(flight.stage, flight.number, flight.run, flight.params)

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

    def _write(self, ended: list[_Flight]) -> None:
        """One transaction for all that is new: points, ends, progress."""
        new = [flight for flight in self._flights.values() if flight.unwritten]
        if not (new or ended):
            return
        with self.database.begin() as session:
            for flight in new:
                runs.append(session, self.lease, **flight.identity, points=flight.unwritten)
                flight.unwritten = []
            for flight in ended:
                value = flight.curve.value
                state = "pruned" if value is None and flight.stage == "search" else "complete"
                runs.finish(session, self.lease, **flight.identity, state=state, value=value, steps=flight.steps)
            stage = next(iter(self._flights.values())).stage
            share = min(0.99, self.spent / self.predicted_steps)
            jobs.progress(session, self.lease, stage=stage, progress=share, steps=self.spent)
        self._written = time.monotonic()
        for flight in ended:
            MEASURES.run_ended(flight.stage, self._written - flight.began)
