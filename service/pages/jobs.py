"""``/``: the jobs, newest first."""

from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import RedirectResponse

from service.cursors import JobCursor, split
from service.pages.page import page_router, render
from service.parameters import NO_NUL, DatabaseOfApp
from service.schemas import JobView
from service.store import jobs, recommendations, workers
from service.store.models import Job

router = page_router()

SHOWN = 25
STATES = ("queued", "running", *jobs.FINISHED)

Filter = Annotated[str, Query(max_length=200, pattern=NO_NUL)]


@router.get("/favicon.ico")
def icon() -> Response:
    """Asked for by browsers on pages that name none, as those of Optuna's dashboard are."""
    return RedirectResponse("/assets/icon.svg")


@router.get("/")
def page(
    request: Request,
    database: DatabaseOfApp,
    state: Annotated[str, Query(pattern=f"^({'|'.join(STATES)})?$")] = "",
    task: Filter = "",
    name: Filter = "",
    cursor: JobCursor = None,
) -> Response:
    given = {"state": state, "task": task, "name": name}
    with database.read() as session:
        filters = {field: value or None for field, value in given.items()}
        rows = jobs.browse(session, **filters, limit=SHOWN + 1, before=cursor)
        some, next_cursor = split(rows, SHOWN, lambda job: job.id)
        found = recommendations.of_jobs(session, [job.id for job in some])
        shown = [(JobView.of(job), found[job.id].document if job.id in found else None, _spent(job)) for job in some]
        tasks = [row.name for row in workers.tasks(session)]
        alive = len(workers.ready(session))
    return render(
        request,
        "jobs.html",
        jobs=shown,
        next_cursor=next_cursor,
        cursor=cursor,
        given=given,
        states=STATES,
        tasks=tasks,
        workers=alive,
    )


def _spent(job: Job) -> float | None:
    """What a job has cost so far, in trainings; None until it is known how long one is."""
    one = job.spec["epochs"] * (job.iterations_per_epoch or 0)
    return job.steps / one if one else None
