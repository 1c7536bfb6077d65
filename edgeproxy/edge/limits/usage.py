"""The use of a limit by a subject, for readers only: the supervisor's /limits.

A reader needs no column, claims no row and changes nothing. It sees the counts of a worker that decides now and has a
row for the subject. Counts that a worker makes alone while a table is full are invisible to others.
"""

from zoneinfo import ZoneInfo

from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.quota import find_current_period, quota_key
from edgeproxy.edge.limits.row_usage import Usage
from edgeproxy.edge.limits.rule import Rule


def compute_usage(table: LimitTable, rule: Rule, subject: bytes, now: float) -> Usage:
    """Return the use of `rule` by `subject` at edge time `now`."""
    row = table.peek(table.make_key(rule.key(subject)))
    return rule.kind.usage(table, row, rule, now)


def compute_quota_usage(
    table: LimitTable, name: str, included: int, per: str, zone: ZoneInfo, subject: bytes, now: float
) -> Usage:
    """Return the use of a quota by `subject` in the present `day` or `month` of a time zone.

    The period ends after `reset`. `name` is the name of its count.
    """
    row = table.peek(table.make_key(quota_key(name, zone, subject)))
    counts = [] if row is None else table.heads(row).periods(elsewhere=True)
    number, _, until = find_current_period(now, per, zone, [period for period, _ in counts])
    used = sum(count for period, count in counts if period == number)
    return Usage(used, max(0, included - used), max(1, int(until - now) + 1))
