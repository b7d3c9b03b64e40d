"""Bounds from a curve of anywhere. Nothing is stored."""

import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Annotated, Any, Self

import anyio
import anyio.to_process
from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from clr.errors import InvalidArgument
from clr.range_tests.bounds import Bounds
from clr.range_tests.curve_file import Picked, Row, bounds_of_file, recordings_of
from clr.range_tests.recorded import read_recordings
from clr.run import Direction
from service.problems import responses
from service.schemas import BoundsView

router = APIRouter(tags=["results"])

SMALL = 32 * 2**10
"""Bytes of a body whose curve takes no longer to read than a process takes to be asked."""

READ_S = 10.0
AT_ONCE = 2

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Value = Annotated[float, Field(allow_inf_nan=False)] | None
Column = Annotated[str | None, Query(description="for CSV: this column, in the place of the one found by name")]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class _Recorded(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    direction: Direction = Field("maximize", description="whether a larger metric is better")


class RecordedPoint(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    lr: Rate = Field(description="the rate of this step")
    loss: Value = Field(description="the training loss at it; null where it was not finite")
    metric: Value = Field(None, description="of the validation data, where it was taken after this step")
    seed: Seed = Field(0, description="tells the curves of several runs apart")


class RecordedPoints(_Recorded):
    """A curve, step by step; those of several seeds one after the other, or mixed."""

    points: list[RecordedPoint] = Field(min_length=1)

    def rows(self) -> Iterator[Row]:
        return ((str(point.seed), point.lr, point.loss, point.metric) for point in self.points)


class RecordedColumns(_Recorded):
    """A curve as columns, each with one value for each step."""

    lr: list[Rate] = Field(min_length=1)
    loss: list[Value]
    metric: list[Value] | None = None
    seed: list[Seed] | None = None

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        for name in ("loss", "metric", "seed"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.lr):
                sizes = {"field": name, "lr": len(self.lr), "own": len(column)}
                raise PydanticCustomError("length", "must have one value for each of {lr} rates, but has {own}", sizes)
        return self

    def rows(self) -> Iterator[Row]:
        blank = [None] * len(self.lr)
        seeds = map(str, self.seed or [0] * len(self.lr))
        return zip(seeds, self.lr, self.loss, self.metric or blank, strict=True)


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Of a body, with nothing defined elsewhere."""
    schema = model.model_json_schema()
    for definition in schema.pop("$defs", {}).values():
        schema["properties"]["points"]["items"] = definition
    return schema


def _example() -> str:
    """A short ramp whose loss falls and then rises."""
    steps = [(1e-4 * 10 ** (step / 20), 0.3 + 2 / (1 + step / 15) + max(0, step - 60) ** 2 / 100) for step in range(80)]
    return "lr,loss\n" + "".join(f"{lr:.3g},{loss:.3f}\n" for lr, loss in steps)


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"anyOf": [_schema(RecordedPoints), _schema(RecordedColumns)]}},
            "text/csv": {"schema": {"type": "string"}, "example": _example()},
        },
    }
}


async def _body(request: Request) -> bytes:
    return await request.body()


@router.post("/v1/bounds", summary="Bounds from a curve", openapi_extra=BODY, responses=responses(400, 413, 415, 422))
async def bounds(
    request: Request,
    body: Annotated[bytes, Depends(_body)],
    direction: Annotated[
        Direction | None,
        Query(description="for CSV: whether a larger metric is better; left out: by the metric's name"),
    ] = None,
    lr: Column = None,
    loss: Column = None,
    metric: Column = None,
) -> BoundsView:
    """Read base_lr and max_lr from a range test run anywhere: JSON, by points or by columns, or CSV.

    A CSV may have any delimiter and other columns; rate, loss and metric are found by their names, or picked.
    """
    read: Callable[[], Bounds]
    match request.headers.get("content-type", "").partition(";")[0].strip().lower():
        case "application/json":
            recorded = _from_json(body)
            read = partial(read_recordings, recordings_of(recorded.rows()), recorded.direction)
        case "text/csv":
            read = partial(bounds_of_file, _utf8(body), Picked(lr, loss, metric), direction)
        case _:
            raise HTTPException(415, "the body must be a curve: send it as application/json or as text/csv")
    found = await (run_in_threadpool(read) if len(body) <= SMALL else _read_apart(read, len(body)))
    return BoundsView(**found.to_dict())


async def _read_apart(read: Callable[[], Bounds], size: int) -> Bounds:
    """In a process of its own, which can be ended, and leaves this one's threads to the others."""
    with anyio.move_on_after(READ_S):
        return await anyio.to_process.run_sync(read, cancellable=True, limiter=_limiter())
    raise InvalidArgument("body", f"must be a curve that is read within {READ_S:g} s: leave points out", size)


@cache
def _limiter() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(AT_ONCE)


def _utf8(body: bytes) -> bytes:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"the body must be text in UTF-8, but {error.reason} at byte {error.start}") from error
    return body


def _from_json(body: bytes) -> RecordedPoints | RecordedColumns:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not valid JSON: {error}") from error
    model = RecordedColumns if isinstance(document, dict) and "lr" in document else RecordedPoints
    try:
        return model.model_validate(document)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found, body=document) from error
