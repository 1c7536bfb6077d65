"""The policies that apply to subjects: one object per rule and subject, one count per row, for a whole process."""

from collections.abc import Callable
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from edgeproxy.counters.layout import AWAY, HOSTS
from edgeproxy.counters.rows import LimitTable
from edgeproxy.limits.bucket import Hybrid, TokenBucket
from edgeproxy.limits.concurrency import Concurrency
from edgeproxy.limits.counts import Counts
from edgeproxy.limits.gate import Gate
from edgeproxy.limits.levels import LevelCounts
from edgeproxy.limits.local import Locals
from edgeproxy.limits.quota import Quota, QuotaCounts
from edgeproxy.limits.rule import Rule
from edgeproxy.limits.slots import Slots
from edgeproxy.limits.window import SlidingWindow


class Policy(Protocol):
    """One limit as it applies to one subject. `now` is edge time in seconds, a float; costs are counts ≥ 1."""

    @property
    def name(self) -> str:
        """The label of the limit: what a refusal names."""

    @property
    def cost(self) -> int:
        """What a request counts for."""

    @property
    def limit(self) -> int:
        """What may be charged in a window."""

    @property
    def most(self) -> int:
        """What passes at once where nothing is used: a cost above it never does."""

    @property
    def prefix(self) -> bytes:
        """The RateLimit lines up to the number that is left."""

    def left(self, now: float) -> int:
        """How much may still be charged; negative where the limit was lowered below what is used.

        Always call it before `charge`, with no await between the two, and with a `now` read for this decision.
        """

    def charge(self, cost: int = 1) -> None:
        """Count `cost`, whatever is left, in the cell that `left` looked at."""

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Whole seconds until `cost` passes if nothing else comes: never early, late by ≤ a cell + 1 s. 0: now."""

    def reset(self, now: float) -> int:
        """Whole seconds ≥ 1 until the oldest that is counted no longer is: the `t` of the RateLimit field."""

    def tail(self, now: float) -> bytes:
        """What follows the number in the RateLimit lines, `;t=12` and CRLF; made once a second.

        The two field lines are `policy.prefix + b"%d" % left + policy.tail(now)`, where `left` is not negative.
        """


class Sharing(Protocol):
    """What makes a table's limits known to other hosts."""

    def gate(self, table: LimitTable, rule: Rule, subject: bytes, counts: Counts, mode: str) -> Gate:
        """The gate before a row; `mode`: bounded, eventual or strict."""

    def total(self, table: LimitTable, counts: "Slots | QuotaCounts", limit: int) -> "Total":
        """Who makes a quota, or requests at once, known."""


class Total(Protocol):
    """Makes one number of a row known to other hosts."""

    def used(self, now: float) -> None:
        """Something was counted in it, at edge time `now`."""


class Policies:
    """The policies of one table, in which this process has a column.

    There may be several for a table, one after another as configurations come and go: policies of the same row,
    whoever made them, share its counts.
    """

    def __init__(
        self,
        table: LimitTable,
        *,
        hosts: int = 1,
        full: Callable[[], None] | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        """`hosts` share the limits, which `sharing` makes known to them. `full` is called when the table has no row for
        a subject, once a second for each: count it (edge_table_full_total), and log it now and then.

        Such a subject is held in this process's own memory to max(1, limit // (hosts × workers)), until there is a
        row for it.
        """
        self._table = table
        self._locals = Locals(hosts, full)
        self._sharing = None if table.layout.hub is None else sharing

    def look_for_hosts(self) -> None:
        """See how many hosts there are now, as the supervisor has it from the hub."""
        if self._table.layout.hub is not None:
            self._locals.hosts = max(1, self._table.words[HOSTS] & ~AWAY)

    def gate(self, rule: Rule, subject: bytes, mode: str) -> Gate | None:
        """The gate before the row of a policy that was made by `of`; None where no other host shares it."""
        if self._sharing is None:
            return None
        counts = self._table.readers[rule.key(subject)]
        assert isinstance(counts, Counts)
        return self._sharing.gate(self._table, rule, subject, counts, mode)

    def total(self, of: Concurrency | Quota) -> Total | None:
        """Who makes it known to other hosts; None where there is none that shares it."""
        return None if self._sharing is None else self._sharing.total(self._table, of.counts, of.limit)

    def of(self, rule: Rule, subject: bytes, cost: int = 1) -> Policy:
        """The policy of `subject` under `rule`, for requests that count for `cost`.

        Touches the table only at its first decision.
        """
        key = rule.key(subject)
        reader, policy = RATES[rule.algorithm]
        counts = self._table.readers.get(key)
        if not isinstance(counts, Counts):
            counts = self._table.readers[key] = reader(self._table, key, rule.window, self._locals)
        return policy(rule, counts, cost)

    def concurrency(self, rule: Rule, subject: bytes) -> Concurrency:
        """How many requests of `subject` may be under way at once."""
        key = rule.key(subject)
        slots = self._table.readers.get(key)
        if not isinstance(slots, Slots):
            slots = self._table.readers[key] = Slots(self._table, key, self._locals)
        return Concurrency(rule, slots)

    def quota(
        self,
        name: str,
        included: int,
        per: str,
        zone: ZoneInfo,
        subject: bytes,
        *,
        hard: bool,
        when: str,
        cost: int = 1,
    ) -> Quota:
        """What is `included` of `name` for `subject` in each `day` or `month` of a time zone; `when`: of its meter.

        `cost`: what a request is charged at admission, 0 where its meter counts what comes later.
        """
        key = quota_key(name, zone, subject)
        counts = self._table.readers.get(key)
        if not isinstance(counts, QuotaCounts):
            counts = self._table.readers[key] = QuotaCounts(self._table, key, per, zone, self._locals)
        return Quota(name, included, hard=hard, when=when, counts=counts, cost=cost)


RATES: dict[str, tuple[type[Counts], Callable[[Rule, Any, int], Policy]]] = {
    "sliding_window": (Counts, SlidingWindow),
    "token_bucket": (LevelCounts, TokenBucket),
    "hybrid": (LevelCounts, Hybrid),
    "burst_credits": (LevelCounts, TokenBucket),
}
"""By the name of an algorithm: how its rows are read, and what decides on that."""


def quota_key(name: str, zone: ZoneInfo, subject: bytes) -> bytes:
    """The key of a quota's row; its name says the meter and the kind of period."""
    return b"q%b:%b:%b" % (name.encode(), str(zone).encode(), subject)
