"""Settings of `billing.coupons` in collector.yaml: codes for discounts on invoices."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from edgeproxy.config.collector.money import read_amounts
from edgeproxy.config.field_types import Name
from edgeproxy.config.part import Part
from edgeproxy.config.units import PatternText, Whole, read_moment, read_sample, value_error

CODE = re.compile(r"[A-Z0-9][A-Z0-9_-]{2,39}")
A_CODE = "3 to 40 capital letters, digits, - and _, such as LAUNCH20"
PERIODS_MAX = 120
"""Maximum periods of a coupon: ten years."""
REDEMPTIONS_MAX = 10**9


read_code = PatternText("code", CODE, "{} is not a code", A_CODE, ("LAUNCH20",))
"""Reads the code of a coupon."""


class Coupon(Part):
    """A [coupon](billing.md#coupons), by its code. A subscription keeps the terms from the time of redemption."""

    percent_off: Annotated[float, BeforeValidator(read_sample)] | None = Field(
        default=None, description="Percentage off fees and usage of a period, such as `20%`."
    )
    amount_off: Annotated[dict[str, int], BeforeValidator(read_amounts)] | None = Field(
        default=None,
        description='Amount off each period, at most the whole charge: `"10"`, or `{usd: "10", jpy: "1500"}` for '
        "customers charged in these currencies.",
    )
    duration: Literal["once", "repeating", "forever"] = Field(
        default="once", description="`once` is one period, `repeating` is the number in `periods`."
    )
    periods: Annotated[int, BeforeValidator(Whole(1, PERIODS_MAX))] | None = Field(
        default=None, description="Number of periods for `repeating`."
    )
    max_redemptions: Annotated[int, BeforeValidator(Whole(1, REDEMPTIONS_MAX))] | None = Field(
        default=None, description="Number of customers who can redeem it. By default any number."
    )
    redeem_by: Annotated[float, BeforeValidator(read_moment)] | None = Field(
        default=None, description="Date or time when redemption ends. By default it has no end."
    )
    plans: tuple[Name, ...] = Field(
        default=(),
        description="Plans, by name. Only their subscribers can redeem the coupon, and only their lines are "
        "discounted. By default all.",
    )

    @property
    def periods_off(self) -> int | None:
        """The number of discounted periods. None: there is no end."""
        return {"once": 1, "repeating": self.periods, "forever": None}[self.duration]

    @model_validator(mode="after")
    def _check_consistency(self) -> "Coupon":
        if (self.percent_off is None) == (self.amount_off is None):
            raise value_error("takes off neither a share nor an amount, or both", "write percent_off or amount_off")
        if self.amount_off is not None and not all(self.amount_off.values()):
            raise value_error("takes off nothing", "write an amount above zero")
        if (self.duration == "repeating") != (self.periods is not None):
            raise value_error("has periods without duration: repeating, or that without periods", "write both")
        return self


Coupons = dict[Annotated[str, BeforeValidator(read_code)], Coupon]
