"""The policies of subjects: one object per rule and subject. The map has the counts of a row.

Some objects know more of their row than the map does: the level of a bucket, headroom in slots, a quota's period, the
counts behind a gate. A process has one of these for a row, and the table refers to it weakly, by the row's key.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol
from zoneinfo import ZoneInfo

from edgeproxy.config.refusal_terms import QuotaKind
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.concurrency import Concurrency, ConcurrencyLimit, OwnConcurrency
from edgeproxy.edge.limits.counts import CellWindow, Counts
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.limits.kinds import KINDS
from edgeproxy.edge.limits.local import Locals
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.quota import Balance, Quota, QuotaCounts, quota_key
from edgeproxy.edge.limits.rate_terms import Mode
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.slots import Gauges, SharedSlots, Slots
from edgeproxy.edge.limits.unit_limit import BudgetReservation, RequestReserve, UnitLimit

WINDOWS_MAX = 1024
"""Windows, and gauges, whose places are shared by all subjects of a table."""


class Sharing(Protocol):
    """Reports a table's limits to other hosts."""

    def gate(self, table: LimitTable, rule: Rule, subject: bytes, counts: Counts, mode: Mode) -> Gate:
        """Return the gate before a row; `mode` is bounded, eventual or strict."""

    def total(self, table: LimitTable, counts: "Slots | QuotaCounts", limit: int) -> "Total":
        """Return the object that reports a quota or concurrency to other hosts."""


class Total(Protocol):
    """Reports one number of a row to other hosts."""

    def used(self, now: float) -> None:
        """Report that something was counted in it at edge time `now`."""


