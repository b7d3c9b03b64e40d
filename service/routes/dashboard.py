"""Optuna's dashboard on the paths that its pages demand. Read only: it has no authentication of its own."""

import asyncio
from typing import Any

from a2wsgi import WSGIMiddleware
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from service.store import studies

PATHS = ("/dashboard", "/dashboard/{path:path}", "/api/{path:path}", "/static/{path:path}")


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
        await self._app(scope, receive, send)

    def _open(self) -> WSGIMiddleware:
        import optuna_dashboard  # two seconds, which the API need not wait for

        return WSGIMiddleware(optuna_dashboard.wsgi(studies.storage(self._database_url)))


def routes(database_url: str) -> list[BaseRoute]:
    dashboard = Dashboard(database_url)
    return [Route(path, dashboard, methods=["GET"], include_in_schema=False) for path in PATHS]
