"""What a job found: its range test, its trials, its recommendation."""

import csv
import io
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from clr.tuning.formats import WRITERS, Format
from service.cursors import LIMIT, Limit, NumberCursor, split
from service.parameters import DatabaseOfApp, JobId
from service.problems import responses
from service.schemas import NoticeView, Page, RangeTestView, RecommendationView, SeedCurve, TrialView
from service.store import jobs, notices, recommendations, runs
from service.store.database import Database
from service.store.models import Job

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])

CSV_EXAMPLE = "lr,loss,metric,seed\n0.001,2.31,,0\n0.002,2.29,0.14,0\n"


@router.get(
    "/range-test",
    summary="The range test",
    response_model=RangeTestView,
    responses=responses(
        404, 422, 503, ok={"content": {"text/csv": {"schema": {"type": "string"}, "example": CSV_EXAMPLE}}}
    ),
)
def range_test(
    database: DatabaseOfApp,
    job_id: JobId,
    accept: Annotated[str, Header(description="text/csv gives the points")] = "application/json",
) -> Any:
    """Each seed's curve, the smoothed curve, and the bounds with their intervals, as far as there are any."""
    view = range_test_view(database, job_id)
    if "text/csv" in accept:
        return Response(_csv(view), media_type="text/csv", headers={"Vary": "Accept"})
    return JSONResponse(view.model_dump(mode="json"), headers={"Vary": "Accept"})


@router.get("/trials", summary="The trials of the search", responses=responses(404, 422, 503))
def trials(
    database: DatabaseOfApp, job_id: JobId, limit: Limit = LIMIT, cursor: NumberCursor = None
) -> Page[TrialView]:
    """Trials by number, each with its values at the ends of its cycles."""
    after = None if cursor is None else int(cursor)
    with database.read() as session:
        jobs.get(session, job_id)
        rows = runs.browse(session, job_id, "search", limit=limit + 1, after=after)
        some, next_cursor = split(rows, limit, lambda row: row.number)
        points = runs.points(session, job_id, "search", [row.number for row in some])
        items = [TrialView.of(row, points.get(row.number, [])) for row in some]
    return Page(items=items, next_cursor=next_cursor)


@router.get("/notices", summary="What its address was told", responses=responses(404, 422, 503))
def told(database: DatabaseOfApp, job_id: JobId) -> Page[NoticeView]:
    """Of a job with `notify`: what was sent to its address, or is still to be, all on one page."""
    with database.read() as session:
        jobs.get(session, job_id)
        return Page(items=[NoticeView.of(row) for row in notices.of_job(session, job_id)], next_cursor=None)


@router.get(
    "/recommendation",
    summary="The recommendation",
    response_model=RecommendationView,
    responses={
        200: {
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/yaml": {"schema": {"$ref": "#/components/schemas/RecommendationView"}},
            }
        },
        **responses(404, 409, 422, 503),
    },
)
def recommendation(
    database: DatabaseOfApp,
    job_id: JobId,
    format: Annotated[
        Format, Query(description="json and yaml: the document; table: step and rate; all others: lines to paste")
    ] = "json",
) -> Response:
    """What to train with, and why; better as the job goes on. 409 with the reason while there is none."""
    with database.read() as session:
        row = recommendations.get(session, job_id)
        if row is None:
            raise HTTPException(409, _why_none(jobs.get(session, job_id)))
        document = row.document
    if format == "json":
        return JSONResponse(document)
    from clr.tuning.recommendation import Recommendation

    text = WRITERS[format](Recommendation.from_dict(document))
    return Response(text, media_type="application/yaml" if format == "yaml" else "text/plain")


def range_test_view(database: Database, job_id: str) -> RangeTestView:
    """All that is known of a job's range test."""
    with database.read() as session:
        job = jobs.get(session, job_id)
        rows = runs.of_stage(session, job_id, "range_test")
        points = runs.points(session, job_id, "range_test", [row.number for row in rows])
        return RangeTestView.of(job, [SeedCurve.of(row, points.get(row.number, [])) for row in rows])


def _csv(view: RangeTestView) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["lr", "loss", "metric", "seed"])
    for curve in filter(lambda curve: curve.is_ramp, view.curves):
        writer.writerows([point.lr, point.loss, point.metric, curve.seed] for point in curve.points)
    return text.getvalue()


def _why_none(job: Job) -> str:
    match job.state:
        case "queued":
            return "no recommendation yet: the job is queued; the first comes when its range test ends"
        case "running":
            return "no recommendation yet: the range test is running; the first comes when it ends"
        case "failed":
            return f"there will be no recommendation: the job failed before its range test ended: {job.error}"
        case state:
            return f"there will be no recommendation: the job was {state} before its range test ended"
