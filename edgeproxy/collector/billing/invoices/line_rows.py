"""Invoice lines as rows, and in the forms for the API and for customers."""

from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.money import format_places
from edgeproxy.collector.billing.rating.rater import DISCOUNT, FEES, LineKind, RatedLine, Span
from edgeproxy.collector.database.billing_tables import invoice_lines
from edgeproxy.collector.languages.meter_display import format_label
from edgeproxy.config.collector.catalog import get_plan_name
from edgeproxy.config.collector.currency_units import DECIMALS, choose_price_units, to_decimal
from edgeproxy.config.collector.money import PRICE_PLACES, PRICE_SCALE


class InvoiceLine(TypedDict):
    """A line of an invoice. Amounts are in the smallest unit of its currency, such as cents; `unit_price` is null for
    fees.
    """

    kind: LineKind
    """`fee`, `proration`, `usage`, `late` for usage reported after its period, `minimum` for the rest up to the minimum
    fee, or `discount` for the amount that a coupon takes off.
    """
    plan: str
    """The version of the plan that sets the price."""
    meter: str | None
    """The meter; null for fees."""
    value: str | None
    """The value of the dimension that sets the price, or the code of the coupon; null if there is neither."""
    tier: int
    """The number of the price tier, from 0."""
    quantity: int
    """The units, or packages of units, that the line bills. For a fee, the quantity of the plan, negative if the fee is
    given back; for a discount, the discounted amount.
    """
    package: int
    """The units of a package; 1 if units are billed one by one."""
    unit_price: str | None
    """The price of a unit in the smallest unit, as a decimal number; for a discount its share; null for fees."""
    amount: int
    """The amount of the line, in the smallest unit, before tax; a negative amount is returned."""
    start: str | None
    """The start of the time that the line covers."""
    end: str | None
    """The end of the time that the line covers."""
    text: str
    """The text of the line for the customer."""


async def insert_lines(connection: AsyncConnection, number: str, lines: Sequence[RatedLine], currency: str) -> None:
    """Insert the lines of an invoice, by id, in this order."""
    rows = [
        {"invoice": number, "position": position, **line_to_row(line, currency)} for position, line in enumerate(lines)
    ]
    if rows:
        await connection.execute(sa.insert(invoice_lines), rows)


async def fetch_lines(connection: AsyncConnection, number: str) -> list[RatedLine]:
    """Return the lines of an invoice."""
    statement = sa.select(invoice_lines).where(invoice_lines.c.invoice == number).order_by(invoice_lines.c.position)
    return [parse_line(row) for row in (await connection.execute(statement)).mappings()]


def line_to_row(line: RatedLine, currency: str) -> dict[str, object]:
    """Return the row of a line."""
    return {
        "kind": line.kind,
        "plan_version": line.version,
        "segment_start": line.segment.start,
        "segment_end": line.segment.end,
        "meter": line.meter,
        "value": line.value,
        "tier": line.tier,
        "quantity": line.quantity,
        "package": line.package,
        "unit_price": None if line.unit_price is None else format_unit_price(line.unit_price),
        "amount": line.amount,
        "start": line.span.start,
        "end": line.span.end,
        "text": describe_line(line, currency),
    }


def parse_line(row: sa.RowMapping) -> RatedLine:
    """Return the line of a row."""
    return RatedLine(
        row["kind"],
        row["plan_version"],
        Span(row["segment_start"], row["segment_end"]),
        row["meter"],
        row["value"],
        row["tier"],
        row["quantity"],
        None if row["unit_price"] is None else parse_unit_price(row["unit_price"]),
        row["amount"],
        Span(row["start"], row["end"]),
        row["package"],
    )


def format_unit_price(price: int) -> str:
    """Format a unit price in 10⁻¹² cents as cents, as people and Stripe write it: `0.001`."""
    whole, rest = divmod(price, PRICE_SCALE)
    return f"{whole}.{rest:0{PRICE_PLACES}}".rstrip("0").rstrip(".")


def parse_unit_price(price: str) -> int:
    """Parse a unit price in cents into 10⁻¹² cents."""
    whole, _, places = price.partition(".")
    # Whole numbers throughout: a float would round prices of 10⁻¹² cents.
    return int(whole) * PRICE_SCALE + int(places.ljust(PRICE_PLACES, "0") or 0)


@lru_cache(maxsize=1024)  # Hundreds of lines of an invoice have few prices.
def format_price(price: int, currency: str) -> str:
    """Format a unit price in 10⁻¹² smallest units for customers: `$0.01 per 1,000`, `€0.095 each`."""
    units = choose_price_units(Decimal(price) / PRICE_SCALE)
    amount = to_decimal(price * units, currency).scaleb(-PRICE_PLACES)
    # All places that the price has: a rounded price would not give the amount of the line.
    places = max(DECIMALS[currency], -int(amount.normalize().as_tuple().exponent))
    written = format_places(amount, currency, places)
    return f"{written} each" if units == 1 else f"{written} per {units:,}"


def describe_line(line: RatedLine, currency: str) -> str:
    """Return the text of an invoice line in this currency, in words instead of names of settings."""
    span = f"{periods.format_period(line.span)} to {periods.format_period(Span(line.span.end, line.span.end))}"
    plan = format_label(get_plan_name(line.version))
    if line.kind in FEES and abs(line.quantity) > 1:
        plan = f"{abs(line.quantity):,} × {plan}"
    if line.kind == "fee":
        return f"{plan}, {span}"
    if line.kind == DISCOUNT:
        percent = "" if line.unit_price is None else f", {format_unit_price(100 * line.unit_price)} %"
        return f"Coupon {line.value}{percent}{' off' if line.amount <= 0 else ', corrected'}, {span}"
    if line.kind == "minimum":
        return f"Minimum fee of {plan}, {'remaining' if line.amount >= 0 else 'corrected'}, {span}"
    if line.kind == "proration":
        corrected = ", corrected" if line.amount * line.quantity < 0 else ""
        return f"{'Remaining time' if line.quantity > 0 else 'Unused time'} of {plan}{corrected}, {span}"
    subject = f"{format_label(line.meter)}, {line.value}" if line.value else format_label(line.meter)
    late = ", reported late" if line.kind == "late" else ""
    if not line.unit_price:
        return f"{subject}: {line.quantity:,} included, {span}{late}"
    if line.package > 1:
        subject, packages = f"{subject}, packages of {line.package:,}", f"{line.quantity:,}"
        return f"{subject}: {packages} at {format_price(line.unit_price, currency)}, {span}{late}"
    return f"{subject}: {line.quantity:,} at {format_price(line.unit_price, currency)}, {span}{late}"


def line_to_response(line: RatedLine, currency: str) -> InvoiceLine:
    """Return a line in the form of the API."""
    return {
        "kind": line.kind,
        "plan": line.version,
        "meter": line.meter or None,
        "value": line.value or None,
        "tier": line.tier,
        "quantity": line.quantity,
        "package": line.package,
        "unit_price": None if line.unit_price is None else format_unit_price(line.unit_price),
        "amount": line.amount,
        "start": format_timestamp(line.span.start * 1000),
        "end": format_timestamp(line.span.end * 1000),
        "text": describe_line(line, currency),
    }
