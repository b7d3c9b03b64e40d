"""Exceptions as problem documents (RFC 9457). The one place that knows which exception is which status."""

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Self, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from optuna.exceptions import StorageInternalError
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from clr.errors import InvalidArgument, InvalidArguments, broken_rules
from service.store.errors import Busy, Conflict, LimitReached, NotAllowed, NotFound

SHOWN_CHARS = 200
SHOWN_ITEMS = 20
SENTENCES = 3


class InvalidField(BaseModel):
    field: str = Field(description="dotted path of the field", examples=["optimizer.args.lr"])
    rule: str = Field(description="the rule it breaks", examples=["must be at least 1"])
    value: Any = Field(description="the value received, shortened; null where there was none", examples=[-1])

    @classmethod
    def of(cls, field: str, rule: str, value: Any) -> Self:
        return cls(field=shown(field) or "body", rule=rule, value=shown(value))

    def __str__(self) -> str:
        return f"{self.field}: {self.rule} (got {json.dumps(self.value, ensure_ascii=False)})"


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field("about:blank", description="about:blank: the status says it all")
    title: str = Field(description="the status in words", examples=["Not Found"])
    status: int = Field(description="the HTTP status", examples=[404])
    detail: str = Field(description="what happened, and what to do next", examples=["no job has the id 'x'"])
    instance: str = Field(description="path of the request", examples=["/v1/jobs/x"])
    errors: list[InvalidField] | None = Field(None, description="for invalid input: each field in error")


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        # a lone surrogate out of "\ud800" has no UTF-8 form
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def responses(*statuses: int, ok: dict[str, Any] | None = None) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the problems that a route may answer with, and what is to say about its 200."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    described: dict[int | str, dict[str, Any]] = {200: ok} if ok else {}
    return described | {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def schemas() -> dict[str, Any]:
    """The components that ``responses`` refers to."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "Problem": schema}


def problem(
    request: Request,
    status: int,
    detail: str,
    errors: Sequence[InvalidField] = (),
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
    }
    if errors:
        document["errors"] = [error.model_dump() for error in errors]
    return ProblemResponse(document, status, headers)


def install(app: FastAPI) -> None:
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


def answer(request: Request, exc: Exception) -> Response:
    """The answer to an exception outside the routes; a bug's is raised on."""
    for kind in type(exc).__mro__:
        if kind in _HANDLERS and kind is not Exception:
            return _HANDLERS[kind](request, exc)
    raise exc


def invalid_fields(error: InvalidArgument) -> list[InvalidField]:
    """Each field in error, as problem documents show it."""
    return [InvalidField.of(one.field, one.rule, one.value) for one in error.errors[:SHOWN_ITEMS]]


def shown(value: Any, depth: int = 3) -> Any:
    """A value as an error shows it: short, shallow, and always JSON."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, Mapping | list | tuple) and depth == 0:
        return "..."
    if isinstance(value, Mapping):
        first = list(value.items())[:SHOWN_ITEMS]
        return {str(shown(key)): shown(item, depth - 1) for key, item in first}
    if isinstance(value, list | tuple):
        return [shown(item, depth - 1) for item in value[:SHOWN_ITEMS]]
    text = str(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def _validation(request: Request, exc: Exception) -> ProblemResponse:
    exc = cast(RequestValidationError, exc)
    found = exc.errors()
    if found[0]["type"] == "json_invalid":
        where = found[0]["loc"][-1]
        return problem(request, 400, f"the body is not valid JSON: {found[0]['ctx']['error']} at character {where}")
    if isinstance(exc.body, bytes) and exc.body:
        return problem(request, 415, "the body must be JSON: send it with Content-Type: application/json")
    return _invalid_argument(request, InvalidArguments(one for error in found for one in _of_part(error, exc.body)))


def _of_part(error: Mapping[str, Any], body: Any) -> Sequence[InvalidArgument]:
    """A rule broken in one part of a request: its body, query or path."""
    part, *place = error["loc"]
    return broken_rules([{**error, "loc": place}], body if part == "body" else None).errors


def _invalid_argument(request: Request, exc: Exception) -> ProblemResponse:
    fields = invalid_fields(cast(InvalidArgument, exc))
    return problem(request, 422, "; ".join(map(str, fields[:SENTENCES])), fields)


def _http(request: Request, exc: Exception) -> ProblemResponse:
    exc = cast(HTTPException, exc)
    headers = {"Allow": ", ".join(_allowed(request))} if exc.status_code == 405 else exc.headers
    return problem(request, exc.status_code, _DETAILS.get(exc.detail, exc.detail), headers=headers)


def _allowed(request: Request) -> list[str]:
    """All methods of a path; the framework names those of its first route alone."""
    asked = {key: request.scope[key] for key in ("type", "path", "root_path", "headers")}
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    routes = request.app.routes
    return [m for m in methods if any(r.matches(asked | {"method": m})[0] is Match.FULL for r in routes)]


def _not_found(request: Request, exc: Exception) -> ProblemResponse:
    return problem(request, 404, str(exc))


def _not_allowed(request: Request, exc: Exception) -> ProblemResponse:
    return problem(request, 403, str(exc))


def _conflict(request: Request, exc: Exception) -> ProblemResponse:
    return problem(request, 409, str(exc))


def _too_many(request: Request, exc: Exception) -> ProblemResponse:
    return problem(request, 429, str(exc), headers={"Retry-After": "10"})


def _unavailable(request: Request, exc: Exception) -> ProblemResponse:
    return problem(request, 503, "the database does not answer; try again in a moment", headers={"Retry-After": "2"})


def _busy(request: Request, exc: Exception) -> ProblemResponse:
    return problem(request, 503, str(exc), headers={"Retry-After": "2"})


def _gone(request: Request, exc: Exception) -> ProblemResponse:
    return problem(request, 400, "the connection ended before the body did")  # nobody is there to read it


def _bug(request: Request, exc: Exception) -> ProblemResponse:
    return problem(request, 500, "an error of the service, not of the request; its log has the details")


# what frameworks say, in sentences that say what to do
_DETAILS = {
    "Not Found": "nothing is at this path; /docs lists what there is",
    "Method Not Allowed": "this path does not have that method; the Allow header lists those it has",
    "There was an error parsing the body": "the body is not JSON that can be read: text in UTF-8, nested less than "
    "200 deep, numbers of less than 4300 digits",
}

_HANDLERS = {
    RequestValidationError: _validation,
    InvalidArgument: _invalid_argument,
    HTTPException: _http,
    ClientDisconnect: _gone,
    NotFound: _not_found,
    Conflict: _conflict,
    Busy: _busy,
    NotAllowed: _not_allowed,
    LimitReached: _too_many,
    OperationalError: _unavailable,
    InterfaceError: _unavailable,
    PoolTimeout: _unavailable,
    StorageInternalError: _unavailable,
    Exception: _bug,
}
