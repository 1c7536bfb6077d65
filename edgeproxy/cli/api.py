"""Calls of the collector's API by commands, and their output as lines and tables."""

import json
import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.cli.outcome import fail
from edgeproxy.config.secret_text import InvalidSecretError, read_secret_variable

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

Response = TypeVar("Response")

COLLECTOR, TOKEN = "EDGEPROXY_COLLECTOR", "EDGEPROXY_TOKEN"
"""Variables of the environment with its URL and the token."""
DEFAULT_URL = "http://127.0.0.1:9100"
RESPONSE_SECONDS = 30.0
CONNECT_SECONDS = 10.0
"""Seconds for a collector that has just been started to listen."""
PAGE_SIZE = 1000

CustomerRef = Annotated[str, typer.Argument(metavar="CUSTOMER", help="By name, pseudonym, id or external id.")]
Key = Annotated[
    str | None, typer.Option("--key", metavar="TEXT", help="A key that makes a repeated command take effect once.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the collector's answer unchanged.")]
Url = Annotated[
    str | None, typer.Option("--collector", metavar="URL", help=f"Where it is: else ${COLLECTOR}, else {DEFAULT_URL}.")
]
Authorities = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", help="A file with the authorities for https.")
]


def read_token(variable: str) -> str:
    """Return the token in a variable, or in the file that `{variable}_FILE` names. "" without either.

    Exits with 2 for text that is no token.
    """
    try:
        token = read_secret_variable(variable, os.environ)
    except InvalidSecretError as error:
        fail(str(error), 2)
    if not token.isascii():
        fail(f"{variable} has characters that no token has", 2)
    return token


