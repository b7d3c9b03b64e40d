"""The guard: no request goes on to a route before it is known whose it is, and that they may."""

import math
from ipaddress import ip_address

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.access.principal import ANYBODY, Principal, Register
from service.access.rate import Rate
from service.access.rights import SAFE, changes_studies, is_from_elsewhere, needed
from service.store.database import Database

COOKIE = "clr_token"


class Guard:
    """ASGI middleware that admits a request to the routes as a principal, ``request.state.principal``.

    Args:
        app: what it guards.
        register: the tokens.
        may_be_open: whether nobody needs a token while there is none; only where nothing but loopback is listened on.
        per_s: requests a second of one token.
    """

    def __init__(self, app: ASGIApp, register: Register, may_be_open: bool, per_s: float) -> None:
        self.app, self.register, self.may_be_open, self.rate = app, register, may_be_open, Rate(per_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope)
        role = needed(scope["method"], scope["path"])
        try:
            if role is not None:
                request.state.principal = await self._admit(request, role)
            elif scope["method"] not in SAFE:
                _refuse_other_sites(request)
        except Exception as error:
            return await problems.answer(request, error)(scope, receive, send)
        return await self.app(scope, receive, send)

    async def _admit(self, request: Request, role: str) -> Principal:
        database: Database = request.app.state.database
        if not self.register.is_fresh:
            await run_in_threadpool(self.register.refresh, database)
        principal = self._principal(request)
        if not principal.may(role):
            raise HTTPException(
                403,
                f"this needs a token of role {role}, but {principal.name!r} is one of role "
                f"{principal.role}: ask an administrator for one",
            )
        if principal.name is None:
            if changes_studies(request.method, request.url.path):
                raise HTTPException(
                    403,
                    "this needs a token of role admin, and this service has no tokens: "
                    "make one with `clr token create --role admin --name NAME`",
                )
            return principal
        if wait_s := self.rate.wait_s(principal.name):
            raise HTTPException(
                429,
                f"the token {principal.name!r} sends more requests than CLR_RATE_LIMIT allows: "
                "try again after the seconds that Retry-After says",
                {"Retry-After": str(math.ceil(wait_s))},
            )
        if self.register.is_due(principal):
            await run_in_threadpool(self.register.note, database, principal)
        return principal

    def _principal(self, request: Request) -> Principal:
        unsafe = request.method not in SAFE
        if not self.register.any_exist and self.may_be_open:
            _refuse_other_names(request)
            if unsafe:
                _refuse_other_sites(request)
            return ANYBODY
        given = request.headers.get("authorization")
        if given is not None:
            scheme, _, token = given.partition(" ")
            if scheme.lower() != "bearer":
                raise _unauthorized("the Authorization header must be: Bearer and a token")
            return self._holder(token.strip())
        cookie = request.cookies.get(COOKIE)
        if cookie is None:
            raise _unauthorized("this service needs a token: send it as Authorization: Bearer TOKEN")
        if unsafe and is_from_elsewhere(request, unless_said=True):
            raise HTTPException(
                403,
                f"the cookie {COOKIE} is for this service's own pages, but they did not make "
                "this request: send the token as Authorization: Bearer TOKEN",
            )
        return self._holder(cookie)

    def _holder(self, token: str) -> Principal:
        principal = self.register.holder(token)
        if principal is None:
            raise _unauthorized("this token is not known here: it was mistyped, or revoked", ', error="invalid_token"')
        return principal


def _refuse_other_sites(request: Request) -> None:
    if is_from_elsewhere(request, unless_said=False):
        raise HTTPException(403, "a page of another site made this request, which only a token would allow")


def _refuse_other_names(request: Request) -> None:
    """Anybody may let a name of theirs mean this machine; a browser then takes their page for one of this service."""
    name = request.url.hostname or ""
    if "." in name and not is_loopback(name):
        raise HTTPException(
            403,
            f"without tokens this service goes by the names of this machine alone, but was asked for as {name!r}: "
            "use http://127.0.0.1, or make a token with `clr token create`",
        )


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unauthorized(detail: str, error: str = "") -> HTTPException:
    return HTTPException(401, detail, {"WWW-Authenticate": f'Bearer realm="clr"{error}'})
