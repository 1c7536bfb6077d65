"""Pages of lists: rows fetched from the API by the query of a visit, shown or sent as a file of CSV."""

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from edgeproxy.base.spreadsheet import render_csv
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.pages import rendering
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.lists import (
    Listing,
    ListView,
    Query,
    T,
    build_query,
    paginate,
    read_query,
    sort_rows,
    translate,
    write_cell,
)
from edgeproxy.collector.pages.site import PageError, Visit

CSV_ROWS_MAX = 10_000
"""Rows of a file."""
API_ROWS_MAX = 1000
"""Rows that are fetched at once for a file."""

Fetch = Callable[[Query], Awaitable[JsonDocument]]
"""Returns an answer of the API to a query: the rows, and the cursor of the next page as `next`."""


async def respond_list(
    visit: Visit, listing: Listing, fetch: Fetch, show: Callable[[ListView], Awaitable[web.Response]]
) -> web.Response:
    """Return the page of a list that `show` renders; with `format=csv` all rows of that list as a file."""
    if visit.request.query.get("format") == "csv":
        return await send_list(visit, listing, fetch)
    return await show(await fetch_list(visit, listing, fetch))


async def fetch_list(visit: Visit, listing: Listing, fetch: Fetch) -> ListView:
    """Return the page of a list that the query of a visit asks for."""
    sort, values = read_query(listing, visit.request.query)
    body = await fetch(build_query(listing, sort, values, listing.rows_max, visit.request.query.get("cursor", "")))
    view = build_view(visit, listing, body[listing.name])
    return view._replace(next=str(body.get("next") or ""), values=values, sort=sort, sorts=tuple(listing.sorts))


def build_view(visit: Visit, listing: Listing, rows: Sequence[JsonDocument]) -> ListView:
    """Return a page of a list with these rows alone, in the order that they are in."""
    shown = translate(listing, load_catalog(visit.reader.language).gettext)
    return ListView(rows, "", shown.columns, shown.filters, {}, "", ())


async def send_list(visit: Visit, listing: Listing, fetch: Fetch) -> web.Response:
    """Return the response with the rows of a list as CSV, at most CSV_ROWS_MAX: then the file's name says so."""
    sort, values = read_query(listing, visit.request.query)
    columns, rows, cursor = (*listing.columns, *listing.more), list[JsonDocument](), ""
    while len(rows) < CSV_ROWS_MAX:
        body = await fetch(build_query(listing, sort, values, API_ROWS_MAX, cursor))
        rows += body[listing.name]
        cursor = str(body.get("next") or "")
        if not cursor:
            break
    name = listing.file or listing.name
    if cursor or len(rows) > CSV_ROWS_MAX:
        name += f"-first-{CSV_ROWS_MAX}"
    cells = [[column.name for column in columns]]
    cells += [[write_cell(row, column) for column in columns] for row in rows[:CSV_ROWS_MAX]]
    return rendering.respond_csv(render_csv(cells), f"{name}.csv")


def fetch_from(visit: Visit, listing: Listing, path: str, **names: str) -> Fetch:
    """Return the function that fetches a list of the API; a filter that names nothing finds nothing."""

    async def fetch(query: Query) -> JsonDocument:
        response = await visit.call("GET", path, names=names, query=query)
        if response.status == 404 and not names:
            return {listing.name: []}
        if not response.is_success:
            raise PageError(response.status, str(response.body.get("detail", "")))
        return response.body

    return fetch


def fetch_whole(listing: Listing, rows: Sequence[T], key: str) -> Fetch:
    """Return the function that fetches a list that is there as a whole, whose rows are known by their field `key`."""

    async def fetch(query: Query) -> JsonDocument:
        chosen = {one.name: query[one.name] for one in listing.filters if one.name in query}
        own = [row for row in rows if all(row[name] == value for name, value in chosen.items())]
        some, more = paginate(sort_rows(own, query["sort"]), key, int(query["limit"]), query.get("cursor"))
        return {listing.name: some, "next": more}

    return fetch
