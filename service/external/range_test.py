"""A range test that was run elsewhere: recorded seed by seed, read anew with each."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from clr.errors import InvalidArgument
from clr.range_tests.recorded import Recording, read_recordings, smoothed_mean
from service.external.job import ExternalJob, attending
from service.external.reports import LARGEST, RampPoint, RangeTestReport
from service.store import audit, jobs, runs
from service.store.database import Database
from service.store.errors import Conflict
from service.store.models import RunRow
from service.store.sessions import RECORDED

STAGE = "range_test"
Document = dict[str, Any]


def put(database: Database, job_id: str, report: RangeTestReport, *, by: str | None = None) -> None:
    """Record one seed's ramp, in the place of an earlier one of that seed, and recommend what all of them say.

    ``by``: name of the token that did it.
    """
    digest = hashlib.sha256(report.model_dump_json().encode()).hexdigest()
    with database.read() as session:
        if any(row.run.get("digest") == digest for row in runs.of_stage(session, job_id, STAGE)):
            return
    with attending(database, job_id) as attended:
        rows = runs.of_stage(attended.transaction, job_id, STAGE)
        ordered = sum(row.run["policy"] != RECORDED for row in rows)
        ordered += sum(len(runs.of_stage(attended.transaction, job_id, stage)) for stage in ("search", "confirm"))
        if ordered:
            raise Conflict(
                f"a recorded ramp takes the place of the range test, but {ordered} runs were asked for already: "
                "submit another job to begin with a ramp"
            )
        earlier = next((row for row in rows if row.run["seed"] == report.seed), None)
        _record(attended, report, digest, rows, earlier)
        audit.record(attended.transaction, by, "range test", job_id=job_id, detail=f"seed {report.seed}")
        _read(attended)
        if attended.spec.search is None and len(rows) + (earlier is None) >= attended.spec.range_test.seeds:
            attended.conclude()


def _record(
    attended: ExternalJob, report: RangeTestReport, digest: str, rows: Sequence[RunRow], earlier: RunRow | None
) -> None:
    session, lease = attended.transaction, attended.lease
    place: Document = {"stage": STAGE, "number": len(rows) if earlier is None else earlier.number}
    if earlier is not None:
        runs.discard(session, lease, **place)
    params = {"policy": RECORDED, "max_lr": report.points[-1].lr, "seed": report.seed}
    attempt = runs.start(session, lease, **place, params=params, run=params | {"digest": digest})
    runs.append(session, lease, **place, attempt=attempt, points=list(_points(report.points)))
    steps = report.points[-1].step or len(report.points)
    runs.finish(session, lease, **place, attempt=attempt, state="complete", value=None, steps=steps)


def _points(given: Sequence[RampPoint]) -> Iterable[Document]:
    """As a worker records them: the steps up to each metric together; one of which some are left out, by itself."""
    if any(point.step is not None for point in given):
        yield from _thinned(given)
        return
    measured = 0
    groups: list[int] = []
    for point in given:
        groups.append(measured)
        measured += point.metric is not None
    for _, steps in groupby(enumerate(given, 1), key=lambda pair: groups[pair[0] - 1]):
        numbers, ramp = zip(*steps, strict=True)
        yield {
            "step": numbers[-1],
            "lr": [point.lr for point in ramp],
            "loss": [_finite(point.loss) for point in ramp],
            "metric": ramp[-1].metric,
            "diverged": False,
        }


def _thinned(given: Sequence[RampPoint]) -> Iterable[Document]:
    last = 0
    for index, point in enumerate(given):
        if point.step is None or point.step <= last:
            rule = f"must be given for every point or none, and rise; the last was {last}"
            raise InvalidArgument(f"points.{index}.step", rule, point.step)
        last = point.step
        loss = _finite(point.loss)
        yield {"step": last, "lr": [point.lr], "loss": [loss], "metric": point.metric, "diverged": False}


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and abs(loss) <= LARGEST else None


def _read(attended: ExternalJob) -> None:
    """Bounds from all seeds' curves, and the recommendation that follows."""
    assert attended.spec.direction is not None
    numbers = [row.number for row in runs.of_stage(attended.transaction, attended.job.id, STAGE)]
    points = runs.points(attended.transaction, attended.job.id, STAGE, numbers)
    recordings = [_recording(points[number]) for number in numbers]
    try:
        bounds = read_recordings(recordings, attended.spec.direction)
    except InvalidArgument as error:
        raise InvalidArgument(f"points.{error.field}", error.rule, error.given) from error
    document = {"bounds": bounds.to_dict(), "smoothed": smoothed_mean(recordings)}
    jobs.set_range_test(attended.transaction, attended.lease, document)
    attended.take_note(STAGE)


def _recording(points: Sequence[Document]) -> Recording:
    recording = Recording()
    for point in points:
        recording.lr += point["lr"]
        recording.loss += [math.nan if loss is None else loss for loss in point["loss"]]
        recording.metric += [math.nan] * (len(point["lr"]) - 1)
        recording.metric.append(math.nan if point["metric"] is None else point["metric"])
    return recording
