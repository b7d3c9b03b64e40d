"""Who may do what. One table, so that a route that nobody thought of needs a token too."""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("/healthz", "/readyz", "/signin", "/signout", "/assets", "/favicon.ico")
"""Paths for all, with all below them: probes carry no token, and who signs in on a page has none yet."""

AUDIT, CODE = ("/v1/audit",), ("/v1/code",)

DASHBOARD = ("/dashboard", "/api", "/static")
"""Paths of Optuna's dashboard, which has no rights of its own."""


def needed(method: str, path: str) -> str | None:
    """The least role for a request; None where no token is asked for."""
    if _under(path, OPEN):
        return None
    if _under(path, AUDIT):
        return "admin"
    if method in SAFE:
        return "read"
    deletes = method == "DELETE" or path.endswith("/delete")  # a page's form can only POST
    return "admin" if deletes or _under(path, CODE + DASHBOARD) else "submit"


def changes_studies(method: str, path: str) -> bool:
    """Whether a request would write through the dashboard."""
    return method not in SAFE and _under(path, DASHBOARD)


def is_from_elsewhere(request: HTTPConnection, *, unless_said: bool) -> bool:
    """Whether a page of another site makes this request; ``unless_said`` where the browser, or no browser, is silent.

    Browsers send one of these headers with whatever can change something, and no page can forge them.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site != "same-origin"
    origin = request.headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc != request.headers.get("host")
    return unless_said


def _under(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)
