"""Invoices as rows: how they are made, what their lines are, and what is known of them from Stripe.

    draft ──▶ closing ──▶ open ──▶ paid
      │          │ ▲        └────▶ uncollectible
      │          ▼ │ accepted
      │         held ──▶ voiding ──▶ void
      └──▶ waived: of a customer who is not charged

A draft has no lines yet: usage may still change it. They are written once, when it is closed, and stay. TRANSITIONS
has all steps that are allowed, and `transition` makes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NotRequired

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import generate_id, is_id, now_ms
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.rater import RatedLine, Span, sum_amounts
from edgeproxy.collector.database.billing_tables import invoice_lines, invoices
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.collector.catalog import PRICE_PLACES, PRICE_SCALE, Plan

DRAFT, CLOSING, HELD, OPEN, PAID = "draft", "closing", "held", "open", "paid"
VOIDING, VOID, WAIVED, UNCOLLECTIBLE = "voiding", "void", "waived", "uncollectible"
STATES_BY_STRIPE = {"open": OPEN, "paid": PAID, "void": VOID, "uncollectible": UNCOLLECTIBLE}
"""Our states by Stripe's, for invoices that are finalized."""
_SETTLED = frozenset(STATES_BY_STRIPE.values())
TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    # A person may finalize at Stripe what we have not: then Stripe's state holds.
    DRAFT: frozenset({CLOSING, HELD}) | _SETTLED,
    CLOSING: frozenset({HELD, WAIVED}) | _SETTLED,
    HELD: frozenset({DRAFT, CLOSING, VOIDING}) | _SETTLED,
    WAIVED: _SETTLED,
    OPEN: frozenset({PAID, VOID, UNCOLLECTIBLE, VOIDING}),
    UNCOLLECTIBLE: frozenset({PAID, VOID, VOIDING}),
    VOIDING: frozenset({PAID, VOID, UNCOLLECTIBLE}),
    PAID: frozenset({VOID, UNCOLLECTIBLE}),
    VOID: frozenset(),
}
"""The states that each state may become.

What is settled is never open again, whichever event of Stripe's comes last.
"""
NOT_THERE = "there is no such invoice"
STRIPE_REFUSES, NO_TAX = "Stripe refuses:", "Stripe does not know the tax"
"""Prefixes of the reasons for which an invoice is held; metrics count by them."""


class InvoiceStateError(Exception):
    """An invoice cannot go from its state to the one that was given."""


class InvoiceLine(TypedDict):
    """A line of an invoice. Amounts are cents; `unit_price` is cents a unit, None of fees."""

    kind: str
    """`fee`, `proration`, `usage`, or `late` for usage reported after its period."""
    plan: str
    """The version of the plan that sets the price."""
    meter: str | None
    """The meter; null for fees."""
    value: str | None
    """The value of the dimension that sets the price; null where the price has no dimension."""
    tier: int
    """The number of the price tier, from 0."""
    quantity: int
    """The units billed by this line."""
    unit_price: str | None
    """The price of a unit in cents, as a decimal number; null for fees."""
    amount: int
    """The amount of the line, in cents before tax; below zero it is returned."""
    start: str | None
    """The beginning of the time that the line is about."""
    end: str | None
    """The end of the time that the line is about."""
    text: str
    """The line as the customer reads it."""


class Invoice(TypedDict):
    """An invoice, without its lines in a list of several."""

    id: str
    """The id of the invoice."""
    customer: str
    """The customer, by name."""
    period: str
    """The first day of the period in UTC, such as 2027-03-01."""
    kind: str
    """The kind of the invoice, such as that of a whole period."""
    state: str
    """`draft`, `closing`, `held`, `open`, `paid`, `voiding`, `void`, `waived` or `uncollectible`."""
    subtotal: int
    """The sum of the lines, in cents before tax."""
    total: int
    """The sum that is due, in cents."""
    currency: str
    """The currency of all amounts (ISO 4217), such as `usd`."""
    period_start: str | None
    """The beginning of the period."""
    period_end: str | None
    """The end of the period."""
    closes_at: str | None
    """The time at which the invoice is closed: usage that comes until then is on it."""
    held_why: str | None
    """The reason why the invoice was held or voided; null for customers."""
    accepted_why: str | None
    """The reason why a held invoice was accepted; null for customers."""
    stripe_id: str | None
    """The id of the invoice at Stripe; null until it is there."""
    url: str | None
    """Stripe's page of the invoice; null until it is open."""
    created_at: str | None
    """The time at which the invoice was created."""
    lines: NotRequired[list[InvoiceLine]]
    """The lines; missing in a list of invoices."""


