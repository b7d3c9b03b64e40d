"""The API: the routes over one database."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from service import problems
from service.access.guard import Guard, is_loopback
from service.access.principal import Register
from service.access.rights import OPEN
from service.answer_headers import AnswerHeaders
from service.external.job import expire_all, settle_all
from service.feed import Feed
from service.metrics import Measure, Metrics
from service.notices import deliver_all
from service.pages import compare, job, new, signin
from service.pages import jobs as job_list
from service.pages.page import Assets
from service.pages.people import ForPeople
from service.pictures import warm
from service.request_body import RequestBody
from service.routes import (
    audit,
    bounds,
    code,
    dashboard,
    events,
    external,
    health,
    jobs,
    metrics,
    pictures,
    recommendations,
    reference,
    results,
    tasks,
)
from service.settings import Settings
from service.store.database import Database, is_migrated
from service.submission import Schemas

log = logging.getLogger(__name__)

KEEP_TIME_EVERY_S = 2.0
SMALLEST_GZIPPED = 1000  # bytes

DESCRIPTION = """
Submit a training job; read `base_lr`, `max_lr` and `stepsize` for a cyclical learning rate, with the evidence.

Times are UTC (RFC 3339). Errors are problem documents (RFC 9457); for invalid input, `errors` names each field,
the rule it breaks and the value received. Lists are pages: give `next_cursor` back as `cursor` for the next.
"""


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["schemas"].update(problems.schemas())
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path in document["paths"].keys() - OPEN:
            for operation in document["paths"][path].values():
                operation["security"] = [{"token": []}, {}]  # none is asked for while none exists
                of_bodies = (400, 408, 413) if "requestBody" in operation else ()
                possible = problems.responses(401, 403, 429, *of_bodies)
                operation["responses"] |= {str(status): response for status, response in possible.items()}
        return document


async def _keep_time(database: Database) -> None:
    """End external jobs at their time limits, and show their studies: no worker has them."""
    while True:
        await anyio.sleep(KEEP_TIME_EVERY_S)
        try:
            await run_in_threadpool(expire_all, database)
            await run_in_threadpool(settle_all, database)
        except SQLAlchemyError as error:
            log.warning("the database does not answer: %s", error)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    database = Database(settings.database_url)
    try:
        if not is_migrated(database):
            raise RuntimeError("the database's schema is not at the newest migration: run `clr migrate` first")
        app.state.database = database
        async with anyio.create_task_group() as beside:
            beside.start_soon(_keep_time, database)
            beside.start_soon(deliver_all, database, settings)
            beside.start_soon(app.state.feed.run, database)
            beside.start_soon(run_in_threadpool, warm)
            yield
            beside.cancel_scope.cancel()
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
        docs_url=None,
        redoc_url=None,
        routes=dashboard.routes(settings.database_url),
    )
    app.state.settings = settings
    app.state.register = Register()
    app.state.feed = Feed(app.state.register)
    app.state.schemas = Schemas()
    app.state.metrics = Metrics(lambda: app.state.database)
    app.add_middleware(RequestBody, limit_bytes=settings.body_limit, code_limit_bytes=settings.code_limit)
    app.add_middleware(
        Guard, register=app.state.register, may_be_open=is_loopback(settings.host), per_s=settings.rate_limit
    )
    app.add_middleware(Measure, metrics=app.state.metrics)
    app.add_middleware(ForPeople)
    app.add_middleware(GZipMiddleware, minimum_size=SMALLEST_GZIPPED, compresslevel=5)
    app.add_middleware(AnswerHeaders)
    problems.install(app)
    for module in (jobs, events, results, pictures, external, recommendations, bounds, tasks, code, audit):
        app.include_router(module.router)
    for other in (health, metrics, reference, job_list, new, job, compare, signin):
        app.include_router(other.router)
    app.mount("/assets", Assets())
    app.mount(reference.ASSETS, reference.assets())
    return app
