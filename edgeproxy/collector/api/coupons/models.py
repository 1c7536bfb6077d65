"""Coupons of subscriptions as the API shows them."""

from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.billing.invoices.line_rows import format_unit_price
from edgeproxy.collector.billing.rating.discounts import Discount
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
    """The largest amount off each period, in the smallest unit such as cents; null if the coupon takes off a
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
