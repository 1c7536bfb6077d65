"""The report of an import, as JSON and as text. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from edgeproxy.base.plural import format_count
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.rating.money import format_amount
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.billing.stripe_import.customer_mapping import CustomerMatch
from edgeproxy.collector.billing.stripe_import.import_plan import ImportPlan, ImportStep, SubscriptionPlan
from edgeproxy.collector.billing.stripe_import.plan_mapping import compute_renewal
from edgeproxy.config.collector.currency_units import DECIMALS

Report = Mapping[str, Sequence[Mapping[str, object]]]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "customers": ("stripe", "email", "customer", "by", "state", "why"),
    "subscriptions": ("stripe", "customer", "plan", "by", "interval", "renews_at", "renewal", "fee", "step", "why"),
    "balances": ("stripe", "customer", "amount"),
    "open_invoices": ("stripe", "stripe_customer", "customer", "amount"),
    "pending_items": ("stripe", "stripe_customer", "customer", "amount"),
    "unused_prices": ("stripe", "product", "amount", "interval"),
}
"""The sections of the report, and the columns of their tables."""


def build_report(plan: ImportPlan) -> Report:
    """Return the report of a plan or of its result."""
    names = {match.stripe_id: None if match.customer is None else match.customer.name for match in plan.customers}
    account = plan.account
    used = {item["price"]["id"] for subscription in account.subscriptions for item in subscription["items"]["data"]}
    return {
        "customers": [_report_customer(match) for match in plan.customers],
        "subscriptions": [_report_subscription(subscription) for subscription in plan.subscriptions],
        "balances": [
            {
                "stripe": match.stripe_id,
                "customer": names[match.stripe_id],
                "amount": _format_money(-match.stripe_customer["balance"], match.stripe_customer.get("currency")),
            }
            for match in plan.customers
            if match.stripe_customer.get("balance")
        ],
        "open_invoices": [
            _report_due(open_invoice, names, open_invoice["amount_remaining"]) for open_invoice in account.open_invoices
        ],
        "pending_items": [
            _report_due(pending_item, names, pending_item["amount"]) for pending_item in account.pending_items
        ],
        "unused_prices": [
            {
                "stripe": price["id"],
                "product": price["product"]["name"] if isinstance(price["product"], dict) else price["product"],
                "amount": _format_money(price["unit_amount"], price["currency"]),
                "interval": price["recurring"]["interval"],
            }
            for price in account.prices.values()
            if price["active"] and price["id"] not in used
        ],
    }


def format_report(report: Report, *, is_dry: bool) -> str:
    """Return a report as text: a table for each section that is not empty, and the totals."""
    blocks = [
        "\n".join([f"{section.replace('_', ' ')}:", *_format_table(COLUMNS[section], rows)])
        for section, rows in report.items()
        if rows
    ]
    unmapped = sum(row["state"] != "mapped" for row in report["customers"])
    steps = [row["step"] for row in report["subscriptions"]]
    left = steps.count(ImportStep.LEAVE.value)
    total = (
        f"{format_count(len(report['customers']) - unmapped, 'customer')} mapped, {unmapped} not; "
        f"{format_count(len(steps) - left, 'subscription')} taken over, {left} left at Stripe"
    )
    return "\n\n".join([*blocks, total + ("\nnothing was changed: it was a dry run" if is_dry else "")])


def _report_customer(match: CustomerMatch) -> dict[str, object]:
    unmapped = "conflict" if match.is_conflict else "unmapped"
    return {
        "stripe": match.stripe_id,
        "email": match.stripe_customer.get("email"),
        "customer": None if match.customer is None else match.customer.name,
        "by": match.by,
        "state": unmapped if match.customer is None else "mapped",
        "why": match.why,
    }


def _report_subscription(one: SubscriptionPlan) -> dict[str, object]:
    theirs, row, match = one.stripe_subscription, one.row, one.match
    ends = max(item["current_period_end"] for item in theirs["items"]["data"])
    recurring = theirs["items"]["data"][0]["price"]["recurring"]
    currency = theirs["currency"]
    return {
        "stripe": theirs["id"],
        "stripe_customer": theirs["customer"],
        "customer": None if match is None or match.customer is None else match.customer.name,
        "status": theirs["status"],
        "plan": None if row is None else row.plan_version,
        "by": one.by,
        "interval": recurring["interval"],
        "renews_at": format_timestamp(ends * 1000),
        "renewal": _format_money(compute_renewal(theirs), currency),
        "fee": _format_money(one.fee, currency),
        "step": one.step.value,
        "why": one.why,
    }


def _report_due(one: StripeObject, names: Mapping[str, str | None], amount: int) -> dict[str, object]:
    """Return an amount that a customer must still pay at Stripe."""
    return {
        "stripe": one["id"],
        "stripe_customer": one["customer"],
        "customer": names.get(one["customer"]),
        "amount": _format_money(amount, one["currency"]),
    }


def _format_money(amount: int | None, currency: str | None) -> str | None:
    """Format an amount. A currency without sales here is shown as Stripe has it."""
    if amount is None:
        return None
    return format_amount(amount, currency) if currency in DECIMALS else f"{amount} {currency or 'usd'}"


def _format_table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Return rows under the names of the columns. Text written by Stripe's customers cannot move the cursor."""
    cells = [[column.upper() for column in columns]]
    cells += [[_format_cell(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _format_cell(value: object) -> str:
    return (
        "-"
        if value in (None, "")
        else "".join(character if character.isprintable() else "?" for character in str(value))
    )
