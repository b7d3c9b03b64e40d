"""The API's reference as a page, which asks no other host for anything."""

from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

ASSETS = "/docs/assets"
POLICY = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
POLICY += "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"


@router.api_route("/docs", methods=["GET", "HEAD"])
def show_reference() -> Response:
    """Swagger UI over this service's own OpenAPI document."""
    found = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="clr: reference",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url="/assets/icon.svg",
    )
    found.headers["Content-Security-Policy"] = POLICY
    return found


def assets() -> StaticFiles:
    """Swagger UI's script and style, from its package."""
    return StaticFiles(directory=str(files("fastapi_offline") / "static"))
