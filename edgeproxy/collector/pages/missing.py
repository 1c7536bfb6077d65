"""The page for paths of console and portal that no page has: browsers get HTML, not a document of the API."""

from aiohttp import web

from edgeproxy.collector.pages.site import CONSOLE, PORTAL, Page, Visit


def list_pages() -> list[Page]:
    """Return the pages, which have to come after all others. They tell nobody which paths there are."""
    return [
        Page("GET", "/console/{rest:.+}", "anyone", show_missing, CONSOLE),
        Page("GET", "/account/{rest:.+}", "anyone", show_missing, PORTAL),
    ]


async def show_missing(visit: Visit) -> web.Response:
    """Say that there is no such page."""
    return visit.render_error(404, "there is no such page")
