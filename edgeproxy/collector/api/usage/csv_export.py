"""Usage as CSV (RFC 4180), streamed row by row from the database.

A slow reader occupies a database connection and, on SQLite, keeps the write-ahead log growing. So few exports run
concurrently, and each has a time limit.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Any

from aiohttp import web

from edgeproxy.base import log
from edgeproxy.base.spreadsheet import escape_formula
from edgeproxy.collector.accounts.pseudonyms import NOBODY, Readers, reveal_names
from edgeproxy.collector.database.database import Database, format_reason
from edgeproxy.collector.ledger.queries import LedgerQuery, stream_usage

TYPE = "text/csv"
EXPORTS_AT_ONCE = 2
"""Concurrent exports: fewer than connections for reading."""
WRITE_SECONDS_MAX = 30.0
"""Seconds that a client may take to receive a piece."""
EXPORT_SECONDS_MAX = 600.0
"""Seconds that an export may take."""
HEADERS = {
    "Content-Type": f"{TYPE}; charset=utf-8; header=present",
    "Content-Disposition": 'attachment; filename="usage.csv"',
    "Vary": "Accept",
}


class TooManyExportsError(Exception):
    """The maximum number of concurrent exports is reached."""


class CsvExporter:
    """The running CSV exports."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._under_way: list[str | None] = []

    async def send(
        self, request: web.Request, question: LedgerQuery, readers: Readers = NOBODY, customer: str | None = None
    ) -> web.StreamResponse:
        """Answer with all rows of a query, with the names that `readers` may see.

        Raises InvalidQueryError and TooManyExportsError before anything is sent. A `customer` may run one export at a
        time. If an export fails midway, the connection is closed within the body, so that a part is not mistaken for
        the whole.
        """
        is_own_under_way = customer is not None and customer in self._under_way
        if is_own_under_way or len(self._under_way) >= EXPORTS_AT_ONCE:
            raise TooManyExportsError
        self._under_way.append(customer)
        try:
            return await self._send(request, question, readers)
        finally:
            self._under_way.remove(customer)

    async def _send(self, request: web.Request, question: LedgerQuery, readers: Readers = NOBODY) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS)
        response.enable_chunked_encoding()
        try:
            async with (
                asyncio.timeout(EXPORT_SECONDS_MAX),
                self._database.reading(whole=True) as connection,
                aclosing(stream_usage(connection, question)) as pieces,
            ):
                some = await anext(pieces, None)
                await response.prepare(request)
                await response.write(format_record((*question.by, "value")))
                while some is not None:
                    body = b"".join(format_record(row.values()) for row in some)
                    body = await reveal_names(connection, body, readers)
                    async with asyncio.timeout(WRITE_SECONDS_MAX):
                        await response.write(body)
                    some = await anext(pieces, None)
                await response.write_eof()
        except Exception as error:
            if not response.prepared:
                raise
            log.get_logger().warning("an export was cut off", why=format_reason(error))
            if request.transport is not None:
                request.transport.abort()
        return response


def render_page(request: web.Request, question: LedgerQuery, usage: Mapping[str, Any]) -> web.Response:
    """Return a page (`queries.usage`) as CSV. A Link field names the next page (RFC 8288)."""
    body = b"".join([format_record((*question.by, "value")), *(format_record(row.values()) for row in usage["rows"])])
    response = web.Response(body=body, headers=HEADERS)
    if "next" in usage:
        response.headers["Link"] = f'<{request.rel_url.update_query(cursor=usage["next"])}>; rel="next"'
    return response


def format_record(fields: Iterable[str | int]) -> bytes:
    """Return a CSV record."""
    return (",".join(map(format_field, map(str, fields))) + "\r\n").encode()


def format_field(value: str) -> str:
    """Return a CSV field that no spreadsheet treats as a formula, including spreadsheets that split at semicolons."""
    value = escape_formula(value)
    return '"' + value.replace('"', '""') + '"' if any(odd in value for odd in ',;"\r\n') else value


def accepts_csv(request: web.Request) -> bool:
    """Return True if the answer should be CSV, by `format` or else by Accept (RFC 9110 section 12.5.1)."""
    format_ = request.query.get("format")
    if format_ is not None:
        return format_ == "csv"
    weights = dict(map(_parse_media_range, ",".join(request.headers.getall("Accept", [])).split(",")))
    return weights.get(TYPE, 0.0) > 0 and weights[TYPE] >= weights.get("application/json", 0.0)


def _parse_media_range(written: str) -> tuple[str, float]:
    """Return a media type of Accept with its weight."""
    name, *parameters = (part.strip().lower() for part in written.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return name, float(parameter[2:])
            except ValueError:
                return name, 0.0
    return name, 1.0
