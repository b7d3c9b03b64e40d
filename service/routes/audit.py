"""Who did what."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.cursors import LIMIT, Limit, split
from service.parameters import DatabaseOfApp
from service.problems import responses
from service.schemas import Act, Page
from service.store import audit

router = APIRouter(tags=["operations"])

ActCursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="next_cursor of the page before")]


@router.get("/v1/audit", summary="Who did what", responses=responses(422, 503))
def list_acts(database: DatabaseOfApp, limit: Limit = LIMIT, cursor: ActCursor = None) -> Page[Act]:
    """What was done with which token, newest first. For administrators."""
    with database.read() as session:
        rows = audit.browse(session, limit=limit + 1, before=None if cursor is None else int(cursor))
        some, next_cursor = split(rows, limit, lambda row: row.id)
        return Page(items=[Act.model_validate(row) for row in some], next_cursor=next_cursor)
