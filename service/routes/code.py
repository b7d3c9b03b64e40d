"""Code bundles: upload one, ask whether one is there."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.exceptions import HTTPException

from clr.bundles.archive import REQUIREMENTS, InvalidBundle, check
from clr.bundles.requirements import REFUSAL
from clr.errors import InvalidArgument
from service.parameters import DatabaseOfApp, SettingsOfApp, Who
from service.problems import responses
from service.schemas import CodeView
from service.store import audit, code

OFF = "this service takes no code: it would run with all rights of a worker; its admin may set CLR_ALLOW_CODE=true"

BINARY = {"schema": {"type": "string", "format": "binary"}}
ZIP = {"requestBody": {"required": True, "content": {"application/octet-stream": BINARY}, "description": "a zip"}}


def _allowed(settings: SettingsOfApp) -> None:
    if not settings.allow_code:
        raise HTTPException(403, OFF)


async def _body(request: Request) -> bytes:
    return await request.body()


router = APIRouter(prefix="/v1/code", tags=["code"], dependencies=[Depends(_allowed)])

Digest = Annotated[
    str,
    Path(
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the zip's bytes, in lower-case hex digits",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ),
]


@router.put(
    "/{sha256}",
    status_code=201,
    summary="Upload code",
    response_description="it is stored now",
    openapi_extra=ZIP,
    responses={
        200: {"model": CodeView, "description": "it was stored already"},
        201: {"headers": {"Location": {"description": "the code's path", "schema": {"type": "string"}}}},
        **responses(403, 413, 422, 503),
    },
)
def upload(
    database: DatabaseOfApp,
    settings: SettingsOfApp,
    who: Who,
    response: Response,
    sha256: Digest,
    data: Annotated[bytes, Depends(_body)],
) -> CodeView:
    """Store a zip of a user's code under the digest of its bytes, for the field `code` of jobs. Off unless enabled."""
    try:
        names = check(data, sha256)
        if settings.code_requirements == "refuse" and REQUIREMENTS in names:
            raise InvalidBundle(REFUSAL, REQUIREMENTS)
    except InvalidBundle as error:
        raise InvalidArgument("body", error.rule, error.value) from error
    with database.begin() as session:
        row, new = code.put(session, sha256, data, len(names))
        if new:
            audit.record(session, who.name, "upload", detail=sha256)
        view = CodeView.of(row)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/code/{sha256}"
    return view


@router.get("/{sha256}", summary="Whether code is there", responses=responses(403, 404, 422, 503))
@router.head("/{sha256}", include_in_schema=False)
def show(database: DatabaseOfApp, sha256: Digest) -> CodeView:
    """What is known of uploaded code; 404 where it has yet to be uploaded. The code itself is not given out."""
    with database.read() as session:
        return CodeView.of(code.get(session, sha256))
