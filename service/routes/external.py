"""External jobs: their own trainers' runs, and ramps that were recorded anyway."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from service.external import range_test, trainer
from service.external.reports import Ended, OrderedRun, RangeTestReport, Reported, ToGoOn
from service.parameters import DatabaseOfApp, JobId, Who
from service.problems import responses
from service.routes.jobs import IdempotencyKey
from service.routes.results import range_test_view
from service.schemas import RangeTestView, Stage, TrialView
from service.store import runs

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["external trainers"])

Number = Annotated[int, Path(ge=0, lt=2**31, description="the run's number within its stage")]
PROBLEMS = responses(400, 404, 409, 413, 415, 422, 503)

RETRY_AFTER_S = 2
"""How long to wait before asking again, while others must end first."""


@router.put("/range-test", summary="Give a range test of your own", responses=PROBLEMS)
def put_range_test(database: DatabaseOfApp, who: Who, job_id: JobId, report: RangeTestReport) -> RangeTestView:
    """Record one seed's ramp, in the place of an earlier one of that seed; the bounds are read from all seeds.

    409 once a run was asked for: a recorded ramp takes the place of the range test.
    """
    range_test.put(database, job_id, report, by=who.name)
    return range_test_view(database, job_id)


@router.post(
    "/runs",
    status_code=201,
    response_model=OrderedRun,
    summary="Ask for a run",
    response_description="the schedule to train, and for how many steps",
    responses={
        204: {
            "description": "others must end first: ask again after `Retry-After` seconds",
            "headers": {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}},
        },
        **responses(404, 409, 413, 422, 503),
    },
)
def ask(database: DatabaseOfApp, who: Who, job_id: JobId, idempotency_key: IdempotencyKey = None) -> Response:
    """The next run to train; any number of trainers may ask. 409 with the reason when the job is over."""
    run = trainer.next_run(database, job_id, idempotency_key, by=who.name)
    if run is None:
        return Response(status_code=204, headers={"Retry-After": str(RETRY_AFTER_S)})
    return Response(run.model_dump_json(), 201, media_type="application/json")


@router.post("/runs/{stage}/{number}/points", summary="Report on a run", responses=PROBLEMS)
def report(database: DatabaseOfApp, job_id: JobId, stage: Stage, number: Number, reported: Reported) -> ToGoOn:
    """Record what the run has done since the last report; the answer says whether to stop."""
    advice = trainer.report(database, job_id, stage, number, reported.points, reported.attempt)
    return ToGoOn(stop=advice.stop, reason=advice.reason)


@router.put("/runs/{stage}/{number}/result", summary="Tell a run's result", responses=PROBLEMS)
def tell(database: DatabaseOfApp, who: Who, job_id: JobId, stage: Stage, number: Number, ended: Ended) -> TrialView:
    """Record how the run ended. Told again the same way is fine, another way is a 409."""
    trainer.tell(database, job_id, stage, number, ended, by=who.name)
    with database.read() as session:
        row = runs.get(session, job_id, stage, number)
        return TrialView.of(row, runs.points(session, job_id, stage, [number])[number])
