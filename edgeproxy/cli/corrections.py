"""Commands for corrections of invoices and credits, each with its reason, and the explanation of an invoice line."""

from collections.abc import Callable
from decimal import Decimal
from urllib.parse import quote

import typer

from edgeproxy.base.json_values import JsonDocument, JsonObject
from edgeproxy.cli.api import Api, show, table
from edgeproxy.cli.endpoint_commands import (
    CUSTOMER,
    DRY_RUN,
    IDEMPOTENCY_KEY,
    WHY,
    Arguments,
    BuildBody,
    Parameter,
    Print,
    Rows,
    argument,
    build_command,
    note_dry_run,
    option,
)
from edgeproxy.cli.outcome import fail

MILLICREDITS_PLACES = 4
"""Decimal places of a currency's smallest unit in millicredits."""
AMOUNT_MAX = Decimal(10) ** 13
"""The largest accepted amount: above any real amount, and quick to convert."""


def _read_invoice_amount(api: Api, arguments: Arguments) -> int:
    """Return an amount in an invoice's currency, in smallest units; exits with 2 if it is invalid."""
    from edgeproxy.config.collector.currency_units import parse_amount

    written = arguments["amount"]
    currency = api.call("GET", f"/billing/invoices/{quote(arguments['invoice'], safe='')}")["currency"]
    try:
        return parse_amount(written, currency)
    except ValueError as error:
        fail(f"{written!r} {error}", 2)


def _read_credits(api: Api, arguments: Arguments) -> int:
    """Return an amount in the currency of a customer's credits, in millicredits; exits with 2 if it is invalid."""
    balance = api.call("GET", "/billing/balance", query={"customer": arguments["customer"]})
    return parse_millicredits(arguments["millicredits"], balance["currency"])


def parse_millicredits(written: str, currency: str) -> int:
    """Return an amount like 12.34 in millicredits; exits with 2 if it is invalid."""
    from edgeproxy.config.collector.currency_units import DECIMALS

    unit = 10 ** (DECIMALS[currency] + MILLICREDITS_PLACES)
    try:
        amount = Decimal(written)
    except ArithmeticError:
        amount = Decimal(0)
    if not (amount.is_finite() and 0 < amount <= AMOUNT_MAX and amount * unit == int(amount * unit)):
        fail(f"{written!r} is no amount such as 12.34, above 0 and in whole parts of {1 / Decimal(unit):f}", 2)
    return int(amount * unit)


def _build_refund(api: Api, arguments: Arguments) -> JsonObject:
    """Return the body of a refund. A trial has the currency of the purchase."""
    body: JsonObject = {"purchase": arguments["purchase"], "why": arguments["why"]}
    if arguments["amount"] is not None:
        tried = api.call("POST", REFUNDS, body, create=True, dry_run="true")
        body["millicredits"] = parse_millicredits(arguments["amount"], tried["currency"])
    return body


def _print_explanation(why: JsonDocument, arguments: Arguments) -> None:
    hours = None if arguments["as_json"] else why.pop("hours")
    show(why, arguments["as_json"])
    if hours:
        table(hours, ("hour", "quantity"), False)


def _print_correction(result: JsonObject, arguments: Arguments) -> None:
    as_json = arguments["as_json"]
    show({name: value for name, value in result.items() if as_json or name != "lines"}, as_json)
    note_dry_run(arguments)


def _print_acceptance(accepted: JsonObject, arguments: Arguments) -> None:
    _print_correction(accepted, arguments)
    if not arguments["as_json"]:
        typer.echo(_describe_acceptance(accepted))


ACCEPTED = {
    "lines": "{} goes out: the sum of its lines, before tax",
    "stripe": "{} goes out: the invoice as it is at Stripe",
    "usage": "its amount is not known before it is closed",
}
"""The sentence on an accepted invoice's amount, by the amount's origin."""


