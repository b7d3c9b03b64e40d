"""The calls of a clr service: what is sent, how its answer reads, when it is tried again. The clients do the I/O."""

import math
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from tenacity import RetryCallState, retry_if_exception_type, retry_if_result, stop_before_delay, wait_exponential

from clr.client.results import RecordedTest, TrialResult
from clr.errors import ClrError, InvalidArgument
from clr.range_tests.bounds import Bounds
from clr.run import Direction
from clr.tuning.recommendation import Recommendation

T_co = TypeVar("T_co", covariant=True)
Document = dict[str, Any]

AWAY = frozenset({502, 503, 504})
"""Answers that come while a service, or one behind a proxy, is restarted."""

OUTAGE_S = 60.0
"""How long a job that is followed is tried again: long enough for a restart of the service."""

SILENCE_S = 60.0
"""A stream of events this long without a byte is taken for dropped."""

POLL_S = 0.5

USUAL_URL = "http://127.0.0.1:8000"
"""Where ``clr serve`` listens unless told otherwise."""

WAIT_S = 2.0
"""Between two askings for a run while others must end first."""

UPLOAD_S = 300.0
"""Longest wait while code is uploaded and checked."""


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


@dataclass(frozen=True)
class Call(Generic[T_co]):
    """One call.

    Args:
        method, path: of the request.
        read: makes the result of an answer that is a success.
        repeatable: whether it may be sent again where its answer was lost.
        request: further arguments of ``httpx.Client.request``.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T_co]
    repeatable: bool = True
    request: Mapping[str, Any] = field(default_factory=dict)


def submit(spec: Mapping[str, Any], idempotency_key: str | None) -> Call[Document]:
    """Submit a job; the key makes it repeatable."""
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    return Call("POST", "/v1/jobs", _json, request={"json": dict(spec), "headers": headers})


def predict(spec: Mapping[str, Any]) -> Call[Document]:
    """Check a job and tell its cost."""
    return Call("POST", "/v1/jobs", _json, request={"json": dict(spec), "params": {"dry_run": "true"}})


def job(job_id: str) -> Call[Document]:
    """A job as it stands."""
    return Call("GET", job_path(job_id), _json)


def cancel(job_id: str) -> Call[Document]:
    """Cancel a job: a second time is refused, so it is not repeated."""
    return Call("POST", job_path(job_id, "cancel"), _json, repeatable=False)


def items(path: str, filters: Mapping[str, str | None], cursor: str | None) -> Call[tuple[list[Document], str | None]]:
    """The items of one page of a list, and the cursor of the next page; None on the last."""
    params = {name: value for name, value in {**filters, "cursor": cursor}.items() if value is not None}
    return Call("GET", path, _page, request={"params": params})


def recommendation(job_id: str) -> Call[Recommendation]:
    """What was found."""
    return Call("GET", job_path(job_id, "recommendation"), lambda answer: Recommendation.from_dict(answer.json()))


def range_test(job_id: str) -> Call[RecordedTest]:
    """The range test as far as it is."""
    return Call("GET", job_path(job_id, "range-test"), lambda answer: RecordedTest.from_dict(answer.json()))


def range_test_svg(job_id: str) -> Call[str]:
    """The range test's picture."""
    return Call("GET", job_path(job_id, "range-test.svg"), lambda answer: answer.text)


def analyze(
    lr: Iterable[float], loss: Iterable[float | None], metric: Iterable[float | None] | None, direction: Direction
) -> Call[Bounds]:
    """Read the bounds from a recorded curve."""
    columns = {"lr": lr, "loss": loss} | ({} if metric is None else {"metric": metric})
    body = {name: [finite(value) for value in column] for name, column in columns.items()} | {"direction": direction}
    return Call("POST", "/v1/bounds", lambda answer: Bounds(**answer.json()), request={"json": body})


def put_range_test(job_id: str, points: Iterable[Mapping[str, float | None]], seed: int) -> Call[RecordedTest]:
    """Give a ramp that was recorded anyway."""
    finite_points = [{name: finite(value) for name, value in point.items()} for point in points]
    path = job_path(job_id, "range-test")
    body = {"points": finite_points, "seed": seed}
    return Call("PUT", path, lambda answer: RecordedTest.from_dict(answer.json()), request={"json": body})


def next_run(job_id: str, key: str) -> Call[Document | None]:
    """Ask for the next run; None: not yet. The key makes it repeatable."""
    path = job_path(job_id, "runs")
    return Call("POST", path, _ordered, request={"headers": {"Idempotency-Key": key}})


