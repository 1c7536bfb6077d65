"""Commands for corrections of invoices and credits, each with its reason, and the explanation of an invoice line."""

from decimal import Decimal
from typing import Annotated
from urllib.parse import quote

import typer

from edgeproxy.base.json_values import JsonObject
from edgeproxy.cli.api import Api, Authorities, CustomerRef, Json, Url, show, table
from edgeproxy.cli.outcome import fail

MILLICREDITS_PLACES = 4
"""Decimal places of a currency's smallest unit in millicredits."""
AMOUNT_MAX = Decimal(10) ** 13
"""The largest accepted amount: above any real amount, and quick to convert."""

InvoiceId = Annotated[str, typer.Argument(metavar="INVOICE", help="Its id.")]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="Such as 12.34.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the audit log.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would come of it, and change nothing.")]
Key = Annotated[
    str | None, typer.Option("--key", metavar="TEXT", help="The same command with the same key is carried out once.")
]


def explain(
    invoice: InvoiceId,
    line: Annotated[int, typer.Argument(metavar="LINE", min=0, help="Its position on the invoice, from 0.")],
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Explain why a line of an invoice has its amount, with the usage of each hour."""
    why: JsonObject = Api(collector, ca).call("GET", _invoice_path(invoice, f"lines/{line}"))
    hours = None if as_json else why.pop("hours")
    show(why, as_json)
    if hours:
        table(hours, ("hour", "quantity"), as_json)  # type: ignore[arg-type]


def credit_note(
    invoice: InvoiceId,
    amount: Amount,
    why: Why,
    dry: DryRun = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Give back part of an invoice, or all of it: of one that is paid, money goes back the way it came."""
    api = Api(collector, ca)
    body: JsonObject = {"amount": _parse_invoice_amount(api, invoice, amount), "why": why}
    _send(api, _invoice_path(invoice, "credit"), body, dry, key, as_json)


def settle(
    invoice: InvoiceId,
    amount: Amount,
    why: Why,
    dry: DryRun = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Mark an invoice as paid by a transfer. The amount must be the whole amount due."""
    api = Api(collector, ca)
    body: JsonObject = {"amount": _parse_invoice_amount(api, invoice, amount), "why": why}
    _send(api, _invoice_path(invoice, "settle"), body, dry, key, as_json)


def write_off(
    invoice: InvoiceId,
    why: Why,
    dry: DryRun = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Write off the amount due of an open invoice as lost. The customer may still pay it."""
    _send(Api(collector, ca), _invoice_path(invoice, "write-off"), {"why": why}, dry, key, as_json)


def void(
    invoice: InvoiceId,
    why: Why,
    dry: DryRun = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Take back an invoice that is held or not paid."""
    _send(Api(collector, ca), _invoice_path(invoice, "void"), {"why": why}, dry, key, as_json)


def hold(
    invoice: InvoiceId,
    why: Why,
    dry: DryRun = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Hold a draft: it is not sent until an operator accepts it."""
    _send(Api(collector, ca), _invoice_path(invoice, "hold"), {"why": why}, dry, key, as_json)


def accept(
    invoice: InvoiceId,
    why: Why,
    dry: DryRun = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Accept a held invoice. It is sent unchanged, over the printed amount."""
    accepted = _send(Api(collector, ca), _invoice_path(invoice, "accept"), {"why": why}, dry, key, as_json)
    if not as_json:
        typer.echo(_describe_acceptance(accepted))


def gift(
    customer: CustomerRef,
    amount: Amount,
    why: Why,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="DAY", help="When the rest expires; by default never.")
    ] = None,
    dry: DryRun = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Give credits for an amount in the customer's currency, as goodwill."""
    api = Api(collector, ca)
    customer = api.resolve_customer(customer)
    body: JsonObject = {"customer": customer, "millicredits": _parse_credits(api, customer, amount), "why": why}
    if expires is not None:
        body["expires_at"] = expires
    _send(api, "/billing/credits/adjust", body, dry, key, as_json)


def withdraw(
    customer: CustomerRef,
    amount: Amount,
    why: Why,
    dry: DryRun = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Take back the unspent part of given credits."""
    api = Api(collector, ca)
    customer = api.resolve_customer(customer)
    body: JsonObject = {"customer": customer, "millicredits": -_parse_credits(api, customer, amount), "why": why}
    _send(api, "/billing/credits/adjust", body, dry, key, as_json)


def reverse(
    customer: CustomerRef,
    consumption: Annotated[str, typer.Argument(metavar="CONSUMPTION", help="Its id, as a statement has it.")],
    amount: Amount,
    why: Why,
    dry: DryRun = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Reverse usage that credits have paid for. The credits return to their grants."""
    api = Api(collector, ca)
    customer = api.resolve_customer(customer)
    millicredits = _parse_credits(api, customer, amount)
    body: JsonObject = {"customer": customer, "millicredits": millicredits, "consumption": consumption, "why": why}
    _send(api, "/billing/credits/adjust", body, dry, key, as_json)


def refund(
    purchase: Annotated[str, typer.Argument(metavar="PURCHASE", help="Its id, such as cs_….")],
    why: Why,
    amount: Annotated[
        str | None,
        typer.Argument(metavar="[AMOUNT]", help="Part of it, in its currency; by default all."),
    ] = None,
    dry: DryRun = False,
    key: Key = None,
    as_json: Json = False,
    collector: Url = None,
    ca: Authorities = None,
) -> None:
    """Pay back the unspent part of a purchase of credits, or less."""
    api = Api(collector, ca)
    body: JsonObject = {"purchase": purchase, "why": why}
    if amount is not None:
        tried = api.call("POST", "/billing/refunds", body, create=True, dry_run="true")
        body["millicredits"] = parse_millicredits(amount, tried["currency"])
    _send(api, "/billing/refunds", body, dry, key, as_json)


def consumptions(customer: CustomerRef, as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """List the newest hours of usage that credits have paid for, with the ids that `billing reverse` takes."""
    api = Api(collector, ca)
    rows = api.fetch_list("/billing/consumptions", "consumptions", customer=api.resolve_customer(customer))
    table(rows, ("id", "hour", "millicredits", "reversed"), as_json)


def _parse_invoice_amount(api: Api, invoice: str, written: str) -> int:
    """Return an amount in an invoice's currency, in smallest units; exits with 2 if it is invalid."""
    from edgeproxy.config.collector.currency_units import parse_amount

    currency = api.call("GET", f"/billing/invoices/{quote(invoice, safe='')}")["currency"]
    try:
        return parse_amount(written, currency)
    except ValueError as error:
        fail(f"{written!r} {error}", 2)


def _parse_credits(api: Api, customer: str, written: str) -> int:
    """Return an amount in the currency of a customer's credits, in millicredits; exits with 2 if it is invalid."""
    return parse_millicredits(written, api.call("GET", "/billing/balance", query={"customer": customer})["currency"])


def parse_millicredits(written: str, currency: str) -> int:
    """Return an amount such as 12.34 in millicredits; exits with 2 if it is invalid."""
    from edgeproxy.config.collector.currency_units import DECIMALS

    unit = 10 ** (DECIMALS[currency] + MILLICREDITS_PLACES)
    try:
        amount = Decimal(written)
    except ArithmeticError:
        amount = Decimal(0)
    if not (amount.is_finite() and 0 < amount <= AMOUNT_MAX and amount * unit == int(amount * unit)):
        fail(f"{written!r} is no amount such as 12.34, above 0 and in whole parts of {1 / Decimal(unit):f}", 2)
    return int(amount * unit)


def _invoice_path(invoice: str, action: str) -> str:
    return f"/billing/invoices/{quote(invoice, safe='')}/{action}"


def _send(api: Api, path: str, body: JsonObject, dry: bool, key: str | None, as_json: bool) -> JsonObject:
    """Send a correction, print the result, and return it."""
    result: JsonObject = api.call("POST", path, body, create=True, key=key, dry_run="true" if dry else None)
    show({name: value for name, value in result.items() if as_json or name != "lines"}, as_json)
    if dry and not as_json:
        typer.echo("nothing was changed: it was a dry run")
    return result


ACCEPTED = {
    "lines": "{} goes out: the sum of its lines, before tax",
    "stripe": "{} goes out: the invoice as it is at Stripe",
    "usage": "its amount is not known before it is closed",
}
"""The sentence on an accepted invoice's amount, by the amount's origin."""


def _describe_acceptance(accepted: JsonObject) -> str:
    """Return the sentence on the amount of an accepted invoice."""
    from edgeproxy.config.collector.currency_units import to_decimal

    acceptance, currency = accepted["acceptance"], str(accepted["currency"])
    assert isinstance(acceptance, dict)
    amount = acceptance["amount"]
    shown = (
        f"{to_decimal(amount, currency)} {currency.upper()}" if isinstance(amount, int) else "what Stripe has counted"
    )
    return ACCEPTED[str(acceptance["of"])].format(shown)
