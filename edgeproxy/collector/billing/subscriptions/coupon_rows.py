"""Redemptions of coupons as rows."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.rating.discounts import Discount
from edgeproxy.collector.database.billing_tables import coupon_redemptions

columns = coupon_redemptions.c


async def fetch_discounts(connection: AsyncConnection, subscription: str) -> list[Discount]:
    """Return the discounts of a subscription's coupons, in order of time."""
    statement = sa.select(coupon_redemptions).where(columns.subscription == subscription).order_by(columns.starts)
    return [
        Discount(
            row.code, row.share, row.amount_off, frozenset(filter(None, row.plans.split(","))), row.starts, row.until
        )
        for row in await connection.execute(statement)
    ]
