"""A job's events as they happen, as server-sent events."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from service.parameters import DatabaseOfApp, JobId, StillAdmitted
from service.problems import responses
from service.store import events, jobs
from service.store.database import Database
from service.store.errors import NotFound

router = APIRouter(tags=["jobs"])

POLL_S = 0.25

EXAMPLE = 'event: progress\ndata: {"stage": "search", "progress": 0.4, "steps": 1200}\nid: 17\n\n'


def _existing(database: DatabaseOfApp, job_id: JobId) -> str:
    with database.read() as session:
        return jobs.get(session, job_id).id


def _since(database: Database, job_id: str, last_id: int) -> tuple[Sequence[Any], bool]:
    """Events after ``last_id``, and whether there will be no more after these."""
    with database.read() as session:
        try:
            finished = jobs.is_finished(session, job_id)  # before its events: the last came with it
        except NotFound:
            return [], True
        found = events.after(session, job_id, last_id)
        sent = [ServerSentEvent(id=str(row.id), event=row.kind, data=row.data) for row in found]
        return sent, finished and not found


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Events as they happen",
    response_class=EventSourceResponse,
    responses=responses(404, 422, 503, ok={"content": {"text/event-stream": {"example": EXAMPLE}}}),
)
async def stream(
    database: DatabaseOfApp,
    job_id: Annotated[str, Depends(_existing)],
    still_admitted: StillAdmitted,
    last_event_id: Annotated[
        int, Header(ge=0, lt=2**63, description="id of the last event seen: the stream goes on after it")
    ] = 0,
    after: Annotated[
        int,
        Query(ge=0, lt=2**63, description="the same for a browser's EventSource, which cannot send the header first"),
    ] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """State, progress, points, trials and recommendations, from the job's first event on; ends with the job."""
    last_event_id = max(last_event_id, after)
    done = False
    while not done:
        found, done = await run_in_threadpool(_since, database, job_id, last_event_id)
        if not await still_admitted():
            return
        for event in found:
            last_event_id = int(event.id)
            yield event
        if not found and not done:
            await anyio.sleep(POLL_S)
