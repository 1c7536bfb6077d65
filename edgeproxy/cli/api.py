"""The collector's API as commands call it: where it is, by which token, and what its refusals say."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeproxy.cli.outcome import fail

COLLECTOR, TOKEN = "EDGEPROXY_COLLECTOR", "EDGEPROXY_TOKEN"
"""The variables of the environment that have its URL and the token."""
DEFAULT = "http://127.0.0.1:9100"
TIMEOUT = 30.0
"""Seconds for it to answer."""
PATIENCE = 10.0
"""Seconds for it to listen, where it has just been started."""
PAGE = 1000

Json = Annotated[bool, typer.Option("--json", help="Print what the collector answers, as it is.")]
Url = Annotated[
    str | None, typer.Option("--collector", metavar="URL", help=f"Where it is: else ${COLLECTOR}, else {DEFAULT}.")
]
Authorities = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", help="Who vouches for it, where it is https.")
]


class Api:
    """A collector that is asked with the token of the environment."""

    def __init__(self, url: str | None, ca: Path | None = None) -> None:
        self._url = (url or os.environ.get(COLLECTOR) or DEFAULT).rstrip("/")
        self._ca = ca
        self._token = os.environ.get(TOKEN, "")
        if not self._token:
            fail(f"set {TOKEN} to a token of the collector", 2)
        if not self._url.startswith(("http://", "https://")):
            fail(f"--collector: {self._url!r} is not a URL such as {DEFAULT}", 2)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        create: bool = False,
        dry_run: str | None = None,
        **query: Any,
    ) -> Any:
        """Return what a call answers; exits with what is in the way of it."""
        import ssl
        import uuid
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError
        from urllib.parse import urlencode
        from urllib.request import HTTPSHandler, Request, build_opener

        given = {name: value for name, value in {**query, "dry_run": dry_run}.items() if value is not None}
        url = f"{self._url}{path}{'?' + urlencode(given) if given else ''}"
        fields = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        sent = None
        if body is not None:
            sent, fields["Content-Type"] = json.dumps(body).encode(), "application/json"
        if create:
            fields["Idempotency-Key"] = str(uuid.uuid4())
        try:
            context = ssl.create_default_context(cafile=None if self._ca is None else str(self._ca))
            opener = build_opener(HTTPSHandler(context=context))
            request = Request(url, sent, fields, method=method)
            with self._once_it_listens(lambda: opener.open(request, timeout=TIMEOUT)) as answer:
                return json.loads(answer.read() or b"null")
        except HTTPError as error:
            fail(_why(error.status, error.read()), 1)
        except (URLError, OSError, HTTPException) as error:
            fail(f"{self._url} does not answer: {getattr(error, 'reason', None) or error}", 1)
        except ValueError:
            fail(f"{self._url} does not answer as a collector does", 1)

    def _once_it_listens(self, ask: Callable[[], Any]) -> Any:
        """Return what a question gives, asked again while nobody listens."""
        from urllib.error import URLError

        deadline, told = time.monotonic() + PATIENCE, False
        while True:
            try:
                return ask()
            except URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() >= deadline:
                    raise
            if not told:
                typer.echo(f"nobody listens at {self._url}: waiting for {PATIENCE:g} s", err=True)
                told = True
            time.sleep(0.2)

    def every(self, path: str, name: str, **query: Any) -> list[dict[str, Any]]:
        """Return all that a list has, page by page."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.call("GET", path, limit=str(PAGE), cursor=cursor, **query)
            found += page[name]
            cursor = page.get("next")
            if cursor is None:
                return found


def _why(status: int | None, body: bytes) -> str:
    """What a problem says, with each field that is wrong on a line of its own."""
    try:
        said = json.loads(body)
        lines = [str(said.get("detail") or said.get("title") or status)]
        lines += [f"  {one['field']}: {one['detail']}" for one in said.get("errors", ())]
    except (ValueError, LookupError, AttributeError):
        return f"the collector answers {status}"
    return "\n".join(lines)


def show(answer: Any, as_json: bool) -> None:
    """Print one thing: a line for each of its fields."""
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    width = max(map(len, answer))
    for name, value in answer.items():
        if value not in (None, [], {}):
            typer.echo(f"{name:{width}}  {_cell(value)}")


def table(rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    """Print several things: a line each, under the names of the columns."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    cells = [[column.upper() for column in columns], *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)
