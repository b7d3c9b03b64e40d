"""The client of a clr service, over REST. Needs no torch."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self
from urllib.parse import quote

import httpx

from clr import event_stream
from clr.errors import ClrError, InvalidArgument

FINISHED = frozenset({"succeeded", "failed", "cancelled"})
"""The states that a job stays in."""

AWAY = frozenset({502, 503, 504})
"""Answers that come while a service, or one behind a proxy, is restarted."""

OUTAGE_S = 60.0
"""How long a job that is followed is tried again: long enough for a restart of the service."""

SILENCE_S = 60.0
"""A stream of events this long without a byte is taken for dropped."""

POLL_S = 0.5


class ClientError(ClrError):
    """The service refused a call, or could not be reached.

    Args:
        message: what went wrong, on one line.
        status: HTTP status, or None where there was no answer.
        problem: the service's problem document (RFC 9457), ``{}`` where there is none.
    """

    def __init__(self, message: str, status: int | None = None, problem: Mapping[str, Any] | None = None):
        super().__init__(message)
        self.status = status
        self.problem = dict(problem or {})


class Job:
    """A job of the service, as last seen; ``refresh`` and ``wait`` bring it up to date.

    Args:
        client: through which it is reached.
        document: the job as the service tells it.
    """

    def __init__(self, client: "Client", document: Mapping[str, Any]):
        self._client = client
        self.document = dict(document)

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {self.state!r})"

    @property
    def id(self) -> str:
        """Its identifier."""
        return str(self.document["id"])

    @property
    def state(self) -> str:
        """queued, running, succeeded, failed or cancelled."""
        return str(self.document["state"])

    @property
    def finished(self) -> bool:
        """Whether its state is final."""
        return self.state in FINISHED

    def refresh(self, patience_s: float | None = None) -> Self:
        """Ask the service how it stands now, for up to ``patience_s`` (None: the client's) while it is away."""
        self.document = self._client._get(_path(self.id), patience_s=patience_s).json()
        return self

    def wait(self, timeout_s: float | None = None, on_progress: Callable[["Job"], object] | None = None) -> Self:
        """Wait until it is finished, riding out a restart of the service.

        Args:
            timeout_s: seconds, or None to wait for ever.
            on_progress: called with the job each time it was looked at.

        Raises:
            TimeoutError: not finished in time; the job goes on.
            ClientError: the service cannot be reached for a minute, or the job was deleted.
        """
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

    def recommendation(self) -> dict[str, Any]:
        """What was found, so far or in the end: as ``Client.recommendation``."""
        document: dict[str, Any] = self._client.recommendation(self.id)
        return document

    def cancel(self) -> Self:
        """Ask the service to stop it; it is cancelled within seconds, and what was found stays."""
        self.document = self._client._send("POST", _path(self.id, "cancel")).json()
        return self


class Client:
    """A connection to a clr service; usable in a ``with`` statement.

    Args:
        url: where it is, e.g. ``http://127.0.0.1:8000``.
        token: sent as a bearer token; None where the service asks for none.
        timeout_s: longest wait for one answer, seconds, > 0.
        patience_s: how long a call is tried again while the service cannot be reached, seconds, >= 0.

    Raises:
        InvalidArgument: ``url`` is not an http or https address.

    >>> Client("localhost:8000")
    Traceback (most recent call last):
    clr.errors.InvalidArgument: url: must begin with http:// or https://, but got 'localhost:8000'
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 30.0, patience_s: float = 3.0):
        if not url.startswith(("http://", "https://")):
            raise InvalidArgument(f"url: must begin with http:// or https://, but got {url!r}")
        self.url, self.patience_s = url.rstrip("/"), patience_s
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
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        answer = self._send("POST", "/v1/jobs", repeatable=True, json=dict(spec), headers=headers)
        return Job(self, answer.json())

    def job(self, job_id: str) -> Job:
        """The job of that id."""
        return Job(self, self._get(_path(job_id)).json())

    def jobs(self, *, state: str | None = None, task: str | None = None, name: str | None = None) -> Iterator[Job]:
        """All jobs that match, newest first, fetched page by page as they are asked for."""
        filters = {"state": state, "task": task, "name": name}
        params = {key: value for key, value in filters.items() if value is not None}
        while True:
            page = self._get("/v1/jobs", params=params).json()
            yield from (Job(self, document) for document in page["items"])
            if page["next_cursor"] is None:
                return
            params["cursor"] = page["next_cursor"]

    def recommendation(self, job_id: str, format: str | None = None) -> Any:
        """What was found: a dict, or with ``format`` "python" or "yaml" the text to paste.

        Raises:
            ClientError: status 409 while there is none yet; the message says why.
        """
        params = {} if format is None else {"format": format}
        answer = self._get(_path(job_id, "recommendation"), params=params)
        return answer.json() if format in (None, "json") else answer.text

    def tasks(self) -> list[dict[str, Any]]:
        """What the service's workers can train, each with the JSON schema of its arguments."""
        tasks: list[dict[str, Any]] = self._get("/v1/tasks").json()["items"]
        return tasks

    def events(self, job_id: str, after: int = 0) -> Iterator[event_stream.Event]:
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

    def _stream(self, job_id: str, after: int) -> Iterator[event_stream.Event]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        timeout = httpx.Timeout(self._http.timeout.connect, read=SILENCE_S)
        with self._http.stream("GET", _path(job_id, "events"), headers=headers, timeout=timeout) as answer:
            if answer.status_code in AWAY:
                raise httpx.ConnectError(f"HTTP {answer.status_code}")
            if answer.is_error:
                answer.read()
                raise _refusal(answer)
            yield from event_stream.events(event_stream.lines(answer.iter_bytes()))

    def _get(self, path: str, **request: Any) -> httpx.Response:
        return self._send("GET", path, repeatable=True, **request)

    def _send(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool = False,
        patience_s: float | None = None,
        **request: Any,
    ) -> httpx.Response:
        """One call, tried again while the service is away; if not repeatable, only where it never arrived."""
        away, lost = (AWAY, httpx.TransportError) if repeatable else ({503}, httpx.ConnectError)
        deadline, pause_s = time.monotonic() + (self.patience_s if patience_s is None else patience_s), 0.1
        while True:
            try:
                answer = self._http.request(method, path, **request)
                if answer.is_success:
                    return answer
                if answer.status_code not in away or time.monotonic() > deadline:
                    raise _refusal(answer)
            except httpx.TransportError as error:
                if not isinstance(error, lost) or time.monotonic() > deadline:
                    raise self._unreachable(error) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)

    def _unreachable(self, error: Exception) -> ClientError:
        reason = str(error) or type(error).__name__
        return ClientError(f"no answer from {self.url} ({reason}): is the service running, and is this its URL?")


def _path(job_id: str, *rest: str) -> str:
    if not job_id:
        raise InvalidArgument("job_id: must be the id of a job, but is empty")
    return "/".join(["/v1/jobs", quote(job_id, safe=""), *rest])


def _refusal(answer: httpx.Response) -> ClientError:
    """The error for an answer that is not a success, every field error in its message."""
    status = answer.status_code
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return ClientError(f"HTTP {status} from {answer.url}, but not from a clr service: check the URL", status)
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    rules = [f"{error.get('field') or 'body'}: {error.get('rule')}" for error in problem.get("errors") or []]
    return ClientError("; ".join([detail, *(rule for rule in rules if rule not in detail)]), status, problem)
