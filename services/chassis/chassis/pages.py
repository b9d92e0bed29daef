"""The documentation pages of every service: /docs (its HTTP API) and /asyncapi (the events of all).

No asset comes from outside: scripts and styles are in ``static/`` (see its README), and the content security policy has the browser
refuse anything else. Links are relative, so that the pages also work under a path prefix.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse

from contracts.asyncapi import asyncapi_document

_STATIC = Path(__file__).resolve().parent / "static"
_ASSETS = {
    "/docs/swagger-ui-bundle.js": _STATIC / "swagger-ui" / "swagger-ui-bundle.js",
    "/docs/swagger-ui.css": _STATIC / "swagger-ui" / "swagger-ui.css",
    "/asyncapi/index.js": _STATIC / "asyncapi" / "index.js",
    "/asyncapi/default.min.css": _STATIC / "asyncapi" / "default.min.css",
}
_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'"  # the AsyncAPI parser compiles JSON Schemas to functions
)
_PAGE_HEADERS = {"Content-Security-Policy": _POLICY}
_ASSET_HEADERS = {"Cache-Control": "public, max-age=3600"}


def pages_router() -> APIRouter:
    """Routes of the pages and what they load."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        """Swagger UI of this service's OpenAPI document."""
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=request.app.title,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="data:,",
            swagger_ui_parameters={
                "validatorUrl": None
            },  # else it hands the document to an outside validator
        )
        page.headers.update(_PAGE_HEADERS)
        return page

    @router.get("/asyncapi")
    async def asyncapi() -> FileResponse:
        """The AsyncAPI document as a page."""
        return FileResponse(_STATIC / "asyncapi" / "index.html", headers=_PAGE_HEADERS)

    @router.get("/asyncapi.json")
    async def asyncapi_json() -> Response:
        """The AsyncAPI document."""
        return Response(asyncapi_document(), media_type="application/json")

    for url, path in _ASSETS.items():
        router.add_api_route(url, _asset(path), methods=["GET"])
    return router


def _asset(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def asset() -> FileResponse:
        return FileResponse(path, headers=_ASSET_HEADERS)

    return asset
