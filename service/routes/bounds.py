"""Bounds from a curve of anywhere. Nothing is stored."""

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from clr.bounds import read_bounds
from clr.errors import InvalidArgument
from service import curve_file
from service.curve_file import Curve
from service.problems import InvalidField, InvalidInput, responses
from service.schemas import BoundsView

router = APIRouter(tags=["results"])

Direction = Literal["maximize", "minimize"]
Number = Annotated[float, Field(allow_inf_nan=False)]


class RecordedPoint(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    lr: float = Field(ge=0, allow_inf_nan=False, description="the rate of this step")
    loss: Number | None = Field(description="the training loss at it; null where it was not finite")
    metric: Number | None = Field(None, description="of the validation data, where it was taken after this step")
    seed: int = Field(0, ge=-(2**63), lt=2**63, description="tells the curves of several runs apart")


class RecordedCurve(BaseModel):
    """A range test's curve, step by step; several seeds one after the other or mixed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    points: list[RecordedPoint] = Field(min_length=1)
    direction: Direction = Field("maximize", description="whether a larger metric is better")


def _schema() -> dict[str, Any]:
    """That of the body, with nothing defined elsewhere."""
    schema = RecordedCurve.model_json_schema()
    (schema["properties"]["points"]["items"],) = schema.pop("$defs").values()
    return schema


CSV_EXAMPLE = "lr,loss,metric,seed\n0.001,2.31,,0\n0.002,2.29,0.14,0\n"
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _schema()},
            "text/csv": {"schema": {"type": "string"}, "example": CSV_EXAMPLE},
        },
    }
}


async def _body(request: Request) -> bytes:
    return await request.body()


@router.post(
    "/v1/bounds",
    summary="Bounds from a curve",
    openapi_extra=BODY,
    responses=responses(400, 413, 415, 422),
)
def bounds(
    request: Request,
    body: Annotated[bytes, Depends(_body)],
    direction: Annotated[Direction, Query(description="for CSV: whether a larger metric is better")] = "maximize",
) -> BoundsView:
    """Read base_lr and max_lr from a range test run anywhere: JSON points, or CSV with lr,loss[,metric][,seed]."""
    try:
        match request.headers.get("content-type", "").partition(";")[0].strip().lower():
            case "application/json":
                curves, direction = _from_json(body)
            case "text/csv":
                curves = curve_file.parse(_text(body).splitlines())
            case _:
                raise HTTPException(415, "the body must be a curve: send it as application/json or as text/csv")
        return BoundsView(**read_bounds(**curve_file.arguments(curves), direction=direction).to_dict())
    except InvalidArgument as error:
        raise InvalidInput(_field(str(error))) from error


def _from_json(body: bytes) -> tuple[list[Curve], Direction]:
    try:
        recorded = RecordedCurve.model_validate_json(body)
    except ValidationError as error:
        if (first := error.errors()[0])["type"] == "json_invalid":
            raise HTTPException(400, f"the body is not valid JSON: {first['ctx']['error']}") from error
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found, body=json.loads(body)) from error
    rows = ((str(point.seed), point.lr, point.loss, point.metric) for point in recorded.points)
    return curve_file.collect(rows), recorded.direction


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"the body must be text in UTF-8, but {error.reason} at byte {error.start}") from error


def _field(message: str) -> InvalidField:
    """What the method says, ``field: rule, but got value``, in its three parts."""
    field, _, rest = message.partition(": ")
    rule, _, value = rest.partition(", but ")
    return InvalidField.of(field, rule, value)
