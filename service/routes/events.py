"""A job's events as they happen, as server-sent events."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from anyio.streams.memory import MemoryObjectReceiveStream
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from service.feed import News, sent
from service.parameters import DatabaseOfApp, FeedOfApp, JobId, Who
from service.problems import responses
from service.store import events, jobs
from service.store.database import Database
from service.store.errors import NotFound

router = APIRouter(tags=["jobs"])

EXAMPLE = 'event: progress\ndata: {"stage": "search", "progress": 0.4, "steps": 1200}\nid: 17\n\n'


def _existing(database: DatabaseOfApp, job_id: JobId) -> str:
    with database.read() as session:
        return jobs.get(session, job_id).id


def _since(database: Database, job_id: str, last_id: int) -> tuple[Sequence[ServerSentEvent], bool]:
    """Events after ``last_id``, and whether there will be no more after these."""
    with database.read() as session:
        try:
            finished = jobs.is_finished(session, job_id)  # before its events: the last came with it
        except NotFound:
            return [], True
        found = sent(events.after(session, job_id, last_id))
        return found, finished and not found


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Events as they happen",
    response_class=EventSourceResponse,
    responses=responses(404, 422, 503, ok={"content": {"text/event-stream": {"example": EXAMPLE}}}),
)
async def stream(
    database: DatabaseOfApp,
    job_id: Annotated[str, Depends(_existing)],
    feed: FeedOfApp,
    who: Who,
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
        with feed.follow(job_id, last_event_id, who) as news:
            async for found, is_over in _from(database, job_id, last_event_id, news):
                done = is_over
                for event in found:
                    if int(event.id or 0) > last_event_id:
                        last_event_id = int(event.id or 0)
                        yield event


async def _from(
    database: Database, job_id: str, last_id: int, news: MemoryObjectReceiveStream[News]
) -> AsyncIterator[News]:
    """What the store has after ``last_id``, then the news, which may begin before its end."""
    found: Sequence[ServerSentEvent] = [ServerSentEvent(id=str(last_id))]
    done = False
    while found and not done:
        found, done = await run_in_threadpool(_since, database, job_id, int(found[-1].id or 0))
        yield found, done
    if not done:
        async for found, done in news:
            yield found, done
            if done:
                return
