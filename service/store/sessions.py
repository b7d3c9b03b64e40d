"""A job's session, rebuilt from the runs that the store holds."""

from typing import cast

from sqlalchemy.orm import Session as Transaction

from clr.range_tests.bounds import Bounds
from clr.run import Direction, Point, Run
from clr.schedules.cycles import TrainingLength
from clr.spec import JobSpec
from clr.tuning.orders import Order, ToldRun, Training
from clr.tuning.session import Session
from service.store import jobs, recommendations, runs
from service.store.jobs import Lease
from service.store.models import Job, RunRow

STAGES = ("range_test", "search", "confirm")

RECORDED = "recorded_ramp"
"""The policy of a ramp that was recorded anyway, and takes the place of the range test."""


def rebuild(transaction: Transaction, job: Job, *, in_hands: bool) -> Session:
    """The session of a job whose training is known, as its runs say that it stands.

    ``in_hands``: whether the runs that are running still are, at a trainer that reports them.
    """
    spec = JobSpec.model_validate(job.spec)
    warm = spec.search is not None and spec.search.warm_start
    ramps = [row for row in runs.of_stage(transaction, job.id, "range_test") if row.run["policy"] == RECORDED]
    session = Session(
        spec,
        training(job, spec),
        extensions=job.extensions or (),
        earlier=recommendations.alike(transaction, job.id) if warm else (),
        recorded=Bounds(**job.range_test["bounds"]) if ramps and job.range_test else None,
        recorded_steps=sum(row.steps for row in ramps),
        job_id=job.id,
    )
    session.restore(told_runs(transaction, job.id), in_hands=in_hands)
    return session


def training(job: Job, spec: JobSpec) -> Training:
    """What is known of the training of a described job."""
    assert job.iterations_per_epoch is not None
    length = TrainingLength(spec.epochs, job.iterations_per_epoch)
    direction = cast("Direction", job.direction or "maximize")
    return Training.of(length, job.metric or "metric", direction, job.trained_with or {})


def tell_progress(transaction: Transaction, lease: Lease, session: Session, stage: str) -> None:
    """Record how far a job is, and where each of its runs stands."""
    jobs.progress(
        transaction,
        lease,
        stage=stage,
        progress=session.progress,
        steps=session.steps_so_far,
        under_way=session.standing,
    )


def told_runs(transaction: Transaction, job_id: str) -> list[ToldRun]:
    """All runs of a job, with their points, by stage and number."""
    told = []
    for stage in STAGES:
        rows = runs.of_stage(transaction, job_id, stage)
        points = runs.points(transaction, job_id, stage, [row.number for row in rows])
        told += [_told(row, points[row.number]) for row in rows if row.run["policy"] != RECORDED]
    return told


def _told(row: RunRow, points: list[dict[str, object]]) -> ToldRun:
    fields = {name: row.run[name] for name in Run.__dataclass_fields__ if name in row.run}
    order = Order(row.stage, row.number, Run(**fields), row.params)  # type: ignore[arg-type]
    recorded = [Point.from_dict(point) for point in points]
    return ToldRun(order, row.state, recorded, row.value, row.repeated)  # type: ignore[arg-type]
