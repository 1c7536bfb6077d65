"""Invoices as rows: how they are made, what their lines are, and what is known of them from Stripe.

    draft ──▶ closing ──▶ open ──▶ paid
      │          │ ▲        └────▶ uncollectible
      │          ▼ │ accepted
      │         held ──▶ voiding ──▶ void
      └──▶ waived: of a customer who is not charged

A draft has no lines yet: usage may still change it. They are written once, when it is closed, and stay.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NotRequired

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.change import Refused
from edgeproxy.collector.accounts.ids import is_id, moment, new_id, now_ms
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.rater import Line, Span, total
from edgeproxy.collector.database.billing_tables import invoice_lines, invoices
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.catalog import PRICE_PLACES, PRICE_SCALE, Plan

DRAFT, CLOSING, HELD, OPEN, PAID = "draft", "closing", "held", "open", "paid"
VOIDING, VOID, WAIVED, UNCOLLECTIBLE = "voiding", "void", "waived", "uncollectible"
AT_STRIPE = {"open": OPEN, "paid": PAID, "void": VOID, "uncollectible": UNCOLLECTIBLE}
"""Our states by Stripe's, of invoices that are finalized."""
NOT_THERE = "there is no such invoice"
STRIPE_REFUSES, NO_TAX = "Stripe refuses:", "Stripe does not know the tax"
"""How reasons begin for which an invoice is held; metrics count by them."""


class LineTold(TypedDict):
    """A line of an invoice. Amounts are cents; `unit_price` is cents a unit, None of fees."""

    kind: str
    plan: str
    meter: str | None
    value: str | None
    tier: int
    quantity: int
    unit_price: str | None
    amount: int
    start: str | None
    end: str | None
    text: str


class InvoiceTold(TypedDict):
    """An invoice, without its lines in a list of several."""

    id: str
    customer: str
    period: str
    kind: str
    state: str
    subtotal: int
    total: int
    currency: str
    period_start: str | None
    period_end: str | None
    closes_at: str | None
    held_why: str | None
    accepted_why: str | None
    stripe_id: str | None
    url: str | None
    created_at: str | None
    lines: NotRequired[list[LineTold]]


class InvoicesTold(TypedDict):
    """A page of invoices, newest first."""

    invoices: list[InvoiceTold]
    next: NotRequired[str]


