"""Jobs: submit, list, look at, cancel, delete."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from clr.spec import JobSpec
from service import actions
from service.cursors import LIMIT, JobCursor, Limit, split
from service.parameters import NO_NUL, DatabaseOfApp, JobId, SchemasOfApp, SettingsOfApp, Who
from service.problems import responses
from service.schemas import DryRun, JobView, Page, PredictedCost, State
from service.store import jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

EXAMPLES: dict[str, Any] = {
    "short": {"summary": "All defaults", "value": {"task": "digits"}},
    "full": {
        "summary": "A search and a confirmation",
        "value": {
            "name": "digits demo",
            "task": "digits",
            "args": {"hidden": 64},
            "optimizer": {"name": "SGD", "args": {"momentum": 0.9}},
            "batch_size": 64,
            "epochs": 20,
            "range_test": {"seeds": 3},
            "budget": 6,
            "search": {"ratio": [1.5, 20], "policies": ["triangular"]},
            "confirm": {"baselines": ["fixed", "one_cycle"]},
            "resources": {"gpus": 0, "cpus": 1},
        },
    },
    "range test": {"summary": "A range test alone", "value": {"task": "digits", "search": None}},
    "external": {
        "summary": "A trainer of your own, which reports over REST",
        "value": {
            "mode": "external",
            "task": "my JAX model",
            "epochs": 20,
            "iterations_per_epoch": 500,
            "direction": "maximize",
        },
    },
}

IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x20-\x7e]{1,200}$",
        description="1 to 200 printable ASCII characters; the same key with the same body is the same job",
        examples=["3f2b8c1e"],
    ),
]


@router.post(
    "",
    status_code=201,
    response_model=JobView,
    summary="Submit a job",
    response_description="the job, queued",
    responses={
        200: {"model": DryRun, "description": "with dry_run: what would be stored, and its cost"},
        201: {"headers": {"Location": {"description": "the job's path", "schema": {"type": "string"}}}},
        **responses(400, 409, 413, 415, 422, 503),
    },
)
def submit(
    database: DatabaseOfApp,
    settings: SettingsOfApp,
    schemas: SchemasOfApp,
    who: Who,
    spec: Annotated[JobSpec, Body(openapi_examples=EXAMPLES)],
    idempotency_key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="check and cost the spec, store nothing")] = False,
) -> Response:
    """Accept a job spec. Only `task` is required; unknown fields are errors."""
    if dry_run:
        planned, predicted = actions.plan(database, settings, schemas, spec, role=who.role)
        told = PredictedCost.model_validate(asdict(predicted))
        return JSONResponse(DryRun(spec=planned.model_dump(mode="json"), cost=told).model_dump(mode="json"))
    job = actions.submit(database, settings, schemas, spec, by=who.name, role=who.role, key=idempotency_key)
    view = JobView.of(job)
    # Written at once: FastAPI would check it against its model a second time.
    return Response(view.model_dump_json(), 201, {"Location": view.links.self}, media_type="application/json")


@router.get("", summary="List jobs", responses=responses(422, 503))
def list_jobs(
    database: DatabaseOfApp,
    state: Annotated[State | None, Query(description="only jobs in this state")] = None,
    task: Annotated[str | None, Query(pattern=NO_NUL, description="only jobs of this task")] = None,
    name: Annotated[str | None, Query(pattern=NO_NUL, description="only jobs of this name")] = None,
    limit: Limit = LIMIT,
    cursor: JobCursor = None,
) -> Page[JobView]:
    """Jobs, newest first."""
    with database.read() as session:
        rows = jobs.browse(session, state=state, task=task, name=name, limit=limit + 1, before=cursor)
        some, next_cursor = split(rows, limit, lambda job: job.id)
        return Page(items=[JobView.of(job) for job in some], next_cursor=next_cursor)


@router.get("/{job_id}", summary="One job", responses=responses(404, 422, 503))
def show(database: DatabaseOfApp, job_id: JobId) -> JobView:
    """The job: its state, stage, progress, cost so far, error and times."""
    with database.read() as session:
        return JobView.of(jobs.get(session, job_id))


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=responses(404, 409, 413, 422, 503))
def cancel(database: DatabaseOfApp, who: Who, job_id: JobId) -> JobView:
    """Work stops within seconds; what was found stays. A job that is finished already is a 409."""
    return JobView.of(actions.cancel(database, job_id, by=who.name))


class Extension(BaseModel):
    """How many trainings more a job may cost."""

    model_config = ConfigDict(extra="forbid", strict=True)

    budget: float = Field(gt=0, le=1e6, allow_inf_nan=False, description="trainings", examples=[4])


@router.post(
    "/{job_id}/extend",
    status_code=202,
    summary="Go on with a finished job",
    responses=responses(404, 409, 413, 415, 422, 503),
)
def extend(database: DatabaseOfApp, who: Who, job_id: JobId, more: Extension) -> JobView:
    """Grant a job that succeeded more trainings: it goes on from all that it knows. Any other is a 409."""
    return JobView.of(actions.extend(database, job_id, more.budget, by=who.name))


@router.delete(
    "/{job_id}",
    status_code=204,
    summary="Delete a finished job",
    responses=responses(404, 409, 413, 422, 503),
)
def delete(database: DatabaseOfApp, who: Who, job_id: JobId) -> None:
    """Delete a job with all that belongs to it, its study too. One that is not finished is a 409."""
    actions.delete(database, job_id, by=who.name)
