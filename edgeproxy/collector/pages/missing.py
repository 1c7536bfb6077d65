"""The pages for unknown paths: browsers get HTML instead of a document of the API."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from edgeproxy.collector.pages.serving import build_handler
from edgeproxy.collector.pages.site import CONSOLE, PORTAL, Page, PageError, Site, Visit
from edgeproxy.collector.problems import page_codes, request_codes
from edgeproxy.config.collector.listeners import PAGE_GROUPS

API_PATHS: Final = ("/v1/", "/billing/")
"""Prefixes of API paths. Their errors are API documents for browsers as well."""


def list_pages() -> list[Page]:
    """Return the pages. They must be registered after all others. They do not reveal existing paths."""
    return [
        Page("GET", "/console/{rest:.+}", "anyone", show_missing, CONSOLE),
        Page("GET", "/account/{rest:.+}", "anyone", show_missing, PORTAL),
        Page("POST", "/console/{rest:.+}", "anyone", show_no_form, CONSOLE),
        Page("POST", "/account/{rest:.+}", "anyone", show_no_form, PORTAL),
    ]


async def show_missing(visit: Visit) -> web.Response:
    """Show that there is no such page."""
    return visit.render_error(PageError(page_codes.PAGE_NOT_FOUND, "there is no such page"))


async def show_no_form(visit: Visit) -> web.Response:
    """Refuse a form: with 405 if the path has a page (RFC 9110 section 15.5.6), else with 404."""
    match = await visit.request.app.router.resolve(visit.request.clone(method="GET"))
    resource = match.route.resource
    page = None if resource is None else visit.site.shown_pages.get(resource.canonical)
    if page is None or page.path.endswith("/{rest}"):
        return visit.render_error(PageError(page_codes.PAGE_NOT_FOUND, "there is no such page"))
    response = visit.render_error(PageError(request_codes.METHOD_NOT_ALLOWED, ""))
    response.headers["Allow"] = "GET, HEAD"
    return response


def build_middleware(site: Site) -> Middleware:
    """Build the middleware that gives browsers an HTML page for unknown paths and methods."""

    @web.middleware
    async def answer_browsers(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
            if request.path.startswith(API_PATHS) or "text/html" not in request.headers.get("Accept", ""):
                raise
            allow = error.headers.get("Allow")

        async def show_error(visit: Visit) -> web.Response:
            if allow is None:
                return await show_missing(visit)
            response = visit.render_error(PageError(request_codes.METHOD_NOT_ALLOWED, ""))
            response.headers["Allow"] = allow
            return response

        return await build_handler(site, Page("GET", request.path, "anyone", show_error, PAGE_GROUPS))(request)

    return answer_browsers
