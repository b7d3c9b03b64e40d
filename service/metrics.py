"""What Prometheus reads: this process's HTTP requests, and what the store tells of jobs and workers."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.store import jobs, workers
from service.store.database import Database
from service.store.models import WorkerRow

NO_ROUTE = "none"
"""Label of requests that reached no route: refused before, or to a path that is none."""


class Metrics:
    """The metrics of one API process, and those of the store that ``database`` gives."""

    def __init__(self, database: Callable[[], Database]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(Stored(database))
        self.requests = Histogram(
            "clr_http_request_seconds",
            "Seconds until the answer to a request began",
            ["method", "route", "status"],
            registry=self.registry,
        )


class Stored(Collector):
    """What every replica reads alike from the store."""

    def __init__(self, database: Callable[[], Database]) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        try:
            with self._database().read() as session:
                found = [*_jobs(session), *_workers(workers.alive(session))]
        except SQLAlchemyError:
            found = []
        yield GaugeMetricFamily("clr_database_up", "Whether the database answers", value=1.0 if found else 0.0)
        yield from found


def _jobs(session: Session) -> Iterator[Metric]:
    family = GaugeMetricFamily("clr_jobs", "Unfinished jobs: how long the queue is, how many run", labels=["state"])
    for state, number in jobs.unfinished(session).items():
        family.add_metric([state], number)
    yield family


def _workers(alive: list[WorkerRow]) -> Iterator[Metric]:
    yield GaugeMetricFamily("clr_workers", "Workers seen lately", value=len(alive))
    lost = CounterMetricFamily(
        "clr_leases_lost", "Jobs taken over from a silent worker, by who took", labels=["worker"]
    )
    runs = SummaryMetricFamily(
        "clr_trial_seconds", "Seconds of training; trials are search", labels=["worker", "stage"]
    )
    steps = CounterMetricFamily(
        "clr_training_steps", "Optimizer steps, as the runs report them", labels=["worker", "stage"]
    )
    for worker in alive:
        measured: dict[str, Any] = worker.metrics or {}
        lost.add_metric([worker.id], measured.get("leases_lost", 0))
        for stage, (number, seconds) in measured.get("runs", {}).items():
            runs.add_metric([worker.id, stage], number, seconds)
        for stage, number in measured.get("steps", {}).items():
            steps.add_metric([worker.id, stage], number)
    yield from (lost, runs, steps)


class Measure:
    """ASGI middleware that times requests by their route's template, so that ids make no series of their own."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                labels = scope["method"], _template(scope), message["status"]
                self.metrics.requests.labels(*labels).observe(time.perf_counter() - began)
            await send(message)

        return await self.app(scope, receive, timed)


def _template(scope: Scope) -> str:
    if "route" in scope:
        return str(scope["route"].path)
    # Routes that are not FastAPI's leave no template; the paths of all of them begin with a fixed word.
    return f"/{scope['path'].split('/')[1]}" if "endpoint" in scope else NO_ROUTE
