"""Coupons of subscriptions."""

import time

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import reject_field
from edgeproxy.collector.api.changes import ChangeResult
from edgeproxy.collector.api.coupons.models import PutCouponRequest, to_response
from edgeproxy.collector.api.customer_billing import CustomerBillingHandlers, CustomerChangeQuery, CustomerQuery
from edgeproxy.collector.api.endpoint import Call, Nothing
from edgeproxy.collector.api.responses import answer
from edgeproxy.collector.billing.subscriptions import coupons
from edgeproxy.collector.billing.subscriptions.coupons import CouponRejectedError


class CouponHandlers(CustomerBillingHandlers):
    """Handlers of coupons."""

    async def fetch_coupon(self, call: Call[CustomerQuery, Nothing]) -> web.Response:
        """Fetch the coupon of a subscription."""
        customer = self._get_customer(call.holder, call.query)
        async with self._database.reading(whole=True) as connection:
            return answer(200, to_response(await coupons.get_coupon(connection, customer)))

    async def put_coupon(self, call: Call[CustomerChangeQuery, PutCouponRequest]) -> web.Response:
        """Give a subscription a coupon."""
        customer = self._get_customer(call.holder, call.query)

        async def make(connection: AsyncConnection) -> ChangeResult:
            try:
                discount = await coupons.add_coupon(
                    connection, call.caller, customer, call.body.coupon, self._settings, time.time()
                )
            except CouponRejectedError as error:
                raise reject_field("coupon", str(error)) from None
            return ChangeResult(200, to_response(discount))

        return await self._change(call, make)

    async def delete_coupon(self, call: Call[CustomerChangeQuery, Nothing]) -> web.Response:
        """End the coupon of a subscription with the current period."""
        customer = self._get_customer(call.holder, call.query)

        async def make(connection: AsyncConnection) -> ChangeResult:
            return ChangeResult(200, to_response(await coupons.remove_coupon(connection, call.caller, customer)))

        return await self._change(call, make)