def _describe_acceptance(accepted: JsonObject) -> str:
    """Return the sentence on the amount of an accepted invoice."""
    from edgeproxy.config.collector.currency_units import format_with_code

    acceptance, currency = accepted["acceptance"], str(accepted["currency"])
    assert isinstance(acceptance, dict)
    amount = acceptance["amount"]
    shown = format_with_code(amount, currency) if isinstance(amount, int) else "what Stripe has counted"
    return ACCEPTED[str(acceptance["of"])].format(shown)


def _build_correction(
    about: str,
    path: str,
    *parameters: Parameter,
    body: BuildBody | None = None,
    output: Print = _print_correction,
) -> Callable[..., None]:
    """Build the command of a correction that can be tried, and is made once for each key."""
    parameters = (*parameters, DRY_RUN, IDEMPOTENCY_KEY)
    return build_command(about, "POST", path, *parameters, body=body, output=output, is_created_once=True)


INVOICE_PATH = "/billing/invoices/{invoice}"
ADJUST, REFUNDS = "/billing/credits/adjust", "/billing/refunds"
INVOICE = argument("invoice", "Its id.")
AMOUNT = argument("amount", "Such as 12.34.", compute=_read_invoice_amount)
CREDITS = argument("millicredits", "Such as 12.34.", metavar="AMOUNT", compute=_read_credits)
TAKEN_CREDITS = CREDITS._replace(compute=lambda api, arguments: -_read_credits(api, arguments))

explain = build_command(
    "Explain why a line of an invoice has its amount, with the usage of each hour.",
    "GET",
    f"{INVOICE_PATH}/lines/{{line}}",
    INVOICE,
    argument("line", "Its position on the invoice, from 0.", int, min=0),
    output=_print_explanation,
)
credit_note = _build_correction(
    "Give back part of an invoice, or all of it: of one that is paid, money goes back the way it came.",
    f"{INVOICE_PATH}/credit",
    INVOICE,
    AMOUNT,
    WHY,
)
settle = _build_correction(
    "Mark an invoice as paid by a transfer. The amount must be the whole amount due.",
    f"{INVOICE_PATH}/settle",
    INVOICE,
    AMOUNT,
    WHY,
)
write_off = _build_correction(
    "Write off the amount due of an open invoice as lost. The customer may still pay it.",
    f"{INVOICE_PATH}/write-off",
    INVOICE,
    WHY,
)
void = _build_correction("Take back an invoice that is held or not paid.", f"{INVOICE_PATH}/void", INVOICE, WHY)
hold = _build_correction(
    "Hold a draft: it is not sent until an operator accepts it.", f"{INVOICE_PATH}/hold", INVOICE, WHY
)
accept = _build_correction(
    "Accept a held invoice. It is sent unchanged, over the printed amount.",
    f"{INVOICE_PATH}/accept",
    INVOICE,
    WHY,
    output=_print_acceptance,
)
gift = _build_correction(
    "Give credits for an amount in the customer's currency, as goodwill.",
    ADJUST,
    CUSTOMER,
    CREDITS,
    WHY,
    option("expires_at", "When the rest expires; by default never.", "--expires", metavar="DAY"),
)
withdraw = _build_correction("Take back the unspent part of given credits.", ADJUST, CUSTOMER, TAKEN_CREDITS, WHY)
consumptions = build_command(
    "List the newest hours of usage that credits have paid for, with the ids that `billing reverse` takes.",
    "GET",
    "/billing/consumptions",
    CUSTOMER,
    output=Rows("consumptions", ("id", "hour", "millicredits", "reversed")),
)
reverse = _build_correction(
    "Reverse usage that credits have paid for. The credits return to their grants.",
    ADJUST,
    CUSTOMER,
    argument("consumption", "Its id, as a statement has it."),
    CREDITS,
    WHY,
)
refund = _build_correction(
    "Pay back the unspent part of a purchase of credits, or less.",
    REFUNDS,
    argument("purchase", "Its id, such as cs_…."),
    WHY,
    argument("amount", "Part of it, in its currency; by default all.", str | None, metavar="[AMOUNT]", default=None),
    body=_build_refund,
)
