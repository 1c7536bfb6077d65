"""Coupons of subscriptions."""

import time
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import reject_field
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.customer_billing import CustomerBillingHandlers, CustomerChangeQuery, CustomerQuery
from edgeproxy.collector.api.endpoint import BILLING, MONEY_READERS, OWN, UPDATE, Call, Nothing, delete, get, put
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.billing.invoices.line_rows import format_unit_price
from edgeproxy.collector.billing.rating.discounts import Discount
from edgeproxy.collector.billing.subscriptions import coupons
from edgeproxy.collector.billing.subscriptions.coupons import CouponRejectedError
from edgeproxy.config.collector.coupons import A_CODE, CODE
from edgeproxy.config.units import format_value, read_text, value_error

CODE_SCHEMA = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{2,39}$", "examples": ["LAUNCH20"]}


def read_code(value: object) -> str:
    """Read the code of a coupon, in upper or lower case."""
    text = read_text(value, A_CODE)
    if not text.isascii() or not CODE.fullmatch(text.upper()):
        raise value_error(f"{format_value(text)} is not a code", A_CODE)
    return text.upper()


CouponCode = Annotated[str, BeforeValidator(read_code), WithJsonSchema(CODE_SCHEMA)]


class PutCouponRequest(Body):
    """A coupon for a subscription."""

    coupon: CouponCode
    """The code of the coupon, in upper or lower case."""


class CouponResponse(TypedDict):
    """The coupon of a subscription, with the terms at its redemption."""

    coupon: str
    """The code of the coupon."""
    percent_off: str | None
    """The percentage off each period, as a decimal number; null if the coupon takes off an amount."""
    amount_off: int | None
    """The largest amount off each period, in the smallest unit (for example cents); null if the coupon takes off a
    percentage.
    """
    plans: list[str]
    """The names of the plans whose lines are discounted; empty for all."""
    starts_at: str | None
    """The start of the first discounted period."""
    ends_at: str | None
    """The end of the last discounted period; null if the discount has no end."""


def to_response(discount: Discount) -> CouponResponse:
    """Return a coupon as the API shows it."""
    return {
        "coupon": discount.code,
        "percent_off": None if discount.share is None else format_unit_price(100 * discount.share),
        "amount_off": discount.amount_off,
        "plans": sorted(discount.plans),
        "starts_at": format_timestamp(discount.starts * 1000),
        "ends_at": None if discount.until is None else format_timestamp(discount.until * 1000),
    }


class CouponHandlers(CustomerBillingHandlers):
    """Handlers of coupons."""

    @get("/billing/subscription/coupon", roles=MONEY_READERS | OWN)
    async def fetch_coupon(self, call: Call[CustomerQuery, Nothing]) -> CouponResponse:
        """Fetch the coupon of a customer's subscription."""
        customer = self._get_customer(call)
        async with self._database.reading(whole=True) as connection:
            return to_response(await coupons.get_coupon(connection, customer))

    @put("/billing/subscription/coupon", roles=BILLING, example={"coupon": "LAUNCH20"}, change=UPDATE)
    async def put_coupon(
        self, call: Call[CustomerChangeQuery, PutCouponRequest], connection: AsyncConnection
    ) -> CouponResponse:
        """Give a subscription a coupon, starting with the current period."""
        customer = self._get_customer(call)
        try:
            discount = await coupons.add_coupon(
                connection, call.caller, customer, call.body.coupon, self._settings, time.time()
            )
        except CouponRejectedError as error:
            raise reject_field("coupon", str(error)) from None
        return to_response(discount)

    @delete("/billing/subscription/coupon", roles=BILLING, change=UPDATE)
    async def delete_coupon(
        self, call: Call[CustomerChangeQuery, Nothing], connection: AsyncConnection
    ) -> CouponResponse:
        """End the coupon of a subscription with the current period."""
        customer = self._get_customer(call)
        return to_response(await coupons.remove_coupon(connection, call.caller, customer))


GROUP = Group(
    "coupons",
    "Coupons of subscriptions.",
    CouponHandlers,
    rate=RequestRate(100, "customer"),
    errors={404: "Billing is not configured, or the customer, its subscription or a coupon of it does not exist."},
)