class InvoiceList(TypedDict):
    """A page of invoices, newest first."""

    invoices: list[Invoice]
    """The invoices of this page, newest first."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""


class InvoiceRow(NamedTuple):
    """An invoice as the database has it, with the name of its customer. Amounts are cents, times Unix seconds."""

    id: str
    customer: str
    subscription: str
    period: str
    kind: str
    state: str
    stripe_id: str | None
    subtotal: int
    total: int
    currency: str
    period_start: int
    period_end: int
    closes_at: int
    held_why: str | None
    accepted_why: str | None
    pdf: str | None
    url: str | None
    tries: int
    failures: int
    created_at: int
    """Unix milliseconds."""
    name: str


async def create_invoice(
    connection: AsyncConnection,
    customer: str,
    subscription: str,
    kind: str,
    period: Span,
    lines: Sequence[RatedLine] | None,
    *,
    now: float,
    freeze: float = 0.0,
    costs: bool = True,
) -> str:
    """Create an invoice of a subscription, and return its id. Without `lines` it is a draft until `freeze` seconds
    after the period; with them it closes now.

    `costs` says whether anything can be due, so that Stripe drafts it before it closes. Raises IntegrityError where the
    customer has one of this kind for this period.
    """
    end = min(period.end, int(now)) if lines is None else int(now)
    closes_at = end + int(freeze)
    row = {
        "id": generate_id(),
        "customer": customer,
        "subscription": subscription,
        "period": periods.format_period(period),
        "kind": kind,
        "state": DRAFT,
        "subtotal": 0,
        "total": 0,
        "currency": "usd",
        "period_start": period.start,
        "period_end": period.end,
        "closes_at": closes_at,
        "tries": 0,
        "failures": 0,
        "try_at": 0 if costs else closes_at,
        "created_at": now_ms(),
    }
    await connection.execute(sa.insert(invoices), [row])
    if lines is not None:
        await write_lines(connection, str(row["id"]), lines)
    return str(row["id"])


async def write_lines(connection: AsyncConnection, number: str, lines: Sequence[RatedLine]) -> None:
    """Write the lines of a draft, and close it. From here on they stay; what comes later is on the next invoice."""
    rows = [{"invoice": number, "position": position, **line_to_row(line)} for position, line in enumerate(lines)]
    if rows:
        await connection.execute(sa.insert(invoice_lines), rows)
    amount = sum_amounts(lines)
    await transition(connection, number, DRAFT, CLOSING, subtotal=amount, total=amount)


async def update_invoice(connection: AsyncConnection, number: str, **values: Any) -> None:
    """Write columns of an invoice; its state changes by `transition` alone."""
    assert "state" not in values
    await connection.execute(sa.update(invoices).where(invoices.c.id == number).values(**values))


async def transition(connection: AsyncConnection, number: str, before: str, after: str, **values: Any) -> None:
    """Bring an invoice from a state into another one, with these columns.

    Raises InvoiceStateError where TRANSITIONS has no such step, or the invoice is not in the state `before`.
    """
    if after not in TRANSITIONS[before]:
        raise InvoiceStateError(f"an invoice cannot go from {before} to {after}")
    statement = sa.update(invoices).where(invoices.c.id == number, invoices.c.state == before)
    if (await connection.execute(statement.values(state=after, **values))).rowcount != 1:
        raise InvoiceStateError(f"the invoice {number} is not {before} any more")


def line_to_row(line: RatedLine) -> dict[str, Any]:
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
        "unit_price": None if line.unit_price is None else format_unit_price(line.unit_price),
        "amount": line.amount,
        "start": line.span.start,
        "end": line.span.end,
        "text": describe_line(line),
    }


def parse_line(row: sa.Row[Any]) -> RatedLine:
    """Return the line of a row."""
    segment, span = Span(row.segment_start, row.segment_end), Span(row.start, row.end)
    price = None if row.unit_price is None else parse_unit_price(row.unit_price)
    return RatedLine(
        *(row.kind, row.plan_version, segment, row.meter, row.value, row.tier),
        *(row.quantity, price, row.amount, span),
    )


def format_unit_price(price: int) -> str:
    """Format a unit price in 10⁻¹² cents as cents, as people and Stripe write it: `0.001`."""
    whole, rest = divmod(price, PRICE_SCALE)
    return f"{whole}.{rest:0{PRICE_PLACES}}".rstrip("0").rstrip(".")


def parse_unit_price(price: str) -> int:
    """Parse a unit price in cents; return 10⁻¹² cents."""
    whole, _, places = price.partition(".")
    return int(whole) * PRICE_SCALE + int(places.ljust(PRICE_PLACES, "0") or 0)


def describe_line(line: RatedLine) -> str:
    """Return the text of a line."""
    span = f"{periods.format_period(line.span)} to {periods.format_period(Span(line.span.end, line.span.end))}"
    plan = line.version.partition("+")[0]
    if line.kind == "fee":
        return f"{plan}, {span}"
    if line.kind == "proration":
        return f"{'Remaining time' if line.quantity > 0 else 'Unused time'} of {plan}, {span}"
    subject = f"{line.meter} {line.value}".strip()
    late = ", reported late" if line.kind == "late" else ""
    if not line.unit_price:
        return f"{subject}: {line.quantity:,} included, {span}{late}"
    return f"{subject}: {line.quantity:,} at {format_unit_price(line.unit_price)} cents, {span}{late}"


def line_to_response(line: RatedLine) -> InvoiceLine:
    """Return a line as the API writes it."""
    return {
        "kind": line.kind,
        "plan": line.version,
        "meter": line.meter or None,
        "value": line.value or None,
        "tier": line.tier,
        "quantity": line.quantity,
        "unit_price": None if line.unit_price is None else format_unit_price(line.unit_price),
        "amount": line.amount,
        "start": format_timestamp(line.span.start * 1000),
        "end": format_timestamp(line.span.end * 1000),
        "text": describe_line(line),
    }


def to_response(row: InvoiceRow, lines: Iterable[RatedLine] | None = None) -> Invoice:
    """Return an invoice as the API writes it."""
    response: Invoice = {
        "id": row.id,
        "customer": row.name,
        "period": row.period,
        "kind": row.kind,
        "state": row.state,
        "subtotal": row.subtotal,
        "total": row.total,
        "currency": row.currency,
        "period_start": format_timestamp(row.period_start * 1000),
        "period_end": format_timestamp(row.period_end * 1000),
        "closes_at": format_timestamp(row.closes_at * 1000),
        "held_why": row.held_why,
        "accepted_why": row.accepted_why,
        "stripe_id": row.stripe_id,
        "url": row.url,
        "created_at": format_timestamp(row.created_at),
    }
    if lines is not None:
        response["lines"] = [line_to_response(line) for line in lines]
    return response


def select_invoices() -> sa.Select[Any]:
    """Return the statement for invoices, each with the name of its customer."""
    joined = invoices.join(customers, customers.c.id == invoices.c.customer)
    fields = [invoices.c[name] for name in InvoiceRow._fields if name != "name"]
    return sa.select(*fields, customers.c.name).select_from(joined)


async def get_invoice(connection: AsyncConnection, number: str, *, lock: bool = False) -> InvoiceRow:
    """Return an invoice; raises Refused where there is none."""
    statement = select_invoices().where(invoices.c.id == number)
    if lock:
        statement = statement.with_for_update(of=invoices)
    row = (await connection.execute(statement)).one_or_none() if is_id(number) else None
    if row is None:
        raise ChangeRejectedError(404, NOT_THERE)
    return InvoiceRow(*row)


async def find_owner(connection: AsyncConnection, number: str) -> str | None:
    """Return the name of the customer of an invoice; None where there is none."""
    if not is_id(number):
        return None
    row = (await connection.execute(select_invoices().where(invoices.c.id == number))).one_or_none()
    return None if row is None else str(row.name)


async def list_invoices(
    connection: AsyncConnection, before: str | None, limit: int, **only: str | None
) -> list[Invoice]:
    """Return at most `limit` invoices before an id, newest first; `only` those with these columns."""
    statement = select_invoices().order_by(invoices.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(invoices.c.id < before)
    conditions = [invoices.c[name] == value for name, value in only.items() if value is not None]
    return [to_response(InvoiceRow(*row)) for row in await connection.execute(statement.where(*conditions))]


async def fetch_lines(connection: AsyncConnection, number: str) -> list[RatedLine]:
    """Return the lines of an invoice."""
    statement = sa.select(invoice_lines).where(invoice_lines.c.invoice == number).order_by(invoice_lines.c.position)
    return [parse_line(row) for row in await connection.execute(statement)]


async def fetch_lines_of_subscription(connection: AsyncConnection, subscription: str) -> list[RatedLine]:
    """Return all lines that a subscription was invoiced. Lines of void invoices count too: what was taken back is not
    charged again."""
    joined = invoice_lines.join(invoices, invoices.c.id == invoice_lines.c.invoice)
    statement = sa.select(invoice_lines).select_from(joined).where(invoices.c.subscription == subscription)
    ordered = statement.order_by(invoice_lines.c.invoice, invoice_lines.c.position)
    return [parse_line(row) for row in await connection.execute(ordered)]


async def apply_stripe_invoice(connection: AsyncConnection, stripe_invoice: Mapping[str, Any]) -> None:
    """Take over an invoice of Stripe's as it was fetched now. Invoices that are not ours are ignored."""
    number = (stripe_invoice.get("metadata") or {}).get("edgeproxy_invoice")
    condition = invoices.c.stripe_id == stripe_invoice["id"]
    if isinstance(number, str):
        condition |= invoices.c.id == number
    row = (await connection.execute(sa.select(invoices).where(condition).with_for_update())).first()
    if row is None:
        return
    values: dict[str, Any] = {
        "stripe_id": stripe_invoice["id"],
        "pdf": stripe_invoice.get("invoice_pdf"),
        "url": stripe_invoice.get("hosted_invoice_url"),
    }
    state = STATES_BY_STRIPE.get(str(stripe_invoice.get("status")))
    if state is None or (state != row.state and state not in TRANSITIONS[row.state]):
        await update_invoice(connection, row.id, **values)
        return
    values |= {"total": stripe_invoice["total"], "error": None}
    if state == row.state:
        await update_invoice(connection, row.id, **values)
    else:
        await transition(connection, row.id, row.state, state, **values)


def can_cost(plan: Plan) -> bool:
    """Return whether a plan can ever cost anything."""
    return bool(plan.fee) or any(price.price or price.tiers for price in plan.meters.values())
