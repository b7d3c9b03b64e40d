"""The client of a clr service, over REST. Needs no torch. ``clr.client.asynchronous`` is its twin for asyncio."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from httpx_sse import EventSource
from tenacity import Retrying

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
from clr.client.service_run import ServiceRun
from clr.range_tests.bounds import Bounds
from clr.run import Direction
from clr.tuning.recommendation import Recommendation

__all__ = ["Client", "ClientError", "Job"]

T = TypeVar("T")


class Job(JobDocument):
    """A job of the service, as last seen; ``refresh`` and ``wait`` bring it up to date.

    Args:
        client: through which it is reached.
        document: the job as the service tells it.
    """

    def __init__(self, client: "Client", document: Mapping[str, Any]):
        super().__init__(document)
        self._client = client

    def refresh(self, patience_s: float | None = None) -> Self:
        """Ask the service how it stands now, for up to ``patience_s`` (None: the client's) while it is away."""
        self.document = self._client._do(calls.job(self.id), patience_s)
        return self

    def wait(
        self,
        timeout_s: float | None = None,
        on_progress: Callable[["Job"], object] | None = None,
        progress: bool = False,
    ) -> Self:
        """Wait until it is finished, riding out a restart of the service.

        Args:
            timeout_s: seconds, or None to wait for ever.
            on_progress: called with the job each time it was looked at.
            progress: show a bar, in a terminal or a notebook.

        Raises:
            TimeoutError: not finished in time; the job goes on.
            ClientError: the service cannot be reached for a minute, or the job was deleted.
        """
        if progress:
            with Progress() as shown:
                return self.wait(timeout_s, shown.show)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self.refresh(OUTAGE_S)
            if on_progress is not None:
                on_progress(self)
            if self.finished:
                return self
            if deadline is not None and time.monotonic() + POLL_S > deadline:
                raise TimeoutError(f"job {self.id} is still {self.state} after {timeout_s:g} s and goes on")
            time.sleep(POLL_S)

    def recommendation(self) -> Recommendation:
        """What was found, so far or in the end: as ``Client.recommendation``."""
        return self._client.recommendation(self.id)

    def range_test(self) -> RecordedTest:
        """Its range test, as far as it is."""
        return self._client.range_test(self.id)

    def trials(self) -> Iterator[TrialResult]:
        """The trials of its search, by number."""
        return self._client.trials(self.id)

    def cancel(self) -> Self:
        """Ask the service to stop it; it is cancelled within seconds, and what was found stays."""
        self.document = self._client._do(calls.cancel(self.id))
        return self

    def extend(self, budget: float) -> Self:
        """Grant it so many trainings more, once it has succeeded: it goes on from all that it knows."""
        self.document = self._client._do(calls.extend(self.id, budget))
        return self

    def put_range_test(self, points: Iterable[Mapping[str, float | None]], *, seed: int = 0) -> RecordedTest:
        """Give an external job a ramp that was recorded anyway, instead of its range test.

        Args:
            points: for each optimizer step of the ramp its ``lr``, ``loss`` and, where it was taken, ``metric``; with
                ``step`` where some are left out.
            seed: tells one repetition from another; the same again replaces it until a run is asked for.

        Returns:
            The range test so far: its curves and ``bounds``.
        """
        return self._client._do(calls.put_range_test(self.id, points, seed))

    def next_run(self) -> ServiceRun | None:
        """The next run of an external job, to be trained by the caller; None when the job is over.

        Waits while the runs of other trainers must end first.
        """
        key = str(uuid.uuid4())
        while True:
            try:
                document = self._client._do(calls.next_run(self.id, key))
            except ClientError as refusal:
                if refusal.status == 409 and self.refresh().finished:
                    return None
                raise
            if document is not None:
                return ServiceRun(self._client, self.id, document)
            time.sleep(WAIT_S)

    def _repr_html_(self) -> str:
        from clr.charts.notebook import job_html

        try:
            picture = self._client._do(calls.range_test_svg(self.id))
        except ClientError:  # there are no points yet, or the service is away
            picture = None
        return job_html(self.document, picture)


class Client:
    """A connection to a clr service; usable in a ``with`` statement.

    Args:
        url: where it is, e.g. ``http://127.0.0.1:8000``; None: what ``CLR_URL`` says, else that, with the token
            that ``CLR_TOKEN`` says.
        token: sent as a bearer token; None where the service asks for none.
        timeout_s: longest wait for one answer, seconds, > 0.
        patience_s: how long a call is tried again while the service cannot be reached, seconds, >= 0.

    Raises:
        InvalidArgument: ``url`` is not an http or https address.

    >>> Client("localhost:8000")
    Traceback (most recent call last):
    clr.errors.InvalidArgument: url: must begin with http:// or https://, but got 'localhost:8000'
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, timeout_s: float = 30.0, patience_s: float = 3.0
    ):
        (self.url, token), self.patience_s = service(url, token), patience_s
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def submit(self, spec: Mapping[str, Any], idempotency_key: str | None = None) -> Job:
        """Submit a job spec. Sent again after a lost connection, it is still one job.

        Args:
            spec: the job; only ``task`` is required.
            idempotency_key: the same key with the same spec gives the same job; None: a new one.

        Raises:
            ClientError: a field breaks its rule, or the service cannot be reached.
        """
        return Job(self, self._do(calls.submit(spec, idempotency_key)))

    def predict(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Check a job spec and store nothing: ``spec`` with all its defaults, and the ``cost`` of the job.

        Raises:
            ClientError: a field breaks its rule, or the service cannot be reached.
        """
        return self._do(calls.predict(spec))

    def analyze(
        self,
        lr: Iterable[float],
        loss: Iterable[float | None],
        metric: Iterable[float | None] | None = None,
        direction: Direction = "maximize",
    ) -> Bounds:
        """As ``clr.read_bounds`` of one curve, read by the service: for who has no NumPy, or not the newest clr.

        Raises:
            ClientError: a column breaks its rule, or the service cannot be reached.
        """
        return self._do(calls.analyze(lr, loss, metric, direction))

    def upload_code(self, folder: str | Path) -> str:
        """Upload a folder of code, unless the service has it already.

        Args:
            folder: what git ignores in it is left out.

        Returns:
            Its digest, for the field ``code`` of a job.

        Raises:
            InvalidArgument: the folder cannot be packed.
            ClientError: the service refuses it, or takes no code.
        """
        data = pack(folder)
        digest = digest_of(data)
        try:
            self._do(calls.code(digest))
        except ClientError as error:
            if error.status != 404:
                raise
            self._do(calls.upload(digest, data))
        return digest

    def job(self, job_id: str) -> Job:
        """The job of that id."""
        return Job(self, self._do(calls.job(job_id)))

    def jobs(self, *, state: str | None = None, task: str | None = None, name: str | None = None) -> Iterator[Job]:
        """All jobs that match, newest first, fetched page by page as they are asked for."""
        return (Job(self, one) for one in self._all("/v1/jobs", state=state, task=task, name=name))

    def recommendation(self, job_id: str) -> Recommendation:
        """What was found.

        Raises:
            ClientError: status 409 while there is none yet; the message says why.
        """
        return self._do(calls.recommendation(job_id))

    def range_test(self, job_id: str) -> RecordedTest:
        """The range test of a job, as far as it is."""
        return self._do(calls.range_test(job_id))

    def trials(self, job_id: str) -> Iterator[TrialResult]:
        """The trials of a job, by number, fetched page by page as they are asked for."""
        return (calls.trial(one) for one in self._all(job_path(job_id, "trials")))

    def tasks(self) -> list[dict[str, Any]]:
        """What the service's workers can train, each with the JSON schema of its arguments."""
        return list(self._all("/v1/tasks"))

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """The events of a job with ids above ``after``, as they happen, until the job is finished.

        A dropped connection is taken up again after the last event seen: none is missed, none comes twice.
        """
        job, finished = self.job(job_id), False
        while True:
            complete = finished  # only a stream begun on a finished job holds all there will be
            try:
                for event in self._stream(job_id, after):
                    after = event.id
                    yield event
                    if event.kind == "state" and event.data.get("state") in FINISHED:
                        return
            except httpx.TransportError:
                complete = False
            if complete:
                return
            finished = job.refresh(OUTAGE_S).finished
            time.sleep(POLL_S)

    def _stream(self, job_id: str, after: int) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        timeout = httpx.Timeout(self._http.timeout.connect, read=SILENCE_S)
        with self._http.stream("GET", job_path(job_id, "events"), headers=headers, timeout=timeout) as answer:
            if answer.status_code in AWAY:
                raise httpx.ConnectError(f"HTTP {answer.status_code}")
            if answer.is_error:
                answer.read()
                raise refusal(answer)
            for sent in EventSource(answer).iter_sse():
                if sent.data:  # else a sign of life
                    yield Event.of(sent)

    def _all(self, path: str, **filters: str | None) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            items, cursor = self._do(calls.items(path, filters, cursor))
            yield from items
            if cursor is None:
                return

    def _do(self, call: Call[T], patience_s: float | None = None) -> T:
        request = {"repeatable": call.repeatable, "patience_s": patience_s, **call.request}
        return call.read(self._send(call.method, call.path, **request))

    def _send(
        self, method: str, path: str, *, repeatable: bool = False, patience_s: float | None = None, **request: Any
    ) -> httpx.Response:
        """One call, tried again while the service is away; if not repeatable, only where it never arrived."""
        policy = retries(repeatable, self.patience_s if patience_s is None else patience_s)
        try:
            answer: httpx.Response = Retrying(**policy)(self._http.request, method, path, **request)
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error
        if not answer.is_success:
            raise refusal(answer)
        return answer
