"""External jobs: their own trainers' range tests and trials."""

from typing import Annotated

from fastapi import APIRouter, Path

from service.external import range_test, trials
from service.external.reports import Advice, Proposed, RangeTestReport, Result, TrialReport
from service.problems import responses
from service.routes.jobs import IdempotencyKey
from service.routes.parameters import DatabaseOfApp, JobId, Who
from service.routes.results import range_test_view
from service.schemas import RangeTestView, TrialView
from service.store import runs

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["external trainers"])

Number = Annotated[int, Path(ge=0, lt=2**31, description="the trial's number")]
PROBLEMS = responses(400, 404, 409, 413, 415, 422, 503)


@router.put("/range-test", summary="Give a range test of your own", responses=PROBLEMS)
def put_range_test(database: DatabaseOfApp, who: Who, job_id: JobId, report: RangeTestReport) -> RangeTestView:
    """Record one seed's ramp, in the place of an earlier one of that seed; the bounds are read from all seeds.

    409 once a trial was asked for: the search goes on around the bounds it began with.
    """
    range_test.put(database, job_id, report, by=who.name)
    return range_test_view(database, job_id)


@router.post(
    "/trials",
    status_code=201,
    summary="Ask for a trial",
    response_description="the schedule to train, and for how many steps",
    responses=responses(404, 409, 413, 422, 503),
)
def ask(database: DatabaseOfApp, who: Who, job_id: JobId, idempotency_key: IdempotencyKey = None) -> Proposed:
    """The next trial to train; any number of trainers may ask. 409 with the reason when there is none, or not yet."""
    return trials.ask(database, job_id, idempotency_key, by=who.name)


@router.post("/trials/{number}/points", summary="Report on a trial", responses=PROBLEMS)
def report(database: DatabaseOfApp, job_id: JobId, number: Number, point: TrialReport) -> Advice:
    """Record a value on the way, best at the ends of cycles; the answer says whether to stop."""
    return Advice(prune=trials.report(database, job_id, number, point))


@router.put("/trials/{number}/result", summary="Tell a trial's result", responses=PROBLEMS)
def tell(database: DatabaseOfApp, who: Who, job_id: JobId, number: Number, result: Result) -> TrialView:
    """Record how the trial ended. Told again the same way is fine, another way is a 409."""
    trials.tell(database, job_id, number, result, by=who.name)
    with database.read() as session:
        row = runs.get(session, job_id, "search", number)
        return TrialView.of(row, runs.points(session, job_id, "search", [number])[number])
