"""Automatic top-up: whether a purchase begins, and the effect of a declined payment. Pure.

Amounts are millicredits, times Unix milliseconds. Months are calendar months of UTC, as in statements.
"""

from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, get_args

from edgeproxy.collector.billing.credits.statements import CalendarMonth

TopUpState = Literal["on", "off", "declined"]
ON, OFF, DECLINED = STATES = get_args(TopUpState)
"""On; turned off by a person; turned off because its payments were declined."""
RETRY_SECONDS: Final = (3600, 86400)
"""Seconds from a declined payment to the next one. There is none after the last, until a person turns it on again."""


class TopUp(NamedTuple):
    """A row of `credit_top_ups`."""

    customer: str
    state: TopUpState
    below: int
    amount: int
    month_max: int
    month: int
    spent: int
    declines: int
    due_at: int | None
    purchase: str | None
    purchase_amount: int
    begun_at: int
    decline_reason: str | None = None


class Decision(NamedTuple):
    """The decision for a balance: a purchase or none, the reason, and the next look at the balance."""

    buys: bool
    reason: Literal["off", "pending", "waiting", "not_sold", "enough", "month_spent", "below"]
    due_at: int | None = None
    """None: when usage is counted."""


def get_month(now: int) -> CalendarMonth:
    """Return the month of a time."""
    at = datetime.fromtimestamp(now / 1000, UTC)
    return CalendarMonth(at.year, at.month)


def get_spent(top_up: TopUp, now: int) -> int:
    """Return the credits that were bought automatically in the current month, with the pending purchase.

    A clock that was set back begins no new month.
    """
    # The row keeps its month until the next purchase, so an old one means that nothing was bought in this one.
    return top_up.spent if get_month(now).begin <= top_up.month else 0


def decide_purchase(top_up: TopUp, available: int, now: int, bounds: tuple[int, int] | None) -> Decision:
    """Decide whether a purchase begins. `bounds` limit one purchase; None: the customer cannot buy now."""
    if top_up.state != ON:
        return Decision(False, "off")
    if top_up.purchase is not None:
        return Decision(False, "pending", top_up.due_at)
    if top_up.declines and top_up.due_at is not None and top_up.due_at > now:
        return Decision(False, "waiting", top_up.due_at)
    if bounds is None or not bounds[0] <= top_up.amount <= bounds[1]:
        return Decision(False, "not_sold")
    if available >= top_up.below:
        return Decision(False, "enough")
    # Not a smaller purchase: the customer chose the amount.
    if get_spent(top_up, now) + top_up.amount > top_up.month_max:
        return Decision(False, "month_spent", get_month(now).end)
    return Decision(True, "below")


def begin_purchase(top_up: TopUp, purchase: str, now: int) -> TopUp:
    """Return the row with a pending purchase of this id. Its amount counts towards the limit of the month at once."""
    return top_up._replace(
        month=max(top_up.month, get_month(now).begin),
        spent=get_spent(top_up, now) + top_up.amount,
        due_at=now,
        purchase=purchase,
        purchase_amount=top_up.amount,
        begun_at=now,
    )


def end_paid(top_up: TopUp, now: int) -> TopUp:
    """Return the row after its pending purchase was paid. The balance is looked at again at once."""
    return top_up._replace(declines=0, due_at=now, purchase=None)


def add_paid(top_up: TopUp, amount: int, now: int) -> TopUp:
    """Return the row after a payment of this amount that was no longer pending, so that it no longer counted."""
    return top_up._replace(month=max(top_up.month, get_month(now).begin), spent=get_spent(top_up, now) + amount)


def end_dropped(top_up: TopUp, now: int) -> TopUp:
    """Return the row after its pending purchase was given up without a payment."""
    # Never below 0: `add_paid` may have begun a new month since the purchase, without its amount.
    return top_up._replace(spent=max(0, top_up.spent - top_up.purchase_amount), due_at=now, purchase=None)


def end_declined(top_up: TopUp, reason: str, now: int) -> TopUp:
    """Return the row after the payment of its pending purchase was declined for this DeclineReason."""
    declines = top_up.declines + 1
    is_last = declines > len(RETRY_SECONDS)
    return end_dropped(top_up, now)._replace(
        state=DECLINED if is_last and top_up.state == ON else top_up.state,
        declines=declines,
        decline_reason=reason,
        due_at=None if is_last else now + RETRY_SECONDS[declines - 1] * 1000,
    )