async def make(
    connection: AsyncConnection,
    subscription: Any,
    kind: str,
    period: Span,
    lines: Sequence[Line] | None,
    *,
    now: float,
    freeze: float = 0.0,
    costs: bool = True,
) -> str:
    """Make an invoice of a subscription, and return its id: a draft for so many seconds of `freeze` after the period,
    or where there are `lines`, one that has all. `costs`: whether anything can be due, so that Stripe is told before it
    closes. Raises IntegrityError where the customer has one of this kind for this period."""
    end = min(period.end, int(now)) if lines is None else int(now)
    closes_at = end + int(freeze)
    row = {
        "id": new_id(),
        "customer": subscription.customer,
        "subscription": subscription.id,
        "period": periods.name_of(period),
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


async def write_lines(connection: AsyncConnection, number: str, lines: Sequence[Line], state: str = CLOSING) -> None:
    """Write what an invoice comes to. From here on it is not changed; what comes later is on the next one."""
    rows = [{"invoice": number, "position": position, **row_of(line)} for position, line in enumerate(lines)]
    if rows:
        await connection.execute(sa.insert(invoice_lines), rows)
    await update(connection, number, state=state, subtotal=total(lines), total=total(lines))


async def update(connection: AsyncConnection, number: str, **values: Any) -> None:
    """Change an invoice."""
    await connection.execute(sa.update(invoices).where(invoices.c.id == number).values(**values))


def row_of(line: Line) -> dict[str, Any]:
    """The row of a line."""
    return {
        "kind": line.kind,
        "plan_version": line.version,
        "segment_start": line.segment.start,
        "segment_end": line.segment.end,
        "meter": line.meter,
        "value": line.value,
        "tier": line.tier,
        "quantity": line.quantity,
        "unit_price": None if line.unit_price is None else decimal(line.unit_price),
        "amount": line.amount,
        "start": line.span.start,
        "end": line.span.end,
        "text": described(line),
    }


def line_of(row: Any) -> Line:
    """The line of a row."""
    segment, span = Span(row.segment_start, row.segment_end), Span(row.start, row.end)
    price = None if row.unit_price is None else parts(row.unit_price)
    return Line(
        *(row.kind, row.plan_version, segment, row.meter, row.value, row.tier),
        *(row.quantity, price, row.amount, span),
    )


def decimal(price: int) -> str:
    """A unit price in cents, as people and Stripe write it: `0.001`."""
    whole, rest = divmod(price, PRICE_SCALE)
    return f"{whole}.{rest:0{PRICE_PLACES}}".rstrip("0").rstrip(".")


def parts(price: str) -> int:
    """A unit price in 10⁻¹² cents."""
    whole, _, places = price.partition(".")
    return int(whole) * PRICE_SCALE + int(places.ljust(PRICE_PLACES, "0") or 0)


def described(line: Line) -> str:
    """A line in words."""
    span = f"{periods.name_of(line.span)} to {periods.name_of(Span(line.span.end, line.span.end))}"
    plan = line.version.partition("+")[0]
    if line.kind == "fee":
        return f"{plan}, {span}"
    if line.kind == "proration":
        return f"{'Remaining time' if line.quantity > 0 else 'Unused time'} of {plan}, {span}"
    what = f"{line.meter} {line.value}".strip()
    late = ", reported late" if line.kind == "late" else ""
    if not line.unit_price:
        return f"{what}: {line.quantity:,} included, {span}{late}"
    return f"{what}: {line.quantity:,} at {decimal(line.unit_price)} cents, {span}{late}"


def line_told(line: Line) -> LineTold:
    """Tell a line as the API does."""
    return {
        "kind": line.kind,
        "plan": line.version,
        "meter": line.meter or None,
        "value": line.value or None,
        "tier": line.tier,
        "quantity": line.quantity,
        "unit_price": None if line.unit_price is None else decimal(line.unit_price),
        "amount": line.amount,
        "start": moment(line.span.start * 1000),
        "end": moment(line.span.end * 1000),
        "text": described(line),
    }


def told(row: Any, lines: Iterable[Line] | None = None) -> InvoiceTold:
    """Tell an invoice as the API does: a row of `selected`."""
    said: InvoiceTold = {
        "id": row.id,
        "customer": row.name,
        "period": row.period,
        "kind": row.kind,
        "state": row.state,
        "subtotal": row.subtotal,
        "total": row.total,
        "currency": row.currency,
        "period_start": moment(row.period_start * 1000),
        "period_end": moment(row.period_end * 1000),
        "closes_at": moment(row.closes_at * 1000),
        "held_why": row.held_why,
        "accepted_why": row.accepted_why,
        "stripe_id": row.stripe_id,
        "url": row.url,
        "created_at": moment(row.created_at),
    }
    if lines is not None:
        said["lines"] = [line_told(line) for line in lines]
    return said


def selected() -> sa.Select[Any]:
    """Invoices, each with the name of its customer."""
    joined = invoices.join(customers, customers.c.id == invoices.c.customer)
    return sa.select(invoices, customers.c.name).select_from(joined)


async def find(connection: AsyncConnection, number: str, *, lock: bool = False) -> Any:
    """Return the row of an invoice with the name of its customer; raises Refused where there is none."""
    statement = selected().where(invoices.c.id == number)
    if lock:
        statement = statement.with_for_update(of=invoices)
    row = (await connection.execute(statement)).one_or_none() if is_id(number) else None
    if row is None:
        raise Refused(404, NOT_THERE)
    return row


async def owner_of(connection: AsyncConnection, number: str) -> str | None:
    """Return whose an invoice is, by name; None where there is none."""
    if not is_id(number):
        return None
    row = (await connection.execute(selected().where(invoices.c.id == number))).one_or_none()
    return None if row is None else str(row.name)


async def listing(connection: AsyncConnection, before: str | None, limit: int, **only: str | None) -> list[InvoiceTold]:
    """Tell at most `limit` invoices before an id, newest first; `only` those with these columns."""
    statement = selected().order_by(invoices.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(invoices.c.id < before)
    wanted = [invoices.c[name] == value for name, value in only.items() if value is not None]
    return [told(row) for row in await connection.execute(statement.where(*wanted))]


async def lines(connection: AsyncConnection, number: str) -> list[Line]:
    """The lines of an invoice."""
    rows = sa.select(invoice_lines).where(invoice_lines.c.invoice == number).order_by(invoice_lines.c.position)
    return [line_of(row) for row in await connection.execute(rows)]


async def lines_of_subscription(connection: AsyncConnection, subscription: str) -> list[Line]:
    """All lines that a subscription was invoiced. A void invoice's count too: what was taken back is not asked for
    anew."""
    joined = invoice_lines.join(invoices, invoices.c.id == invoice_lines.c.invoice)
    wanted = sa.select(invoice_lines).select_from(joined).where(invoices.c.subscription == subscription)
    ordered = wanted.order_by(invoice_lines.c.invoice, invoice_lines.c.position)
    return [line_of(row) for row in await connection.execute(ordered)]


async def apply(connection: AsyncConnection, object: Mapping[str, Any]) -> None:
    """Take over what Stripe says of an invoice, as it was fetched now. What is not ours is passed by."""
    number = (object.get("metadata") or {}).get("edgeproxy_invoice")
    known = invoices.c.stripe_id == object["id"]
    if isinstance(number, str):
        known |= invoices.c.id == number
    row = (await connection.execute(sa.select(invoices).where(known).with_for_update())).first()
    if row is None:
        return
    values: dict[str, Any] = {
        "stripe_id": object["id"],
        "pdf": object.get("invoice_pdf"),
        "url": object.get("hosted_invoice_url"),
    }
    state = AT_STRIPE.get(str(object.get("status")))
    # Else it would not be taken back any more; and what is settled is never open again, whoever looked before it was.
    is_older = state == OPEN and row.state in (VOIDING, PAID, VOID, UNCOLLECTIBLE)
    if state is not None and not is_older:
        values |= {"state": state, "total": object["total"], "error": None}
    await update(connection, row.id, **values)


def can_cost(plan: Plan) -> bool:
    """Whether a plan can ever cost anything."""
    return bool(plan.fee) or any(price.price or price.tiers for price in plan.meters.values())
