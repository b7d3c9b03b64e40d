"""What was found before, over all jobs."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from service.cursors import LIMIT, JobCursor, Limit, split
from service.parameters import NO_NUL, DatabaseOfApp
from service.problems import responses
from service.schemas import FoundRecommendation, Page
from service.store import recommendations

router = APIRouter(tags=["results"])


@router.get(
    "/v1/recommendations",
    summary="Recommendations of all jobs",
    response_model=Page[FoundRecommendation],
    responses=responses(422, 503),
)
def list_recommendations(
    database: DatabaseOfApp,
    task: Annotated[str | None, Query(pattern=NO_NUL, description="only for this task")] = None,
    optimizer: Annotated[str | None, Query(pattern=NO_NUL, description="only for this optimizer")] = None,
    limit: Limit = LIMIT,
    cursor: JobCursor = None,
) -> JSONResponse:
    """What was found before, newest job first."""
    with database.read() as session:
        rows = recommendations.browse(session, task=task, optimizer=optimizer, limit=limit + 1, before=cursor)
        some, next_cursor = split(rows, limit, lambda found: found[0].job_id)
        items = [FoundRecommendation.document(row, spec) for row, spec in some]
    return JSONResponse({"items": items, "next_cursor": next_cursor})
