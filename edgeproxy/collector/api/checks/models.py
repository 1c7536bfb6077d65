"""Checks that an operator runs, and baselines of customers."""

from typing import Literal

from typing_extensions import TypedDict


class CheckResult(TypedDict):
    """The result of the checks."""

    usage: Literal["run", "standby", "off"]
    """`run`: each completed hour and day was judged; `standby`: another run is under way; `off`: no judgements are
    configured.
    """
    spending: Literal["run", "off"]
    """`run`: the spending of this hour was compared with the usual; `off`: the breaker is off, or nothing is on sale.
    """
    alerted: list[str]
    """The customers with a new alert about their spending, by name. Customers who had such an alert today are left out.
    """


class MeterBaseline(TypedDict):
    """The usual usage of a meter: medians of up to eight weeks."""

    meter: str
    """The meter."""
    hours: list[float]
    """The usual units of each hour of the week, 168 numbers. The first hour starts on Thursday at 00:00 UTC."""
    days: list[float]
    """The usual units of each day of the week, starting with Thursday."""
    likeness: float
    """How similar a day's hours usually are to these: a cosine; 1 means identical."""


class BaselineList(TypedDict):
    """The baselines of a customer. Its usage is compared with them."""

    customer: str
    """The customer, by name."""
    built_at: str | None
    """The time when the oldest baseline was computed; null without any."""
    baselines: list[MeterBaseline]
    """The baselines by meter. A meter gets one after three weeks of usage."""