def report(job_id: str, stage: str, number: int, points: list[Document], attempt: int) -> Call[bool]:
    """Report on a run: whether to stop it."""
    path = job_path(job_id, "runs", stage, str(number), "points")
    body = {"points": points, "attempt": attempt}
    return Call("POST", path, lambda answer: bool(answer.json()["stop"]), request={"json": body})


def tell(job_id: str, stage: str, number: int, value: float | None, attempt: int) -> Call[TrialResult]:
    """Tell a run's value at its end."""
    return _result(job_id, stage, number, {"value": finite(value), "attempt": attempt})


def fail(job_id: str, stage: str, number: int, error: str, attempt: int) -> Call[TrialResult]:
    """Tell why a run has none."""
    return _result(job_id, stage, number, {"state": "failed", "error": error, "attempt": attempt})


def extend(job_id: str, budget: float) -> Call[Document]:
    """Grant a finished job more trainings."""
    return Call("POST", job_path(job_id, "extend"), _json, request={"json": {"budget": budget}})


def code(digest: str) -> Call[Document]:
    """Whether code was uploaded: status 404 where it was not."""
    return Call("GET", f"/v1/code/{digest}", _json)


def upload(digest: str, data: bytes) -> Call[Document]:
    """Upload code. Named by its content, it may come any number of times."""
    request = {"content": data, "headers": {"Content-Type": "application/octet-stream"}, "timeout": UPLOAD_S}
    return Call("PUT", f"/v1/code/{digest}", _json, request=request)


def trial(document: Mapping[str, Any]) -> TrialResult:
    """A trial out of a page of them."""
    return TrialResult.from_dict(document)


def job_path(job_id: str, *rest: str) -> str:
    """Path of a job, or of what belongs to it; an id can reach no other."""
    if not job_id:
        raise InvalidArgument("job_id", "must be the id of a job", job_id)
    return "/".join(["/v1/jobs", quote(job_id, safe=""), *rest])


def service(url: str | None, token: str | None) -> tuple[str, str | None]:
    """Address of a service, without a slash at its end, and the token to send.

    Without an address both are the environment's, ``CLR_URL`` and ``CLR_TOKEN``, or this machine's usual one; a token
    of the environment goes to no address that somebody else names.
    """
    if url is None:
        url, token = os.environ.get("CLR_URL") or USUAL_URL, token or os.environ.get("CLR_TOKEN") or None
    if not url.startswith(("http://", "https://")):
        raise InvalidArgument("url", "must begin with http:// or https://", url)
    return url.rstrip("/"), token


def retries(repeatable: bool, patience_s: float) -> dict[str, Any]:
    """When one call is tried again, as arguments of ``tenacity.Retrying``; the last outcome is what comes of it.

    What never arrived may always be; what may have arrived only where a repetition does no harm.

    Args:
        repeatable: whether a repetition does no harm.
        patience_s: how long to try.
    """
    away = AWAY if repeatable else frozenset({503})
    lost = httpx.TransportError if repeatable else httpx.ConnectError
    return {
        "retry": retry_if_exception_type(lost) | retry_if_result(lambda answer: answer.status_code in away),
        "wait": _pause_s,
        "stop": stop_before_delay(patience_s),
        "retry_error_callback": lambda state: state.outcome.result(),
    }


_GROWING = wait_exponential(multiplier=0.1, max=2.0)


def _pause_s(state: RetryCallState) -> float:
    """A pause that grows, and is no shorter than the service asks for."""
    asked = (
        "" if state.outcome is None or state.outcome.failed else state.outcome.result().headers.get("Retry-After", "")
    )
    return max(_GROWING(state), float(asked) if asked.isdecimal() else 0.0)


def unreachable(url: str, error: httpx.TransportError) -> ClientError:
    """The error where there was no answer."""
    reason = str(error) or type(error).__name__
    return ClientError(f"no answer from {url} ({reason}): is the service running, and is this its URL?")


def refusal(answer: httpx.Response) -> ClientError:
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


def _result(job_id: str, stage: str, number: int, body: Mapping[str, Any]) -> Call[TrialResult]:
    path = job_path(job_id, "runs", stage, str(number), "result")
    return Call("PUT", path, lambda answer: trial(answer.json()), request={"json": body})


def _ordered(answer: httpx.Response) -> Document | None:
    return None if answer.status_code == 204 else _json(answer)


def finite(value: float | None) -> float | None:
    """A number as JSON has it: None where it is not finite."""
    return None if value is None or not math.isfinite(value) else float(value)


def _json(answer: httpx.Response) -> Document:
    document: Document = answer.json()
    return document


def _page(answer: httpx.Response) -> tuple[list[Document], str | None]:
    document = answer.json()
    return document["items"], document["next_cursor"]
