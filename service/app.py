"""The API: the routes over one database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from service import problems
from service.body_limit import BodyLimit
from service.routes import bounds, code, dashboard, events, health, jobs, recommendations, results, tasks
from service.settings import Settings
from service.store.database import Database, is_migrated

DESCRIPTION = """
Submit a training job; read `base_lr`, `max_lr` and `stepsize` for a cyclical learning rate, with the evidence.

Times are UTC (RFC 3339). Errors are problem documents (RFC 9457); for invalid input, `errors` names each field,
the rule it breaks and the value received. Lists are pages: give `next_cursor` back as `cursor` for the next.
"""


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["schemas"].update(problems.schemas())
        return document


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    database = Database(settings.database_url)
    try:
        if not is_migrated(database):
            raise RuntimeError("the database's schema is not at the newest migration: run `clr migrate` first")
        app.state.database = database
        yield
    finally:
        database.dispose()


def create_app(settings: Settings) -> FastAPI:
    """The API as an ASGI application; it opens its database when it is started."""
    app = _Application(
        title="clr",
        summary="Learning-rate bounds as a service",
        description=DESCRIPTION,
        version=version("clr"),
        lifespan=_lifespan,
        redoc_url=None,
        routes=dashboard.routes(settings.database_url),
    )
    app.state.settings = settings
    app.add_middleware(BodyLimit, limit_bytes=settings.body_limit, code_limit_bytes=settings.code_limit)
    problems.install(app)
    for module in (jobs, events, results, recommendations, bounds, tasks, code, health):
        app.include_router(module.router)
    return app
