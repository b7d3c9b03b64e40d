"""``/compare``: range tests and recommendations of several jobs over one another."""

from typing import Annotated, Any

from fastapi import Query, Request, Response

from clr.errors import InvalidArgument
from service.pages.page import page_router, render
from service.parameters import NO_NUL, DatabaseOfApp
from service.pictures import LookOfPicture, Version, rendered
from service.schemas import JobView
from service.store import jobs, recommendations
from service.store.database import Database
from service.store.models import Job

router = page_router()

MOST = 4

Ids = Annotated[list[Annotated[str, Query(pattern=NO_NUL)]], Query(max_length=MOST)]


@router.get("/compare")
def page(request: Request, database: DatabaseOfApp, job: Ids = []) -> Response:  # noqa: B006  FastAPI copies it
    ids = list(dict.fromkeys(filter(None, job)))
    found = _found(database, ids)
    newest: list[JobView] = []
    if len(ids) < 2:
        with database.read() as session:
            newest = [JobView.of(row) for row in jobs.browse(session, state="succeeded", limit=25)]
    columns = [(JobView.of(row), document) for row, document in found]
    scheduled = any(document and document["stepsize"] for _, document in found)
    return render(request, "compare.html", columns=columns, newest=newest, most=MOST, scheduled=scheduled)


@router.get("/compare/range-test.svg")
def range_test(database: DatabaseOfApp, look: LookOfPicture, job: Ids, v: Version = None) -> Response:
    """Smoothed curves and bounds of the jobs, in one picture."""
    from clr.charts import comparison_chart

    named = _named(_found(database, job))
    smoothed = {name: (row.range_test or {}).get("smoothed") for name, (row, _) in named.items()}
    bounds = {name: (document if document and document["interval"] else None) for name, (_, document) in named.items()}
    return rendered(comparison_chart(smoothed, bounds, look), "svg", v)


@router.get("/compare/schedule.svg")
def schedule(database: DatabaseOfApp, look: LookOfPicture, job: Ids, v: Version = None) -> Response:
    """The recommended schedules of the jobs, in one picture."""
    from clr.charts import schedule_chart

    named = _named(_found(database, job))
    found = {name: document for name, (_, document) in named.items() if document and document["stepsize"]}
    if not found:
        raise InvalidArgument("job", "must name a job with a recommended schedule", job)
    return rendered(schedule_chart(found, max(row.spec["epochs"] for row, _ in named.values()), look), "svg", v)


def _found(database: Database, ids: list[str]) -> list[tuple[Job, Any]]:
    with database.read() as session:
        rows = [jobs.get(session, job_id) for job_id in ids]
        found = recommendations.of_jobs(session, ids)
        return [(row, found[row.id].document if row.id in found else None) for row in rows]


def _named(found: list[tuple[Job, Any]]) -> dict[str, tuple[Job, Any]]:
    """By a letter and the job's name: names alone need not differ."""
    return {f"{letter}: {row.name}": (row, document) for letter, (row, document) in zip("ABCD", found, strict=False)}
