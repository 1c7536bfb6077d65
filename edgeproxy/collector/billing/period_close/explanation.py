"""The explanation of an invoice line: its formula with numbers, earlier lines at that price, and hourly usage."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.invoices import line_rows
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.meter_export.metered_segments import is_sum
from edgeproxy.collector.billing.rating.money import compute_amount, compute_share
from edgeproxy.collector.billing.rating.rater import DISCOUNT, OTHER, RatedLine, Segment, Span, identify_line
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.database.billing_tables import invoice_lines, invoices, subscriptions
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.queries import InvalidQueryError, LedgerQuery
from edgeproxy.collector.problems import billing_codes
from edgeproxy.config.collector.catalog import MeterPrice
from edgeproxy.config.meters import Meter


class PlacedLine(NamedTuple):
    """A line with its place."""

    invoice: str
    position: int
    line: RatedLine


class PaidShare(NamedTuple):
    """The share of a fee that a line charges."""

    fee: int
    paid: Span
    """The time that the whole fee pays for."""


class LineExplanation(NamedTuple):
    """An invoice line, and the values that it was computed from.

    The amount is `rated`, less the amounts `before`, and less amounts of these that are no longer due.
    """

    placed: PlacedLine
    rated: int
    """The amount for everything known when the line was written; for a minimum fee, the amount itself."""
    formula: str
    share: PaidShare | None
    before: list[PlacedLine]
    """Earlier lines with the price and segment of this one."""
    quantity: int
    """The quantity of this line and earlier ones."""
    hours: list[tuple[str, int]] | None
    """The hours with usage; None for fees, for meters that are not sums, and if hours are no longer stored."""


async def explain_line(
    connection: AsyncConnection, row: InvoiceRow, position: int, meters: Mapping[str, Meter]
) -> LineExplanation:
    """Explain the amount of a line, by its position from 0, with the configured meters. Raises ChangeRejectedError."""
    lines = await _fetch_lines_until(connection, row, position)
    if not lines or (lines[-1].invoice, lines[-1].position) != (row.id, position):
        raise ChangeRejectedError(billing_codes.INVOICE_LINE_NOT_FOUND, "the invoice has no such line")
    *earlier, placed = lines
    line = placed.line
    # A line charges the rest of everything known when it was written. So its amount depends on the lines before it.
    before = [other for other in earlier if identify_line(other.line) == identify_line(line)]
    quantity = line.quantity + sum(other.line.quantity for other in before)
    (subscription,) = await subscription_rows.fetch_subscriptions(connection, subscriptions.c.id == row.subscription)
    segments = (await subscription_rows.load_subscription(connection, subscription)).current.segments
    share = None
    if line.kind == DISCOUNT:
        rated = line.amount + sum(other.line.amount for other in before)
        formula = f"discount of {line.value} on {quantity}: {rated}"
    elif line.unit_price is not None:
        rated = compute_amount(quantity, line.unit_price, row.currency)
        formula = f"{quantity} × {line_rows.format_unit_price(line.unit_price)}, rounded: {rated}"
    elif line.kind == "minimum":
        rated = line.amount + sum(other.line.amount for other in before)
        formula = f"what is missing up to the minimum fee of {line.version}: {rated}"
    else:
        share = find_share(line, segments)
        seconds, whole = line.span.end - line.span.start, share.paid.end - share.paid.start
        rated = compute_share(share.fee, seconds, whole, row.currency)
        rated = rated if line.quantity > 0 else -rated
        sign = "" if line.quantity > 0 else "−"
        formula = f"{sign}{share.fee} × {seconds} s / {whole} s, rounded: {rated}"
    if before:
        formula += f"; less {sum(other.line.amount for other in before)} on earlier lines"
    # The rest of the difference. No row has this amount, so it is computed.
    taken_off = rated - sum(other.line.amount for other in before) - line.amount
    if taken_off:
        formula += f"; less {taken_off} that does not stand: an invoice was void or credited, or the plan had ended"
    # Only sums have hours that add up to the quantity.
    has_hours = line.meter and is_sum(meters, line.meter)
    hours = await _fetch_hours(connection, row.name, line, segments) if has_hours else None
    return LineExplanation(placed, rated, formula, share, before, quantity, hours)


def find_share(line: RatedLine, segments: Sequence[Segment]) -> PaidShare:
    """Return the fee that a line is a share of, and the time of that fee."""
    terms = (line.version, line.span.end, abs(line.quantity))
    segment = next(segment for segment in segments if (segment.version, segment.paid.end, segment.quantity) == terms)
    return PaidShare(segment.fee, segment.paid)


async def _fetch_lines_until(connection: AsyncConnection, row: InvoiceRow, position: int) -> list[PlacedLine]:
    """Return the lines of a subscription up to one of an invoice, in the order of writing."""
    column = invoice_lines.c
    # Ids of invoices sort by the time of their creation (accounts/ids.py).
    is_earlier = (column.invoice < row.id) | ((column.invoice == row.id) & (column.position <= position))
    statement = (
        sa.select(invoice_lines)
        .join(invoices, invoices.c.id == column.invoice)
        .where(invoices.c.customer == row.customer, invoices.c.subscription == row.subscription, is_earlier)
        .order_by(column.invoice, column.position)
    )
    rows = (await connection.execute(statement)).mappings()
    return [PlacedLine(row["invoice"], row["position"], line_rows.parse_line(row)) for row in rows]


async def _fetch_hours(
    connection: AsyncConnection, customer: str, line: RatedLine, segments: Sequence[Segment]
) -> list[tuple[str, int]] | None:
    """Return the usage of a line's meter and value in its segment by hour, according to the current ledger."""
    price = next(segment for segment in segments if segment.span.start == line.segment.start).plan.meters[line.meter]
    by = ("hour",) if price.by is None else ("hour", price.by.dimension)
    query = LedgerQuery(customer, line.meter, line.segment.start, line.segment.end, by)
    try:
        usage = await queries.fetch_usage(connection, query)
    except InvalidQueryError:
        return None
    hours: dict[str, int] = {}
    for row in usage["rows"]:
        if price.by is None or _priced_value(price, row[price.by.dimension]) == line.value:
            hours[row["hour"]] = hours.get(row["hour"], 0) + row["value"]
    return sorted(hours.items())


def _priced_value(price: MeterPrice, value: str) -> str:
    """Return the value that usage of a value is priced under."""
    return value if price.by is not None and value in price.by.prices else OTHER
