"""The ledger's counts of quotas, written into the map beside this host's counts and other hosts' counts.

The ledger knows the usage reported by services, and the shipped usage of all edges including this one. So the counts
made elsewhere are the ledger's counts less this host's. Counts that this host has not shipped yet make the difference
too small for a moment, and the next ledger count corrects that. It is a lower bound of other hosts' counts: if the hub
knows of more, that counts.
"""

import re
from typing import NamedTuple
from zoneinfo import ZoneInfo

from edgeproxy.base.calendar import period_of
from edgeproxy.edge.counters.cells import CELL_US_MIN
from edgeproxy.edge.counters.row_key import HAS_PERIODS
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.quota import quota_key

COUNT_MAX = 1 << 62
"""The largest count; more makes no difference."""


PER = re.compile(r"day|month(@[0-9]{1,10})?|ever@[0-9]{1,10}")


class LedgerCount(NamedTuple):
    """The ledger's count of a quota in a period of the calendar: the day or month of this number."""

    customer: str
    meter: str
    per: str
    timezone: str
    period: int
    used: int


def parse_count(fields: object) -> LedgerCount:
    """Return a count from the collector's message. Raises ValueError if it is invalid."""
    try:
        if not isinstance(fields, dict):
            raise TypeError
        count = LedgerCount(**{name: fields[name] for name in LedgerCount._fields})
        texts, numbers = count[:4], count[4:]
        if not all(isinstance(text, str) for text in texts) or not all(
            type(number) is int and number >= 0 for number in numbers
        ):
            raise ValueError
        if not PER.fullmatch(count.per):
            raise ValueError
        ZoneInfo(count.timezone)
        count.customer.encode()
    except (LookupError, TypeError, ValueError, OSError) as error:
        raise ValueError("what the ledger has counted of a quota cannot be read") from error
    return count._replace(used=min(count.used, COUNT_MAX))


def write_count(table: LimitTable, count: LedgerCount, now: float) -> None:
    """Write a count into the table of quotas, which has a column for others. `now` is edge time.

    The quota gets a row if it has none, so that the count applies to the first request here. Raises
    RowUnavailableError.
    """
    assert table.hub is not None
    zone = ZoneInfo(count.timezone)
    present = period_of(now, count.per, zone)
    if count.period == present.number:
        until = present.until
    elif count.period == present.number + 1:  # Counted by a clock that is a little ahead.
        until = period_of(present.until, count.per, zone).until
    else:
        return
    key = table.make_key(quota_key(f"{count.meter}-{count.per}", zone, count.customer.encode()))
    row, _, _ = table.find(key, CELL_US_MIN, now, HAS_PERIODS)
    own = sum(counted for period, counted in table.heads(row).periods(elsewhere=False) if period == count.period)
    table.hub.write_ledger(row, count.period, max(0, count.used - own), until)
    table.notify_readers(row)
