"""The client of a clr service for asyncio: ``clr.client``'s twin, over the same calls. Needs no torch."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from httpx_sse import EventSource
from tenacity import AsyncRetrying

from clr.bundles.archive import digest_of
from clr.bundles.packing import pack
from clr.client import calls
from clr.client.calls import (
    AWAY,
    OUTAGE_S,
    POLL_S,
    SILENCE_S,
    WAIT_S,
    Call,
    ClientError,
    job_path,
    refusal,
    retries,
    service,
    unreachable,
)
from clr.client.event_stream import Event
from clr.client.progress import Progress
from clr.client.results import FINISHED, JobDocument, RecordedTest, TrialResult
from clr.client.service_run import AsyncServiceRun
from clr.range_tests.bounds import Bounds
from clr.run import Direction
from clr.tuning.recommendation import Recommendation

T = TypeVar("T")


class AsyncJob(JobDocument):
    """As ``clr.client.Job``; what asks the service is awaited."""

    def __init__(self, client: "AsyncClient", document: Mapping[str, Any]):
        super().__init__(document)
        self._client = client

    async def refresh(self, patience_s: float | None = None) -> Self:
        """As ``Job.refresh``."""
        self.document = await self._client._do(calls.job(self.id), patience_s)
        return self

    async def wait(
        self,
        timeout_s: float | None = None,
        on_progress: Callable[["AsyncJob"], object] | None = None,
        progress: bool = False,
    ) -> Self:
        """As ``Job.wait``."""
        if progress:
            with Progress() as shown:
                return await self.wait(timeout_s, shown.show)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            await self.refresh(OUTAGE_S)
            if on_progress is not None:
                on_progress(self)
            if self.finished:
                return self
            if deadline is not None and time.monotonic() + POLL_S > deadline:
                raise TimeoutError(f"job {self.id} is still {self.state} after {timeout_s:g} s and goes on")
            await asyncio.sleep(POLL_S)

    async def recommendation(self) -> Recommendation:
        """As ``Job.recommendation``."""
        return await self._client.recommendation(self.id)

    async def range_test(self) -> RecordedTest:
        """As ``Job.range_test``."""
        return await self._client.range_test(self.id)

    def trials(self) -> AsyncIterator[TrialResult]:
        """As ``Job.trials``."""
        return self._client.trials(self.id)

    async def cancel(self) -> Self:
        """As ``Job.cancel``."""
        self.document = await self._client._do(calls.cancel(self.id))
        return self

    async def extend(self, budget: float) -> Self:
        """As ``Job.extend``."""
        self.document = await self._client._do(calls.extend(self.id, budget))
        return self

    async def put_range_test(self, points: Iterable[Mapping[str, float | None]], *, seed: int = 0) -> RecordedTest:
        """As ``Job.put_range_test``."""
        return await self._client._do(calls.put_range_test(self.id, points, seed))

    async def next_run(self) -> AsyncServiceRun | None:
        """As ``Job.next_run``."""
        key = str(uuid.uuid4())
        while True:
            try:
                document = await self._client._do(calls.next_run(self.id, key))
            except ClientError as refusal:
                if refusal.status == 409 and (await self.refresh()).finished:
                    return None
                raise
            if document is not None:
                return AsyncServiceRun(self._client, self.id, document)
            await asyncio.sleep(WAIT_S)


class AsyncClient:
    """As ``clr.Client``, with the same arguments; usable in an ``async with`` statement."""

    def __init__(
        self, url: str | None = None, token: str | None = None, timeout_s: float = 30.0, patience_s: float = 3.0
    ):
        (self.url, token), self.patience_s = service(url, token), patience_s
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def submit(self, spec: Mapping[str, Any], idempotency_key: str | None = None) -> AsyncJob:
        """As ``Client.submit``."""
        return AsyncJob(self, await self._do(calls.submit(spec, idempotency_key)))

    async def predict(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """As ``Client.predict``."""
        return await self._do(calls.predict(spec))

    async def analyze(
        self,
        lr: Iterable[float],
        loss: Iterable[float | None],
        metric: Iterable[float | None] | None = None,
        direction: Direction = "maximize",
    ) -> Bounds:
        """As ``Client.analyze``."""
        return await self._do(calls.analyze(lr, loss, metric, direction))

    async def upload_code(self, folder: str | Path) -> str:
        """As ``Client.upload_code``."""
        data = await asyncio.to_thread(pack, folder)
        digest = digest_of(data)
        try:
            await self._do(calls.code(digest))
        except ClientError as error:
            if error.status != 404:
                raise
            await self._do(calls.upload(digest, data))
        return digest

    async def job(self, job_id: str) -> AsyncJob:
        """As ``Client.job``."""
        return AsyncJob(self, await self._do(calls.job(job_id)))

    async def jobs(
        self, *, state: str | None = None, task: str | None = None, name: str | None = None
    ) -> AsyncIterator[AsyncJob]:
        """As ``Client.jobs``."""
        async for one in self._all("/v1/jobs", state=state, task=task, name=name):
            yield AsyncJob(self, one)

    async def recommendation(self, job_id: str) -> Recommendation:
        """As ``Client.recommendation``."""
        return await self._do(calls.recommendation(job_id))

    async def range_test(self, job_id: str) -> RecordedTest:
        """As ``Client.range_test``."""
        return await self._do(calls.range_test(job_id))

    async def trials(self, job_id: str) -> AsyncIterator[TrialResult]:
        """As ``Client.trials``."""
        async for one in self._all(job_path(job_id, "trials")):
            yield calls.trial(one)

    async def tasks(self) -> list[dict[str, Any]]:
        """As ``Client.tasks``."""
        return [task async for task in self._all("/v1/tasks")]

    async def events(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """As ``Client.events``."""
        job, finished = await self.job(job_id), False
        while True:
            complete = finished
            try:
                async for event in self._stream(job_id, after):
                    after = event.id
                    yield event
                    if event.kind == "state" and event.data.get("state") in FINISHED:
                        return
            except httpx.TransportError:
                complete = False
            if complete:
                return
            finished = (await job.refresh(OUTAGE_S)).finished
            await asyncio.sleep(POLL_S)

    async def _stream(self, job_id: str, after: int) -> AsyncIterator[Event]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        timeout = httpx.Timeout(self._http.timeout.connect, read=SILENCE_S)
        async with self._http.stream("GET", job_path(job_id, "events"), headers=headers, timeout=timeout) as answer:
            if answer.status_code in AWAY:
                raise httpx.ConnectError(f"HTTP {answer.status_code}")
            if answer.is_error:
                await answer.aread()
                raise refusal(answer)
            async for sent in EventSource(answer).aiter_sse():
                if sent.data:  # else a sign of life
                    yield Event.of(sent)

    async def _all(self, path: str, **filters: str | None) -> AsyncIterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            items, cursor = await self._do(calls.items(path, filters, cursor))
            for item in items:
                yield item
            if cursor is None:
                return

    async def _do(self, call: Call[T], patience_s: float | None = None) -> T:
        request = {"repeatable": call.repeatable, "patience_s": patience_s, **call.request}
        return call.read(await self._send(call.method, call.path, **request))

    async def _send(
        self, method: str, path: str, *, repeatable: bool = False, patience_s: float | None = None, **request: Any
    ) -> httpx.Response:
        """As ``Client._send``."""
        policy = retries(repeatable, self.patience_s if patience_s is None else patience_s)
        try:
            answer: httpx.Response = await AsyncRetrying(**policy)(self._http.request, method, path, **request)
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error
        if not answer.is_success:
            raise refusal(answer)
        return answer
