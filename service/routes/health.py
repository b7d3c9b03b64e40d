"""Whether the process lives, and whether it can serve."""

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from service.parameters import DatabaseOfApp
from service.problems import responses
from service.schemas import Alive, Ready
from service.store import workers
from service.store.database import is_migrated

router = APIRouter(tags=["operations"])


@router.get("/healthz", summary="Liveness")
async def healthz() -> Alive:
    """The process lives."""
    return Alive()


@router.get("/readyz", summary="Readiness", responses=responses(503))
def readyz(database: DatabaseOfApp) -> Ready:
    """Jobs are accepted and worked on: database reachable, its schema at head, a worker alive that has its Ray."""
    try:
        database.ping()
    except SQLAlchemyError as error:
        raise HTTPException(503, "database: it does not answer; is it running?") from error
    if not is_migrated(database):
        raise HTTPException(503, "schema: the database is not at the newest migration; run clr migrate")
    with database.read() as session:
        alive, ready = workers.alive(session), workers.ready(session)
    if not alive:
        raise HTTPException(503, "workers: none was seen lately, so jobs stay queued; start clr worker")
    if not ready:
        raise HTTPException(
            503,
            f"workers: {len(alive)} alive, but without Ray, so jobs stay queued until it has started; see their logs",
        )
    return Ready(workers=len(ready))
