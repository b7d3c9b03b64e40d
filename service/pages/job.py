"""``/jobs/{id}``: all about one job, as it goes on."""

from contextlib import suppress
from typing import Annotated, Any

import yaml
from fastapi import Query, Request, Response
from fastapi.responses import RedirectResponse

from clr.errors import InvalidArgument
from clr.schedules.cycles import TrainingLength
from clr.spec import JobSpec
from clr.tuning.cost import trainings_of_stages
from clr.tuning.formats import FORMATS
from clr.tuning.recommendation import PROVISIONAL, Recommendation, better_alternatives
from service import actions
from service.cursors import NumberCursor, split
from service.pages.new import SentForm
from service.pages.page import page_router, render
from service.pages.scatter import scatter
from service.parameters import DatabaseOfApp, JobId, Who
from service.schemas import Document, JobView
from service.store import events, jobs, recommendations, runs, studies
from service.store.errors import NotFound
from service.store.models import Job, RecommendationRow
from service.store.runs import Tally

router = page_router()

SHOWN_TRIALS = 25
MOST_TRAININGS = 1e6
DOTS = 200
"""Trials that can be pointed at; of a longer search an even sample."""

STAGES = ("range_test", "search", "confirm")


@router.get("/jobs/{job_id}")
def page(
    request: Request,
    database: DatabaseOfApp,
    job_id: JobId,
    after: Annotated[NumberCursor, Query(description="the last trial of the page before")] = None,
) -> Response:
    with database.read() as session:
        last_event = events.last_id(session, job_id)  # first: what comes later is told again, never missed
        job = jobs.get(session, job_id)
        found = recommendations.get(session, job_id)
        tally = runs.tally(session, job_id)
        place = None if after is None else int(after)
        sampled = runs.sample(session, job_id, "search", job.direction or "maximize", DOTS)
        rows = runs.browse(session, job_id, "search", limit=SHOWN_TRIALS + 1, after=place)
    trials, next_trials = split(rows, SHOWN_TRIALS, lambda row: row.number)
    document = found.document if found else None
    return render(
        request,
        "job.html",
        job=JobView.of(job),
        finished=job.state in jobs.FINISHED,
        last_event=last_event,
        metric=job.metric,
        range_test=job.range_test,
        found=document,
        provisional=document is not None and PROVISIONAL in document["reasons"],
        remarks=_remarks(job, document or {}),
        better=better_alternatives(document or {}),
        snippet=Recommendation.from_dict(document).to_python() if document else None,
        pictures=_pictures(job, found, tally),
        shapes=len({(one["ratio"], one["stepsize_multiplier"]) for one in sampled if one.get("ratio")}),
        scatter=scatter(sampled, job.direction, job.metric or "value"),
        formats=FORMATS,
        trials=trials,
        after=after,
        next_trials=next_trials,
        best=_best(job, trials),
        counts=_counts(tally),
        stages=_stages(job, tally),
        spec=yaml.safe_dump(job.spec, sort_keys=False, allow_unicode=True),
    )


@router.post("/jobs/{job_id}/cancel")
def cancel(database: DatabaseOfApp, who: Who, job_id: JobId) -> Response:
    actions.cancel(database, job_id, by=who.name)
    return RedirectResponse(f"/jobs/{job_id}", 303)


@router.post("/jobs/{job_id}/extend")
def extend(database: DatabaseOfApp, who: Who, job_id: JobId, sent: SentForm) -> Response:
    actions.extend(database, job_id, _trainings((sent.get("budget") or [""])[0]), by=who.name)
    return RedirectResponse(f"/jobs/{job_id}", 303)


@router.post("/jobs/{job_id}/delete")
def delete(database: DatabaseOfApp, who: Who, job_id: JobId) -> Response:
    actions.delete(database, job_id, by=who.name)
    return RedirectResponse("/", 303)


@router.get("/jobs/{job_id}/study")
def study(database: DatabaseOfApp, job_id: JobId) -> Response:
    """To the job's study in Optuna's dashboard, which numbers studies in its own way."""
    number = studies.number(database.url, job_id)
    if number is None:
        raise NotFound(f"job {job_id} has no study: its search has not begun")
    return RedirectResponse(f"/dashboard/studies/{number}", 303)


def _remarks(job: Job, found: Document) -> list[str]:
    """Reasons of what is recommended that the range test does not give: those stand beside its picture."""
    read = ((job.range_test or {}).get("bounds") or {}).get("reasons", ())
    return [reason for reason in found.get("reasons", ()) if reason not in read and job.range_test]


def _trainings(text: str) -> float:
    with suppress(ValueError):
        if 0 < (number := float(text)) <= MOST_TRAININGS:
            return number
    raise InvalidArgument("budget", f"must be a number of trainings above 0 and at most {MOST_TRAININGS:g}", text)


def _pictures(job: Job, found: RecommendationRow | None, tally: list[Tally]) -> dict[str, str]:
    """The pictures there are, each with a version that changes when it does."""
    steps = sum(row.steps for row in tally if row.stage == "range_test")
    ended = sum(row.runs for row in tally if row.stage == "search" and row.state != "running")
    versions: dict[str, str] = {}
    if steps:
        versions["range-test"] = f"{steps}{'r' if job.range_test else ''}"
    if found is not None:
        updated = f"{found.updated_at:%H%M%S%f}"
        versions |= {"schedule": updated} if found.document["stepsize"] else {}
        versions |= {"confirmation": updated} if found.document["evidence"] else {}
    if ended:
        versions |= {"search": str(ended), "history": str(ended)}
    return versions


def _best(job: Job, trials: Any) -> int | None:
    """The best trial of those shown."""
    sign = -1 if job.direction == "minimize" else 1
    scored = [(sign * row.value, row.number) for row in trials if row.value is not None]
    return max(scored)[1] if scored else None


def _counts(tally: list[Tally]) -> dict[str, int]:
    """The search's trials by state."""
    return {row.state: row.runs for row in tally if row.stage == "search"}


def _stages(job: Job, tally: list[Tally]) -> list[Document]:
    """What each stage has cost, and was predicted to."""
    spec = JobSpec.model_validate(job.spec)
    length = TrainingLength(spec.epochs, job.iterations_per_epoch) if job.iterations_per_epoch else None
    trainings = trainings_of_stages(spec, length)
    return [
        {
            "name": stage,
            "runs": sum(row.runs for row in tally if row.stage == stage),
            "steps": sum(row.steps for row in tally if row.stage == stage),
            "predicted": None if length is None else round(trainings[stage] * length.steps),
        }
        for stage in STAGES
    ]
