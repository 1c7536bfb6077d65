"""Coupons of subscriptions: the check and the redemption of a code, and its discount."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.discounts import Discount
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.subscriptions import customer_currency, subscription_rows
from edgeproxy.collector.billing.subscriptions.changes import SubscriptionState
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription, Subscriber
from edgeproxy.collector.database.billing_tables import coupon_redemptions
from edgeproxy.collector.database.billing_tables import coupons as coupons_table
from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.problems import billing_codes
from edgeproxy.config.collector.catalog import get_plan_name
from edgeproxy.config.collector.coupons import Coupon
from edgeproxy.config.collector.settings import CollectorSettings

columns = coupon_redemptions.c


class CouponRejectedError(Exception):
    """The code cannot be redeemed.

    The reason is for staff: customers must not learn which codes exist by trying them.
    """


async def prepare_redemption(
    connection: AsyncConnection,
    customer: str,
    current: SubscriptionState,
    before: Sequence[Discount],
    code: str,
    offered: Mapping[str, Coupon],
    now: float,
) -> Discount:
    """Return the discount of a code for a customer's subscription, by customer id. Raises CouponRejectedError.

    `before` are the subscription's discounts. The new one begins with the running period as a whole, with the first
    paid period, or when the previous discount ends.
    """
    coupon = offered.get(code)
    if coupon is None:
        raise CouponRejectedError("there is no such coupon")
    if coupon.redeem_by is not None and now >= coupon.redeem_by:
        raise CouponRejectedError("it can be redeemed no more")
    if coupon.plans and get_plan_name(current.next_version or current.last.version) not in coupon.plans:
        raise CouponRejectedError("it is for other plans")
    if coupon.amount_off is not None and current.last.plan.currency not in coupon.amount_off:
        raise CouponRejectedError(f"it takes off nothing in {current.last.plan.currency}")
    if coupon.max_redemptions is not None:
        redemptions = sa.select(coupons_table.c.redemptions).where(coupons_table.c.code == code)
        async with across_customers(connection):
            count = await connection.scalar(redemptions)
        if (count or 0) >= coupon.max_redemptions:
            raise CouponRejectedError("it was redeemed as often as it can be")
    # Earlier subscriptions count, too: ending one must not renew a coupon.
    used = sa.select(columns.code).where(columns.customer == customer, columns.code == code)
    if (await connection.execute(used)).first() is not None:
        raise CouponRejectedError("the customer has redeemed it before")
    period = current.period
    # A trial costs nothing, and a running discount keeps its period.
    if current.last.is_trial or any(discount.covers(period.start) for discount in before):
        period = periods.period_after(period, current.anchor)
    if any(discount.until is None or discount.until > period.start for discount in before):
        raise CouponRejectedError("there is another coupon, which goes on: remove it first")
    return build_discount(code, coupon, current, period)


def build_discount(code: str, coupon: Coupon, current: SubscriptionState, period: Span) -> Discount:
    """Return the discount of a coupon from this period on."""
    count = coupon.periods_off
    until = None if count is None else periods.find_end_after(period, current.anchor, count)
    # A share has at most ten decimal places.
    share = None if coupon.percent_off is None else round(coupon.percent_off * 10**10) * 100
    amount = None if coupon.amount_off is None else coupon.amount_off[current.last.plan.currency]
    return Discount(code, share, amount, frozenset(coupon.plans), period.start, until)


async def redeem(
    connection: AsyncConnection,
    caller: Caller,
    customer: Subscriber,
    subscription: str,
    current: SubscriptionState,
    before: Sequence[Discount],
    code: str,
    settings: CollectorSettings,
    now: float,
) -> Discount:
    """Redeem a coupon for a subscription, by id. Raises CouponRejectedError.

    A discount by amount is in the currency of the plan, which fixes the customer's currency.
    """
    assert settings.billing is not None
    offered = settings.billing.coupons
    discount = await prepare_redemption(connection, customer.id, current, before, code, offered, now)
    if discount.amount_off is not None:
        currency = current.last.plan.currency
        await customer_currency.fix_currency(connection, caller, customer, currency, before=currency)
    await record_redemption(connection, customer.id, subscription, discount, offered[code])
    return discount


async def record_redemption(
    connection: AsyncConnection, customer: str, subscription: str, discount: Discount, coupon: Coupon
) -> None:
    """Record that a customer, by id, has redeemed a coupon. Raises CouponRejectedError if others were first."""
    counts = coupons_table.c
    async with across_customers(connection):
        # The row exists from the first redemption on, so that the update below has one to lock.
        new = {"code": discount.code, "redemptions": 0}
        await connection.execute(build_insert_new(connection, coupons_table, "code").values(new))
        taken = sa.update(coupons_table).where(counts.code == discount.code).values(redemptions=counts.redemptions + 1)
        if coupon.max_redemptions is not None:
            taken = taken.where(counts.redemptions < coupon.max_redemptions)
        # The condition of the update counts under its lock. The earlier look was without one.
        if (await connection.execute(taken)).rowcount != 1:
            raise CouponRejectedError("it was redeemed as often as it can be")
    row = {"customer": customer, "subscription": subscription, "created_at": now_ms(), **discount._asdict()}
    await connection.execute(sa.insert(coupon_redemptions), [{**row, "plans": ",".join(sorted(discount.plans))}])


async def add_coupon(
    connection: AsyncConnection, caller: Caller, ref: str, code: str, settings: CollectorSettings, now: float
) -> Discount:
    """Redeem a coupon for the subscription of a customer, by id or name.

    Raises ChangeRejectedError and CouponRejectedError.
    """
    loaded = await subscription_rows.get_by_customer(connection, ref, lock=True)
    discount = await redeem(
        connection, caller, loaded.customer, loaded.row.id, loaded.current, loaded.discounts, code, settings, now
    )
    entry = AuditEntry("subscription.coupon", loaded.customer.name, {"coupon": None}, {"coupon": code})
    await audit.append_entry(connection, caller, entry)
    return discount


async def get_coupon(connection: AsyncConnection, ref: str) -> Discount:
    """Return the current or future coupon of a customer's subscription. Raises ChangeRejectedError."""
    return _get_last(await subscription_rows.get_by_customer(connection, ref))


async def remove_coupon(connection: AsyncConnection, caller: Caller, ref: str) -> Discount:
    """End the coupon of a customer's subscription with the running period, or at once in a trial, and return it.

    Raises ChangeRejectedError.
    """
    loaded = await subscription_rows.get_by_customer(connection, ref, lock=True)
    discount, current = _get_last(loaded), loaded.current
    until = discount.starts if current.last.is_trial else max(current.period.end, discount.starts)
    of = (columns.subscription == loaded.row.id, columns.code == discount.code)
    await connection.execute(sa.update(coupon_redemptions).where(*of).values(until=until))
    entry = AuditEntry("subscription.coupon", loaded.customer.name, {"coupon": discount.code}, {"coupon": None})
    await audit.append_entry(connection, caller, entry)
    return discount._replace(until=until)


def _get_last(loaded: LoadedSubscription) -> Discount:
    """Return the last coupon that covers the running period or a later one. Raises ChangeRejectedError."""
    start = loaded.current.period.start
    for discount in reversed(loaded.discounts):
        if discount.until is None or discount.until > max(start, discount.starts):
            return discount
    raise ChangeRejectedError(billing_codes.COUPON_NOT_FOUND, "the subscription has no coupon")
