"""The page for paths of console and portal that no page has: browsers get HTML, not a document of the API."""

from aiohttp import web

from edgeproxy.collector.pages.site import CONSOLE, PORTAL, Page, Visit


def list_pages() -> list[Page]:
    """Return the pages, which have to come after all others. They tell nobody which paths there are."""
    return [
        Page("GET", "/console/{rest:.+}", "anyone", show_missing, CONSOLE),
        Page("GET", "/account/{rest:.+}", "anyone", show_missing, PORTAL),
        Page("POST", "/console/{rest:.+}", "anyone", show_no_form, CONSOLE),
        Page("POST", "/account/{rest:.+}", "anyone", show_no_form, PORTAL),
    ]


async def show_missing(visit: Visit) -> web.Response:
    """Say that there is no such page."""
    return visit.render_error(404, "there is no such page")


async def show_no_form(visit: Visit) -> web.Response:
    """Say that nothing can be sent to this path: 405 where it has a page (RFC 9110 section 15.5.6), else 404."""
    match = await visit.request.app.router.resolve(visit.request.clone(method="GET"))
    resource = match.route.resource
    page = None if resource is None else visit.site.shown_pages.get(resource.canonical)
    if page is None or page.path.endswith("/{rest}"):
        return visit.render_error(404, "there is no such page")
    response = visit.render_error(405)
    response.headers["Allow"] = "GET, HEAD"
    return response