class Policies:
    """The policies of one table that this process has a column in.

    A table may have several, one after another as configurations change. Policies of one row count together,
    whichever object created them.
    """

    def __init__(
        self,
        table: LimitTable,
        *,
        hosts: int = 1,
        full: Callable[[], None] | None = None,
        sharing: Sharing | None = None,
        is_common: bool = False,
    ) -> None:
        """`hosts` share the limits, and `sharing` reports the limits to them.

        `is_common`: many customers count in one row, as in the row of an address. They share one object then, which
        sums a new cell once for all of them.

        `full` is called when the table has no row for a subject, once a second for each subject: count it
        (edge_table_full_total), and log it rarely. Such a subject is limited in this process's own memory to max(1,
        limit // (hosts × workers)) until it gets a row.
        """
        self.table = table
        self._locals = Locals(hosts, full)
        self._sharing = None if table.layout.hub is None else sharing
        self.shares = self._sharing is not None
        """True if its limits are reported to other hosts."""
        self._is_shared = is_common or table.layout.hub is not None
        """True if a process has one object for each row: other hosts count in it, so a gate refers to its counts, or
        many customers do.
        """
        self.has_own_objects = not (self._is_shared or table.reads_runs)
        """True if several objects of a process may count in one row, and none knows of the others."""
        self._windows: dict[bytes, CellWindow] = {}
        """Windows by the stem of the rows' keys."""
        self._gauges: dict[Rule, Gauges] = {}

    def refresh_hosts(self) -> None:
        """Update the number of hosts to the one that the supervisor has from the hub."""
        if self.table.hub is not None:
            self._locals.hosts = self.table.hub.hosts

    def gate(self, rule: Rule, subject: bytes, mode: Mode) -> Gate | None:
        """Return the gate before the row of a policy from `get_policy`; None if no other host shares it."""
        if self._sharing is None:
            return None
        counts = self.table.readers[rule.key(subject)]
        assert isinstance(counts, Counts)
        return self._sharing.gate(self.table, rule, subject, counts, mode)

    def total(self, of: ConcurrencyLimit | Quota | UnitLimit | BudgetReservation) -> Total | None:
        """Return the object that reports it to other hosts; None if no other host shares it."""
        return None if self._sharing is None else self._sharing.total(self.table, of.counts, of.limit)

    def get_policy(self, rule: Rule, subject: bytes, cost: int = 1, *, is_late: bool = False) -> Policy:
        """Return the policy of `subject` under `rule`, a rate, for requests of this `cost`; `is_late`: their answers
        are charged.

        It reads the table only at its first decision.
        """
        rate = KINDS[rule.algorithm].rate
        assert rate is not None
        window = self._get_window(rule)
        if rate.counts is Counts and not self._is_shared:
            return rate.policy(rule, Counts(window, subject), cost, is_late)
        key = rule.key(subject)
        counts = self.table.readers.get(key)
        if not isinstance(counts, rate.counts):
            counts = self.table.readers[key] = rate.counts(window, subject)
        return rate.policy(rule, counts, cost, is_late)

    def prepare_rate(self, rule: Rule, cost: int) -> Callable[[bytes], Policy]:
        """Return a function of a subject that returns its policy, as `get_policy` does: for the rate of many
        customers.
        """
        rate = KINDS[rule.algorithm].rate
        if rate is None or rate.counts is not Counts or self._is_shared:
            return lambda subject: self.get_policy(rule, subject, cost)
        create, window = rate.policy, self._get_window(rule)
        return lambda subject: create(rule, Counts(window, subject), cost, False)

    def prepare_concurrency(self, rule: Rule) -> Callable[[bytes], ConcurrencyLimit]:
        """Return a function of a subject that returns its limit, as `get_concurrency` does."""
        if not self.has_own_objects:
            return lambda subject: self.get_concurrency(rule, subject)
        gauges = self._get_gauges(rule)
        return partial(OwnConcurrency, gauges)

    def _get_window(self, rule: Rule) -> CellWindow:
        return self._windows.get(rule.stem) or self._add_window(rule)

    def _add_window(self, rule: Rule) -> CellWindow:
        if len(self._windows) >= WINDOWS_MAX:
            self._windows.clear()
        window = self._windows[rule.stem] = CellWindow(self.table, rule.window, rule.stem, self._locals)
        return window

    def _get_gauges(self, rule: Rule) -> Gauges:
        gauges = self._gauges.get(rule)
        if gauges is None:
            if len(self._gauges) >= WINDOWS_MAX:
                self._gauges.clear()
            gauges = self._gauges[rule] = Gauges(self.table, rule, self._locals)
        return gauges

    def get_concurrency(self, rule: Rule, subject: bytes) -> ConcurrencyLimit:
        """Return the limit on simultaneous requests of `subject`."""
        if self.has_own_objects:
            return OwnConcurrency(self._get_gauges(rule), subject)
        key = rule.key(subject)
        slots = self.table.readers.get(key)
        if not isinstance(slots, SharedSlots):
            slots = self.table.readers[key] = SharedSlots(self._get_gauges(rule), subject)
        return Concurrency(rule, slots)

    def get_unit_limit(
        self, rule: Rule, under_way: Rule, subject: bytes, reserve: int, by_request: RequestReserve | None = None
    ) -> UnitLimit:
        """Return the limit of `subject` under `rule`.

        Each request reserves some of its units; `under_way` is the rule of the reservations.
        """
        policy = self.get_policy(rule, subject, is_late=True)
        slots = self.get_concurrency(under_way, subject).counts
        return UnitLimit(policy, slots, rule.of, reserve, self.gate(rule, subject, "eventual"), by_request)

    def get_quota(
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
        count_name: str | None = None,
        why: str | None = None,
        is_balance: bool = False,
        holds: bool = True,
        kind: QuotaKind = "quota",
    ) -> Quota:
        """Return the quota of `subject`: the amount `included` of `name` in each `day` or `month` of a time zone.

        `when` is the condition of its meter. `cost` is charged at admission; 0 if its meter counts later. `count_name`
        is the name of its count, by default `name`. `why` is the reason in refusals. `is_balance`: it is a prepaid
        balance. `holds`: it limits the requests that it is charged for.
        """
        key = quota_key(count_name or name, zone, subject)
        counts = self.table.readers.get(key)
        if not isinstance(counts, QuotaCounts):
            counts = self.table.readers[key] = QuotaCounts(self.table, key, per, zone, self._locals)
        made = Balance if is_balance else Quota
        return made(name, included, hard=hard, when=when, counts=counts, cost=cost, why=why, holds=holds, kind=kind)
