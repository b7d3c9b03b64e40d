"""A finished job, written from the store to the tracker that the service names."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clr.tuning.recommendation import Recommendation
from service.store import jobs, recommendations, runs
from service.store.database import Database

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """As ``clr.integrations.tracking`` reads one."""

    number: int
    params: dict[str, Any]
    value: float | None
    points: list[tuple[int, float | None]]


@dataclass(frozen=True)
class FinishedJob:
    """As ``clr.integrations.tracking`` reads one."""

    document: dict[str, Any]
    found: Recommendation
    tried: list[Trial]

    def recommendation(self) -> Recommendation:
        return self.found

    def trials(self) -> Iterator[Trial]:
        return iter(self.tried)


def write(database: Database, job_id: str, to: str) -> None:
    """Write a job to a tracker; one that cannot be reached is a line in the log, and the job is as it was."""
    try:
        from clr.integrations.tracking import track

        track(_read(database, job_id), to)
    except Exception as error:
        log.warning("not written to %s: job=%s: %s", to.partition(":")[0], job_id, error, extra={"job": job_id})


def _read(database: Database, job_id: str) -> FinishedJob:
    with database.read() as session:
        job, found = jobs.get(session, job_id), recommendations.get(session, job_id)
        assert found is not None
        rows = runs.finished(session, job_id, "search")
        points = runs.points(session, job_id, "search", [row.number for row in rows])
        ends = {number: [(point["step"], point["metric"]) for point in points[number]] for number in points}
        tried = [Trial(row.number, row.params, row.value, ends[row.number]) for row in rows]
        document = {"id": job.id, "name": job.name}
        return FinishedJob(document, Recommendation.from_dict(found.document), tried)
