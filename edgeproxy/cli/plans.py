"""Commands about plans: changes of prices, scheduled, tried and withdrawn."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from edgeproxy.base.json_values import JsonObject
from edgeproxy.cli.api import Api, format_money, show, table
from edgeproxy.cli.endpoint_commands import (
    DRY_RUN,
    IDEMPOTENCY_KEY,
    REQUIRED,
    WHY,
    Arguments,
    Rows,
    argument,
    build_command,
    note_dry_run,
    option,
)
from edgeproxy.cli.outcome import fail

if TYPE_CHECKING:
    from edgeproxy.collector.api.price_changes.models import PriceChangeResponse

PRICE_CHANGES = "/billing/price-changes"
CUSTOMERS_SHOWN = 10
"""The number of printed customers with the largest increase, and with the largest decrease."""


def _read_plans(_: Api, arguments: Arguments) -> str:
    file: Path = arguments["plans"]
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}", 2)


def _print_change(document: JsonObject, arguments: Arguments) -> None:
    """Print a change, its new terms, and its effect: sums, and the customers with the largest differences."""
    as_json: bool = arguments["as_json"]
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
        typer.echo(f"\n{rated}, by a month\n")
        rows = cast("list[JsonObject]", effect["customers"])
        if len(rows) > 2 * CUSTOMERS_SHOWN:
            rows = rows[:CUSTOMERS_SHOWN] + rows[-CUSTOMERS_SHOWN:]
        sums = [{"customer": "all who are rated", **cast("JsonObject", currency)} for currency in effect["currencies"]]
        amounts = ("before", "after", "difference")
        columns = ("customer", "before_plan", "plan", *amounts)
        table([format_money(row, *amounts) for row in [*rows, *sums]], columns, as_json)


def _format_moves(document: JsonObject) -> str:
    moves = cast("PriceChangeResponse", document)["moves"]
    return ", ".join(f"{move['before']} → {move['after']} ({move['subscribers']})" for move in moves)


def _print_new_change(document: JsonObject, arguments: Arguments) -> None:
    _print_change(document, arguments)
    note_dry_run(arguments)


CHANGE = argument("change", "Its id.")

apply = build_command(
    "Schedule new versions of plans. Subscribers move to them with their next paid period.",
    "POST",
    PRICE_CHANGES,
    argument("plans", "The new versions, as in plans.yaml.", Path, metavar="FILE", compute=_read_plans),
    option("at", "From when on they are sold, such as 2027-01-01.", "--at", kind=str, default=REQUIRED, metavar="WHEN"),
    WHY,
    DRY_RUN,
    option("digest", "That of a dry run: refuse anything else.", "--digest", metavar="HEX"),
    IDEMPOTENCY_KEY,
    output=_print_new_change,
    is_created_once=True,
)
ls = build_command(
    "List changes of prices, newest first.",
    "GET",
    PRICE_CHANGES,
    output=Rows(
        "price_changes",
        ("id", "at", "state", "moves", "created_by", "why"),
        is_paged=True,
        cells={"moves": _format_moves},
    ),
)
show_change = build_command(
    "Show a price change and, while it is scheduled, its effect on each subscriber.",
    "GET",
    f"{PRICE_CHANGES}/{{change}}",
    CHANGE,
    output=_print_change,
)
withdraw = build_command(
    "Withdraw a change of prices, until a minute before its time.",
    "POST",
    f"{PRICE_CHANGES}/{{change}}/withdraw",
    CHANGE,
    WHY,
    DRY_RUN,
    IDEMPOTENCY_KEY,
    output=_print_new_change,
    is_created_once=True,
)
versions = build_command(
    "List all versions of plans, with their subscribers.",
    "GET",
    "/billing/plan-versions",
    output=Rows("versions", ("version", "state", "begins_at", "fee", "subscribers")),
)
