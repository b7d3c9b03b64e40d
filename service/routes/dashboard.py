"""Optuna's dashboard on the paths that its pages demand. It has no rights of its own: the guard has them for it."""

import asyncio
from typing import Any

from a2wsgi import WSGIMiddleware
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from service.access.rights import SAFE
from service.store import audit, studies
from service.store.database import Database

PATHS = ("/dashboard", "/dashboard/{path:path}", "/api/{path:path}", "/static/{path:path}")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Dashboard:
    """The dashboard over the studies of one database, opened at the first request."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._opening = asyncio.Lock()
        self._app: Any = None  # a2wsgi's types for ASGI are not Starlette's

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._opening:
            if self._app is None:
                self._app = await run_in_threadpool(self._open)
        if scope["method"] not in SAFE:
            await run_in_threadpool(_record, Request(scope))
        await self._app(scope, receive, send)

    def _open(self) -> WSGIMiddleware:
        import optuna_dashboard  # two seconds, which the API need not wait for

        return WSGIMiddleware(optuna_dashboard.wsgi(studies.storage(self._database_url)))


def _record(request: Request) -> None:
    database: Database = request.app.state.database
    with database.begin() as session:
        act = f"{request.method} {request.url.path}"
        audit.record(session, request.state.principal.name, "dashboard", detail=act)


def routes(database_url: str) -> list[BaseRoute]:
    dashboard = Dashboard(database_url)
    return [Route(path, dashboard, methods=METHODS, include_in_schema=False) for path in PATHS]
