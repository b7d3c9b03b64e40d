"""A job's events as they happen, as server-sent events."""

from contextlib import suppress
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from service.access.principal import Principal
from service.feed import Events, Feed, News, sent
from service.parameters import DatabaseOfApp, FeedOfApp, JobId, Who
from service.problems import responses
from service.store import events, jobs
from service.store.database import Database
from service.store.errors import NotFound

router = APIRouter(tags=["jobs"])

PING_S = 15.0
"""Silence after which a comment says that the stream lives."""

EVENT = {"type": "object", "properties": {name: {"type": "string"} for name in ("event", "data", "id")}}
"""The schema of one event; ``data`` is JSON."""

EXAMPLE = 'event: progress\ndata: {"stage": "search", "progress": 0.4, "steps": 1200}\nid: 17\n\n'


def _existing(database: DatabaseOfApp, job_id: JobId) -> str:
    with database.read() as session:
        return jobs.get(session, job_id).id


def _since(database: Database, job_id: str, last_id: int) -> News:
    """Events after ``last_id``, and whether there will be no more after these."""
    with database.read() as session:
        try:
            finished = jobs.is_finished(session, job_id)  # before its events: the last came with it
        except NotFound:
            return [], True
        found = sent(events.after(session, job_id, last_id))
        return found, finished and not found


class EventStream(Response):
    """Sends a job's events after ``last_id`` until its end, the token's, or the client's."""

    media_type = "text/event-stream"

    def __init__(self, database: Database, feed: Feed, job_id: str, last_id: int, who: Principal) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.database, self.feed, self.job_id, self.last_id, self.who = database, feed, job_id, last_id, who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._send = send
        async with anyio.create_task_group() as both:
            both.start_soon(self._until_gone, receive, both.cancel_scope)
            await self._follow()
            both.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})

    @staticmethod
    async def _until_gone(receive: Receive, sending: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        sending.cancel()

    async def _follow(self) -> None:
        done = False
        while not done:  # who falls behind begins again with what it has missed
            with self.feed.follow(self.job_id, self.last_id, self.who) as news, suppress(anyio.EndOfStream):
                done = await self._catch_up()
                while not done:
                    found: Events = []
                    with anyio.move_on_after(PING_S) as waiting:
                        found, done = await news.receive()
                    await self._write(found, or_else=KEEPALIVE_COMMENT if waiting.cancelled_caught else b"")

    async def _catch_up(self) -> bool:
        """Send what the store has; whether that is all there will be."""
        while True:
            found, done = await run_in_threadpool(_since, self.database, self.job_id, self.last_id)
            await self._write(found)
            if not found:
                return done

    async def _write(self, found: Events, or_else: bytes = b"") -> None:
        new = [(number, event) for number, event in found if number > self.last_id]
        body = b"".join(event for _, event in new) or or_else
        if body:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self.last_id = new[-1][0] if new else self.last_id


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Events as they happen",
    status_code=200,
    response_class=EventStream,
    responses=responses(404, 422, 503, ok={"content": {"text/event-stream": {"schema": EVENT, "example": EXAMPLE}}}),
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
) -> Response:
    """State, progress, points, trials and recommendations, from the job's first event on; ends with the job."""
    return EventStream(database, feed, job_id, max(last_event_id, after), who)