class Api:
    """A client of a collector's API, with the token of the environment."""

    def __init__(self, url: str | None, ca: Path | None = None, variable: str = TOKEN) -> None:
        """`variable` of the environment has the token."""
        self._url = (url or os.environ.get(COLLECTOR) or DEFAULT_URL).rstrip("/")
        self._ca = ca
        self._token = read_token(variable)
        if not self._token:
            fail(f"set {variable} to a token of the collector", 2)
        if not self._url.startswith(("http://", "https://")):
            fail(f"--collector: {self._url!r} is not a URL such as {DEFAULT_URL}", 2)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        create: bool = False,
        key: str | None = None,
        dry_run: str | None = None,
        query: Mapping[str, str | None] | None = None,
        may_be_missing: bool = False,
        may_be_refused: bool = False,
    ) -> Any:
        """Return the JSON of a response; exits with 1 and the reason for any other.

        None of what `may_be_missing` (404), and of a request that `may_be_refused` (any 4xx).
        """
        import uuid
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError
        from urllib.parse import urlencode
        from urllib.request import Request

        from edgeproxy.base.outgoing_proxy import describe_way

        parameters = {name: value for name, value in {**(query or {}), "dry_run": dry_run}.items() if value is not None}
        url = f"{self._url}{path}{'?' + urlencode(parameters) if parameters else ''}"
        fields = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        fields |= {} if content is None else {"Content-Type": "application/json"}
        if create:
            fields["Idempotency-Key"] = str(uuid.uuid4()) if key is None else key
        try:
            request = Request(url, content, fields, method=method)
            with self._connect(lambda: self._opener.open(request, timeout=RESPONSE_SECONDS)) as response:
                return json.loads(response.read() or b"null")
        except HTTPError as error:
            if (may_be_missing and error.status == 404) or (may_be_refused and (error.status or 0) // 100 == 4):
                return None
            fail(_format_problem(error.status, error.read()), 1)
        except (URLError, OSError, HTTPException) as error:
            way = describe_way(self._url)
            fail(f"{self._url} does not answer{way}: {getattr(error, 'reason', None) or error}", 1)
        except ValueError:
            fail(f"{self._url} does not answer as a collector does", 1)

    def resolve_customer(self, ref: str) -> str:
        """Return the name of the customer that a person means by a name, pseudonym, id or external id.

        Exits with 1 if two customers match. Returns `ref` itself if the collector finds none, or does not list
        customers for this token. The next call then reports the reason.
        """
        answer = self.call("GET", "/v1/customers", query={"ref": ref}, may_be_refused=True)
        rows = [] if answer is None else answer["customers"]
        if len(rows) > 1:
            ids = " and ".join(str(row["id"]) for row in rows)
            fail(f"{ref} is the name of one customer and the external id of another: use an id, {ids}", 1)
        return str(rows[0]["name"]) if rows else ref

    def customer_path(self, ref: str, *rest: str) -> str:
        """Return the path of a customer (`resolve_customer`), or a path under it."""
        from urllib.parse import quote

        return "/".join(("/v1/customers", quote(self.resolve_customer(ref), safe=""), *rest))

    @cached_property
    def _opener(self) -> "OpenerDirector":
        """The sender of requests. It is kept, because reading the system's authorities takes longer than a call."""
        from urllib.request import HTTPSHandler, ProxyHandler, build_opener

        from edgeproxy.base.outgoing_proxy import find_proxy
        from edgeproxy.base.trust import create_context

        proxy = find_proxy(self._url)
        through = ProxyHandler({} if proxy is None else dict.fromkeys(("http", "https"), proxy.full_url))
        if not self._url.startswith("https:"):
            return build_opener(through)
        return build_opener(through, HTTPSHandler(context=create_context(self._ca)))

    def _connect(self, send: Callable[[], Response]) -> Response:
        """Send a request, again and again for CONNECT_SECONDS while connections are refused."""
        from urllib.error import URLError

        deadline, is_noted = time.monotonic() + CONNECT_SECONDS, False
        while True:
            try:
                return send()
            except URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() >= deadline:
                    raise
            if not is_noted:
                typer.echo(f"nobody listens at {self._url}: waiting for {CONNECT_SECONDS:g} s", err=True)
                is_noted = True
            time.sleep(0.2)

    def fetch_list(self, path: str, name: str, **query: str | None) -> list[JsonObject]:
        """Return the first page of a list, which the response has under this name."""
        rows: list[JsonObject] = self.call("GET", path, query=query)[name]
        return rows

    def fetch_all(self, path: str, name: str, **query: str | None) -> list[JsonObject]:
        """Return all pages of a list."""
        rows: list[JsonObject] = []
        cursor: str | None = None
        while True:
            page = self.call("GET", path, query={"limit": str(PAGE_SIZE), "cursor": cursor, **query})
            rows += page[name]
            cursor = page.get("next")
            if cursor is None:
                return rows


def _format_problem(status: int | None, body: bytes) -> str:
    """Format a problem (RFC 9457) with its code in brackets, for scripts, and a line for each wrong field."""
    try:
        problem = json.loads(body)
        code = f" [{problem['code']}]" if "code" in problem else ""
        lines = [f"{problem.get('detail') or problem.get('title') or status}{code}"]
        lines += [f"  {error['field']}: {error['detail']}" for error in problem.get("errors", ())]
    except (ValueError, LookupError, AttributeError):
        return f"the collector answers {status}"
    return "\n".join(lines)


def show(document: JsonObject, as_json: bool) -> None:
    """Print a document: a line for each of its fields, or as JSON."""
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    width = max(map(len, document))
    for name, value in document.items():
        if value not in (None, [], {}):
            typer.echo(f"{name:{width}}  {_format_cell(value)}")


def table(rows: list[JsonObject], columns: tuple[str, ...], as_json: bool) -> None:
    """Print rows: a line each, under the names of the columns, or as JSON."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    cells = [
        [column.upper() for column in columns],
        *([_format_cell(row.get(column)) for column in columns] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def format_money(row: JsonObject, *columns: str) -> JsonObject:
    """Return a row in which these amounts, in smallest units, have the decimal places and the code of its currency.

    Amounts of a row without a currency, and empty ones, stay.
    """
    from edgeproxy.config.collector.currency_units import format_with_code

    currency = row["currency"]
    if not isinstance(currency, str):
        return row
    amounts = {column: row[column] for column in columns}
    return row | {
        name: format_with_code(amount, currency) for name, amount in amounts.items() if isinstance(amount, int)
    }


def _format_cell(value: JsonValue) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)
