"""Checks that an operator runs, and baselines of customers."""

from typing import Literal

from typing_extensions import TypedDict


class CheckResult(TypedDict):
    """The result of the checks."""

    usage: Literal["run", "standby", "off"]
    """`run`: each hour and day that is over was judged; `standby`: another run is under way; `off`: no judgements are
    configured."""
    spending: Literal["run", "off"]
    """`run`: the spending of this hour was compared with the usual; `off`: the breaker is off, or nothing is sold."""
    alerted: list[str]
    """The customers who have an alert by what they spend, by name; those with one of today are left out."""


class MeterBaseline(TypedDict):
    """The usual usage of a meter: medians of up to eight weeks."""

    meter: str
    """The meter."""
    hours: list[float]
    """The usual units of each hour of the week, 168 of them; the first begins on Thursday at 00:00 UTC."""
    days: list[float]
    """The usual units of each day of the week, from Thursday on."""
    likeness: float
    """The usual likeness of a day's hours to these: a cosine, 1 where they are the same."""


class BaselineList(TypedDict):
    """The baselines of a customer, by which its usage is judged."""

    customer: str
    """The customer, by name."""
    built_at: str | None
    """The time at which the oldest was computed; null without any."""
    baselines: list[MeterBaseline]
    """The baselines by meter. A meter has one once there are three weeks of usage."""
