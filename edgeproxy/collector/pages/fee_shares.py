"""The part of a plan's fee that an invoice line charges or returns. Pure."""

from calendar import monthrange
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from edgeproxy.base.calendar import MONTHS as YEAR_MONTHS
from edgeproxy.base.calendar import months_after
from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.units import DAY_SECONDS

MONTHS, YEARS = range(28, 32), range(365, 367)
"""Possible lengths of a paid month or year, in days."""
PLACES_MAX = 3


class FeeShare(NamedTuple):
    """Some of the days that a fee covers, or all of them."""

    days: float
    """Rounded to the fewest places that give the amount, or to PLACES_MAX. A part is neither nothing nor the whole."""
    of: int
    fee: int
    """Smallest units of the currency, for one of a quantity."""


def find_fee_share(plans: Mapping[str, Plan], line: JsonDocument, currency: str) -> FeeShare | None:
    """Return the part of the fee in a proration; None if the plan is gone or the amount fits no or several parts."""
    plan = plans.get(line["plan"])
    if plan is None or currency not in plan.currencies:
        return None
    plan = plan.in_currency(currency)
    quantity = abs(line["quantity"])
    seconds = round((parse_time(line["end"]) - parse_time(line["start"])).total_seconds())
    shares = [
        FeeShare(_round_part(seconds / DAY_SECONDS, days, fee * quantity, abs(line["amount"])), days, fee)
        for fee, lengths in ((plan.fee, MONTHS), (plan.year_fee or 0, YEARS))
        for days in lengths
        if 0 < seconds <= days * DAY_SECONDS
        and fee
        and abs(abs(line["amount"]) * days * DAY_SECONDS - fee * quantity * seconds) <= days * DAY_SECONDS
    ]
    if len(shares) > 1:  # A small amount fits several lengths.
        lengths = _list_paid_days(parse_time(line["end"]))
        shares = [share for share in shares if share.of in lengths]
    return shares[0] if len(shares) == 1 else None


def _list_paid_days(end: datetime) -> Collection[float]:
    """Return the days of a month and of a year that are paid until `end`: a line of a fee ends with its paid time.

    On the last day of a short month they are unknown: the time may have begun on the 31st.
    """
    if end.day == monthrange(end.year, end.month)[1] < MONTHS[-1]:
        return ()
    second = int(end.timestamp())
    return [(second - months_after(second, -months)) // DAY_SECONDS for months in (1, YEAR_MONTHS)]


def _round_part(days: float, of: int, fee: int, amount: int) -> float:
    if days == of:
        return days
    for places in range(1, PLACES_MAX + 1):
        part, least = round(days, places), 0.1**places
        if 0 < part < of and round(fee * part / of) == amount:
            return part
    return min(max(part, least), of - least)
