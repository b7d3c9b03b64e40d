"""Signing in with a token, which a cookie then carries."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from service.access import identify
from service.access.guard import COOKIE
from service.pages.page import page_router, render
from service.parameters import DatabaseOfApp

router = page_router()

Sent = dict[str, Sequence[str]]


async def _sent(request: Request) -> Sent:
    return dict(parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10))


@router.get("/signin")
def page(request: Request, place: Annotated[str, Query(alias="next", max_length=2000)] = "/") -> Response:
    return render(request, "signin.html", next=_local(place))


@router.post("/signin")
def sign_in(request: Request, database: DatabaseOfApp, sent: Annotated[Sent, Depends(_sent)]) -> Response:
    """Keep the token in a cookie that no script reads, and no other site's request carries."""
    token, place = (sent.get(name, [""])[0].strip() for name in ("token", "next"))
    with database.read() as session:
        principal = identify(session, token)
    if principal is None:
        error = "no token of this service: it was mistyped, or revoked"
        return render(request, "signin.html", 401, next=_local(place), error=error)
    response = RedirectResponse(_local(place), 303)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
    return response


@router.post("/signout")
def sign_out() -> Response:
    response = RedirectResponse("/signin", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def _local(place: str) -> str:
    """A path of this service: nobody is sent elsewhere by a link to this page."""
    return place if place.startswith("/") and not place.startswith(("//", "/\\")) else "/"
