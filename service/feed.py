"""The events of jobs on their way to all who follow them: one look at the store feeds every stream of a process."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from service.access.principal import Principal, Register
from service.store import events
from service.store.database import Database
from service.store.models import EventRow

log = logging.getLogger(__name__)

POLL_S = 0.25
BATCHES = 16
"""A follower that is so many looks behind is left to read for itself what it has missed."""

Events = Sequence[tuple[int, bytes]]
"""Numbers of events, and each as it is sent: made once for all followers."""

News = tuple[Events, bool]
"""What is new, and whether there will be no more."""


@dataclass
class _Followed:
    """A job that is followed, up to which event its followers were told, and who they are."""

    told: int
    followers: dict[MemoryObjectSendStream[News], Principal] = field(default_factory=dict)

    def tell(self, news: News) -> None:
        for follower in list(self.followers):
            self.tell_one(follower, news)

    def tell_one(self, follower: MemoryObjectSendStream[News], news: News) -> None:
        try:
            follower.send_nowait(news)
        except anyio.WouldBlock:
            self.leave(follower)

    def leave(self, follower: MemoryObjectSendStream[News]) -> None:
        if self.followers.pop(follower, None) is not None:
            follower.close()


class Feed:
    """Looks for news of the jobs that are followed, as long as any is. All but the looking is the event loop's."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._jobs: dict[str, _Followed] = {}

    @contextmanager
    def follow(self, job_id: str, told: int, who: Principal) -> Iterator[MemoryObjectReceiveStream[News]]:
        """What is new of a job after the event numbered ``told``, and maybe before; ends when a follower is behind."""
        mine, theirs = anyio.create_memory_object_stream[News](BATCHES)
        followed = self._jobs.setdefault(job_id, _Followed(told))
        followed.followers[mine] = who
        try:
            with theirs:
                yield theirs
        finally:
            followed.leave(mine)
            if not followed.followers and self._jobs.get(job_id) is followed:
                del self._jobs[job_id]

    async def run(self, database: Database) -> None:
        """Feed the followers until cancelled."""
        while True:
            try:
                if self._jobs:
                    told = {job_id: followed.told for job_id, followed in self._jobs.items()}
                    self._tell(await run_in_threadpool(self._look, database, told))
            except SQLAlchemyError as error:
                log.warning("the database does not answer: %s", error)
            await anyio.sleep(POLL_S)

    def _look(self, database: Database, told: dict[str, int]) -> dict[str, News]:
        if not self._register.is_fresh:
            self._register.refresh(database)
        news: dict[str, News] = {}
        with database.read() as session:
            newest = events.newest(session, list(told))
            for job_id, last in told.items():
                state, number = newest.get(job_id, ("deleted", 0))
                found = sent(events.after(session, job_id, last)) if number > last else []
                is_over = state not in ("queued", "running") and _last(found, last) >= number
                if found or is_over:
                    news[job_id] = found, is_over
        return news

    def _tell(self, news: dict[str, News]) -> None:
        for job_id, followed in self._jobs.items():
            for follower, who in list(followed.followers.items()):
                if not self._register.holds(who):
                    followed.tell_one(follower, ([], True))
            if job_id in news:
                followed.told = _last(news[job_id][0], followed.told)
                followed.tell(news[job_id])


def _last(found: Events, otherwise: int) -> int:
    return found[-1][0] if found else otherwise


def sent(rows: Sequence[EventRow]) -> Events:
    """Events as they are sent."""
    return [(row.id, format_sse_event(data_str=json.dumps(row.data), event=row.kind, id=str(row.id))) for row in rows]
