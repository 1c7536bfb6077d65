"""Coupons of subscriptions."""

import time

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import reject_field
from edgeproxy.collector.api.coupons.models import CouponResponse, PutCouponRequest, to_response
from edgeproxy.collector.api.customer_billing import CustomerBillingHandlers, CustomerChangeQuery, CustomerQuery
from edgeproxy.collector.api.endpoint import BILLING, MONEY_READERS, OWN, UPDATE, Call, Nothing, delete, get, put
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import Result
from edgeproxy.collector.billing.subscriptions import coupons
from edgeproxy.collector.billing.subscriptions.coupons import CouponRejectedError


class CouponHandlers(CustomerBillingHandlers):
    """Handlers of coupons."""

    @get("/billing/subscription/coupon", roles=MONEY_READERS | OWN)
    async def fetch_coupon(self, call: Call[CustomerQuery, Nothing]) -> CouponResponse:
        """Fetch the coupon of a customer's subscription."""
        customer = self._get_customer(call.holder, call.query)
        async with self._database.reading(whole=True) as connection:
            return to_response(await coupons.get_coupon(connection, customer))

    @put("/billing/subscription/coupon", roles=BILLING, example={"coupon": "LAUNCH20"}, change=UPDATE)
    async def put_coupon(self, call: Call[CustomerChangeQuery, PutCouponRequest]) -> Result[CouponResponse]:
        """Give a subscription a coupon, starting with the current period."""
        customer = self._get_customer(call.holder, call.query)

        async def make(connection: AsyncConnection) -> Result[CouponResponse]:
            try:
                discount = await coupons.add_coupon(
                    connection, call.caller, customer, call.body.coupon, self._settings, time.time()
                )
            except CouponRejectedError as error:
                raise reject_field("coupon", str(error)) from None
            return Result(to_response(discount))

        return await self._change(call, make)

    @delete("/billing/subscription/coupon", roles=BILLING, change=UPDATE)
    async def delete_coupon(self, call: Call[CustomerChangeQuery, Nothing]) -> Result[CouponResponse]:
        """End the coupon of a subscription with the current period."""
        customer = self._get_customer(call.holder, call.query)

        async def make(connection: AsyncConnection) -> Result[CouponResponse]:
            return Result(to_response(await coupons.remove_coupon(connection, call.caller, customer)))

        return await self._change(call, make)


GROUP = Group(
    "coupons",
    "Coupons of subscriptions.",
    CouponHandlers,
    rate=RequestRate(100, "customer"),
    errors={404: "Billing is not configured, or the customer, its subscription or a coupon of it does not exist."},
)
