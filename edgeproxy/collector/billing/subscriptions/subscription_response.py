"""A subscription in the form of the API."""

from typing import Literal

from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.subscriptions.changes import PlanChange
from edgeproxy.collector.billing.subscriptions.subscription_rows import SubscriptionRow

CHANGING = "changing"
"""The API's state while Stripe still charges usage at the prices of the earlier plan."""


class Subscription(TypedDict):
    """A subscription."""

    id: str
    """The id of the subscription."""
    customer: str
    """The customer, by name."""
    plan: str
    """The version of the plan, for example `standard@3`."""
    interval: Literal["month", "year"]
    """`month` or `year`: the billing interval. The fee is paid in advance."""
    quantity: int
    """The quantity of the plan. The fee is charged for each."""
    currency: str
    """The currency of its prices (ISO 4217), for example `usd`."""
    state: str
    """The state of the subscription: `trialing`, `active` or `canceled`; `changing` until Stripe has a change too."""
    period_start: str | None
    """The beginning of the period."""
    period_end: str | None
    """The end of the period."""
    next_plan: str | None
    """The version of the plan after this period; null if it stays."""
    next_interval: Literal["month", "year"] | None
    """The interval after the paid time; null if it stays."""
    next_quantity: int | None
    """The quantity after the paid time; null if it stays."""
    cancel_at: str | None
    """The time when the subscription ends; null if it goes on."""
    trial_ends_at: str | None
    """The time when the trial ends, or ended; null if there was none."""
    created_at: str | None
    """The time when the subscription was created."""


class RunningSubscription(Subscription):
    """A subscription, and its part of the recurring revenue."""

    mrr: int
    """Its monthly fees now (MRR), as the business report counts them: ten-thousandths of the smallest unit of the
    currency, millicredits for US dollars. A yearly fee counts a twelfth, a trial nothing.
    """


class WithdrawnChange(TypedDict):
    """A change that was planned for the end of the paid time, and is cancelled."""

    plan: str
    """The version of the plan after that change, for example `standard@3`."""
    interval: Literal["month", "year"] | None
    """The interval after that change; null if it was to stay."""
    quantity: int | None
    """The quantity after that change; null if it was to stay."""


class ChangedSubscription(Subscription):
    """A subscription after a change."""

    withdrawn: WithdrawnChange | None
    """The pending change that this one cancels; null if none was pending."""


def find_withdrawn(row: SubscriptionRow, change: PlanChange | None) -> WithdrawnChange | None:
    """Return the change that waits for a subscription and that a change, or None for its end, withdraws."""
    waits = (row.next_version, row.next_is_yearly, row.next_quantity)
    is_same = change is not None and waits == (change.next_version, change.next_is_yearly, change.next_quantity)
    if row.next_version is None or is_same:
        return None
    return {"plan": row.next_version, "interval": _name_interval(row.next_is_yearly), "quantity": row.next_quantity}


def to_response(row: SubscriptionRow, customer: str, currency: str) -> Subscription:
    """Return a subscription in the form of the API."""
    return {
        "id": row.id,
        "customer": customer,
        "plan": row.plan_version,
        "interval": "year" if row.is_yearly else "month",
        "quantity": row.quantity,
        "currency": currency,
        "state": CHANGING if row.stripe_version not in (None, row.plan_version) else row.state,
        "period_start": format_timestamp(row.period_start * 1000),
        "period_end": format_timestamp(row.period_end * 1000),
        "next_plan": row.next_version,
        "next_interval": _name_interval(row.next_is_yearly),
        "next_quantity": row.next_quantity,
        "cancel_at": None if row.cancel_at is None else format_timestamp(row.cancel_at * 1000),
        "trial_ends_at": None if row.trial_ends_at is None else format_timestamp(row.trial_ends_at * 1000),
        "created_at": format_timestamp(row.created_at),
    }


def _name_interval(is_yearly: int | None) -> Literal["month", "year"] | None:
    return None if is_yearly is None else "year" if is_yearly else "month"
