"""Pages of lists: rows fetched from the API by a visit's query, shown or sent as a CSV file."""

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
from edgeproxy.collector.pages.site import ApiRefusedError, Visit

CSV_ROWS_MAX = 10_000
"""Most rows of a file."""
API_ROWS_MAX = 1000
"""Rows per API request for a file."""

Fetch = Callable[[Query], Awaitable[JsonDocument]]
"""Returns the API's answer to a query: the rows, and the cursor of the next page as `next`."""


async def respond_list(
    visit: Visit, listing: Listing, fetch: Fetch, show: Callable[[ListView], Awaitable[web.Response]]
) -> web.Response:
    """Return a list's page, rendered by `show`. With `format=csv` return all its rows as a file."""
    if visit.request.query.get("format") == "csv":
        return await send_list(visit, listing, fetch)
    return await show(await fetch_list(visit, listing, fetch))


async def fetch_list(visit: Visit, listing: Listing, fetch: Fetch) -> ListView:
    """Return the page of a list that a visit's query selects."""
    sort, values = read_query(listing, visit.request.query)
    body = await fetch(build_query(listing, sort, values, listing.rows_max, visit.request.query.get("cursor", "")))
    view = build_view(visit, listing, body[listing.name])
    return view._replace(next=str(body.get("next") or ""), values=values, sort=sort, sorts=tuple(listing.sorts))


def build_view(visit: Visit, listing: Listing, rows: Sequence[JsonDocument]) -> ListView:
    """Return a page of a list with exactly these rows, in their order."""
    shown = translate(listing, load_catalog(visit.reader.language).gettext)
    return ListView(rows, "", shown.columns, shown.filters, {}, "", ())


async def send_list(visit: Visit, listing: Listing, fetch: Fetch) -> web.Response:
    """Return a CSV file of a list with at most CSV_ROWS_MAX rows. The file's name shows if rows are missing."""
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
    """Return the function that fetches a list from the API. A filter that matches nothing gives an empty list."""

    async def fetch(query: Query) -> JsonDocument:
        response = await visit.call("GET", path, names=names, query=query)
        if response.status == 404 and not names:
            return {listing.name: []}
        if not response.is_success:
            raise ApiRefusedError(response)
        return response.body

    return fetch


def fetch_whole(listing: Listing, rows: Sequence[T], key: str) -> Fetch:
    """Return the function that serves a complete list. `key` is the field that identifies a row."""

    async def fetch(query: Query) -> JsonDocument:
        chosen = {filter_.name: query[filter_.name] for filter_ in listing.filters if filter_.name in query}
        own = [row for row in rows if all(row[name] == value for name, value in chosen.items())]
        some, more = paginate(sort_rows(own, query["sort"]), key, int(query["limit"]), query.get("cursor"))
        return {listing.name: some, "next": more}

    return fetch
