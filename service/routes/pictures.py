"""A job's pictures: each drawn from one specification, whoever asks for it."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException

from clr.run import Direction
from service.parameters import DatabaseOfApp, JobId
from service.pictures import Form, LookOfPicture, Version, rendered
from service.problems import responses
from service.routes.results import range_test_view
from service.schemas import Document
from service.store import jobs, recommendations, runs
from service.store.database import Database

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])

SHOWN_TRIALS = 500
"""More dots than this cover one another; of a longer search an even sample is drawn, and the best trial."""

Picture = Literal["schedule", "search", "history", "parallel", "importance", "confirmation"]

CONTENT = responses(404, 409, 422, 503, ok={"content": {"image/svg+xml": {}, "image/png": {}}})


@router.get("/range-test.svg", summary="The range test as SVG", response_class=Response, responses=CONTENT)
def range_test_svg(database: DatabaseOfApp, job_id: JobId, look: LookOfPicture, v: Version = None) -> Response:
    """The picture, bounds marked. 409 while there are no points yet."""
    return rendered(_range_test(database, job_id, look), "svg", v)


@router.get("/range-test.png", summary="The range test as PNG", response_class=Response, responses=CONTENT)
def range_test_png(database: DatabaseOfApp, job_id: JobId, look: LookOfPicture, v: Version = None) -> Response:
    """The picture, bounds marked. 409 while there are no points yet."""
    return rendered(_range_test(database, job_id, look), "png", v)


@router.get("/{picture}.{form}", summary="A picture of what was found", response_class=Response, responses=CONTENT)
def picture(
    database: DatabaseOfApp, job_id: JobId, picture: Picture, form: Form, look: LookOfPicture, v: Version = None
) -> Response:
    """The recommended schedule, the search's trials in four ways, or the confirmation. 409 while there is none."""
    return rendered(_DRAWN[picture](database, job_id, look), form, v)


def _range_test(database: Database, job_id: str, look: Any) -> Any:
    from clr.charts import range_test_chart

    view = range_test_view(database, job_id)
    if not any(curve.points for curve in view.curves):
        raise HTTPException(409, "the range test has no points yet, so there is nothing to draw: try again later")
    return range_test_chart(view.model_dump(mode="json"), look)


def _schedule(database: Database, job_id: str, look: Any) -> Any:
    from clr.charts import schedule_chart

    with database.read() as session:
        epochs = jobs.get(session, job_id).spec["epochs"]
    found = _recommendation(database, job_id)
    if found is None or found["stepsize"] is None:
        raise HTTPException(409, "no schedule is recommended, so there is none to draw")
    return schedule_chart({"recommended": found}, epochs, look)


def _trials(draw: str) -> Callable[[Database, str, Any], Any]:
    def drawn(database: Database, job_id: str, look: Any) -> Any:
        from clr import charts

        with database.read() as session:
            job = jobs.get(session, job_id)
            metric, direction = job.metric or "value", job.direction or "maximize"
            trials = runs.sample(session, job_id, "search", direction, SHOWN_TRIALS)
        if not trials:
            raise HTTPException(409, "no trial of a search has finished, so there is nothing to draw")
        return getattr(charts, draw)(trials, metric, direction, look)

    return drawn


def _importance(database: Database, job_id: str, look: Any) -> Any:
    from clr.charts import importance_chart

    with database.read() as session:
        job = jobs.get(session, job_id)
        steps = runs.tally(session, job_id)
    shares = _shares(database, job_id, job.direction or "maximize", sum(row.runs for row in steps))
    if not shares:
        raise HTTPException(409, "the trials are too few, or too much alike, to tell which parameters matter")
    return importance_chart(shares, job.metric or "value", look)


@lru_cache(maxsize=128)  # a second of computing, the same for each look until another trial ends
def _shares(database: Database, job_id: str, direction: Direction, _version: int) -> dict[str, float]:
    from clr.trials.importance import importances

    with database.read() as session:
        trials = runs.sample(session, job_id, "search", direction, SHOWN_TRIALS)
    return importances(trials, direction)


def _confirmation(database: Database, job_id: str, look: Any) -> Any:
    from clr.charts import confirmation_chart

    found = _recommendation(database, job_id)
    if found is None or found["evidence"] is None:
        raise HTTPException(409, "the recommendation was not confirmed, so there is nothing to draw")
    return confirmation_chart(found["evidence"], look)


def _recommendation(database: Database, job_id: str) -> Document | None:
    with database.read() as session:
        jobs.get(session, job_id)
        row = recommendations.get(session, job_id)
        return None if row is None else row.document


_DRAWN: dict[Picture, Callable[[Database, str, Any], Any]] = {
    "schedule": _schedule,
    "search": _trials("search_chart"),
    "history": _trials("history_chart"),
    "parallel": _trials("parallel_chart"),
    "importance": _importance,
    "confirmation": _confirmation,
}
