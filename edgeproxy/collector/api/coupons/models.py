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
    """A coupon that a subscription gets."""

    coupon: CouponCode
    """The code of the coupon, in capital or small letters."""


class CouponResponse(TypedDict):
    """The coupon of a subscription, as it was when it was redeemed."""

    coupon: str
    """The code of the coupon."""
    percent_off: str | None
    """The percentage that it takes off a period, as a decimal number; null where it takes off an amount."""
    amount_off: int | None
    """The amount that it takes off a period at most, in smallest units such as cents; null where it is a
    percentage."""
    plans: list[str]
    """The names of the plans whose lines count; empty for all."""
    starts_at: str | None
    """The beginning of the first period that it is of."""
    ends_at: str | None
    """The end of the last period that it is of; null where it goes on."""


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
