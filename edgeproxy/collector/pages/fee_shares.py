"""The part of a plan's fee that an invoice line charges or returns. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.units import DAY_SECONDS

MONTHS, YEARS = range(28, 32), range(365, 367)
"""Possible lengths of a paid month or year, in days."""


class FeeShare(NamedTuple):
    """Some of the days that a fee covers."""

    days: float
    """Rounded to a tenth."""
    of: int
    fee: int
    """Smallest units of the currency."""


def find_fee_share(plans: Mapping[str, Plan], line: JsonDocument, currency: str) -> FeeShare | None:
    """Return the part of the fee in a proration; None if the plan is gone or the amount fits no or several parts."""
    plan = plans.get(line["plan"])
    if plan is None or currency not in plan.currencies:
        return None
    plan = plan.in_currency(currency)
    quantity = abs(line["quantity"])
    seconds = round((parse_time(line["end"]) - parse_time(line["start"])).total_seconds())
    shares = [
        FeeShare(round(seconds / DAY_SECONDS, 1), days, fee)
        for fee, lengths in ((plan.fee * quantity, MONTHS), ((plan.year_fee or 0) * quantity, YEARS))
        for days in lengths
        if 0 < seconds <= days * DAY_SECONDS
        and fee
        and abs(abs(line["amount"]) * days * DAY_SECONDS - fee * seconds) <= days * DAY_SECONDS
    ]
    return shares[0] if len(shares) == 1 else None
