"""Commands about plans: changes of prices, scheduled, tried and withdrawn."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from edgeproxy.collector.api.price_changes.models import PriceChangeResponse
from edgeproxy.base.json_values import JsonObject
from edgeproxy.cli.api import Api, Authorities, Json, Url, show, table
from edgeproxy.cli.corrections import DryRun, Key, Why
from edgeproxy.cli.outcome import fail

PRICE_CHANGES = "/billing/price-changes"
CUSTOMERS_SHOWN = 10
"""The number of printed customers with the largest increase, and with the largest decrease."""


def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new versions, as in plans.yaml.")],
    at: Annotated[str, typer.Option("--at", metavar="WHEN", help="From when on they are sold, such as 2027-01-01.")],
    why: Why,
    dry: DryRun = False,
    digest: Annotated[
        str | None, typer.Option("--digest", metavar="HEX", help="That of a dry run: refuse anything else.")
    ] = None,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Schedule new versions of plans. Subscribers move to them with their next paid period."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}", 2)
    body: JsonObject = {"plans": text, "at": at, "why": why}
    if digest is not None:
        body["digest"] = digest
    api = Api(collector, ca)
    result = api.call("POST", PRICE_CHANGES, body, create=True, key=key, dry_run="true" if dry else None)
    _print_change(result, as_json)
    if dry and not as_json:
        typer.echo("nothing was changed: it was a dry run")


def ls(as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """List changes of prices, newest first."""
    rows = Api(collector, ca).fetch_all(PRICE_CHANGES, "price_changes")
    if not as_json:
        rows = [{**row, "moves": _format_moves(row)} for row in rows]
    table(rows, ("id", "at", "state", "moves", "created_by", "why"), as_json)


def show_change(
    change: Annotated[str, typer.Argument(metavar="CHANGE", help="Its id.")],
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Show a price change and, while it is scheduled, its effect on each subscriber."""
    _print_change(Api(collector, ca).call("GET", f"{PRICE_CHANGES}/{quote(change, safe='')}"), as_json)


def withdraw(
    change: Annotated[str, typer.Argument(metavar="CHANGE", help="Its id.")],
    why: Why,
    dry: DryRun = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Withdraw a change of prices, until a minute before its time."""
    path = f"{PRICE_CHANGES}/{quote(change, safe='')}/withdraw"
    api = Api(collector, ca)
    _print_change(api.call("POST", path, {"why": why}, create=True, key=key, dry_run="true" if dry else None), as_json)
    if dry and not as_json:
        typer.echo("nothing was changed: it was a dry run")


def versions(as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """List all versions of plans, with their subscribers."""
    rows: list[JsonObject] = Api(collector, ca).call("GET", "/billing/plan-versions")["versions"]
    table(rows, ("version", "state", "begins_at", "fee", "subscribers"), as_json)


def _print_change(document: JsonObject, as_json: bool) -> None:
    """Print a change, its new terms, and its effect: sums, and the customers with the largest differences."""
    if as_json:
        show(document, as_json)
        return
    fields = ("id", "at", "state", "why", "created_by", "digest")
    show({name: document[name] for name in fields if name in document} | {"moves": _format_moves(document)}, as_json)
    change = cast("PriceChangeResponse", document)
    terms = [
        {"plan": move["after"], **cast("JsonObject", term)} for move in change["moves"] for term in move["changes"]
    ]
    typer.echo()
    table(terms, ("plan", "term", "before", "after"), as_json)
    if (effect := change.get("effect")) is not None:
        rated = f"{effect['rated']} of {effect['subscribers']} subscribers rated"
        typer.echo(f"\n{rated}, in smallest units such as cents of a month\n")
        rows = cast("list[JsonObject]", effect["customers"])
        if len(rows) > 2 * CUSTOMERS_SHOWN:
            rows = rows[:CUSTOMERS_SHOWN] + rows[-CUSTOMERS_SHOWN:]
        sums = [{"customer": "all who are rated", **cast("JsonObject", one)} for one in effect["currencies"]]
        columns = ("customer", "before_plan", "plan", "currency", "before", "after", "difference")
        table([*rows, *sums], columns, as_json)


def _format_moves(document: JsonObject) -> str:
    moves = cast("PriceChangeResponse", document)["moves"]
    return ", ".join(f"{move['before']} → {move['after']} ({move['subscribers']})" for move in moves)
