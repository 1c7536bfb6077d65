"""Gates before limits that hosts share: they decide whether to ask the hub before a request passes, and when to report
to it.

A host that has not heard from the hub may pass little (edge/sync/plan.py computes how much). Beyond that a request
waits for a claim. The hub grants the claim, and it counts there from then on. Claims are words of columns like all
other counts: a worker writes how many it would like (WANT) and how many it has spent (USED), the supervisor how many
there are (GIVEN).
"""

from collections.abc import Callable

from edgeproxy.edge.counters import claims
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.hub_column import NEVER
from edgeproxy.edge.counters.layout import AWAY, GIVEN, HOSTS, ROW_SYNC, THRESHOLDS, USED, WARM_UNTIL
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.counts import Counts
from edgeproxy.edge.limits.rate_terms import Mode

QUIET_SECONDS = 0.025
"""Seconds between two reports to the supervisor that a row is used."""
WAIT_SECONDS_MAX = {"bounded": 0.25, "eventual": 0.0, "strict": 0.5}
"""Seconds that a request waits for claims at most."""
UNUSED_SECONDS = {"bounded": 1.0, "eventual": 1.0, "strict": 10.0}
"""Unused claims are returned after this many seconds. An eventual limit has some only from before a reload."""
PAGE_REQUESTS = 6
"""Parallel requests of a browser that opens a page, which should not wait."""


def compute_cold_allowance(most: int, hosts: int) -> int:
    """Return how much each of `hosts` may pass of a limit with an unknown count; `most` passes at once in all."""
    return int(max(1, 0.1 * most / max(1, hosts - 1), min(PAGE_REQUESTS, most / 10)))


def is_quiet(until: float, now: float) -> bool:
    """Return whether a row's use was just reported and need not be again until `until`.

    A moment further ahead was recorded before the clock was set back.
    """
    return 0 < until - now <= QUIET_SECONDS


class Gate:
    """The gate before one row of a table with a hub's column. A process has at most one per row."""

    __slots__ = (
        "__weakref__",
        "_counts",
        "_cums",
        "_heads",
        "_hub",
        "_notify",
        "_open_below",
        "_own",
        "_quiet_until",
        "_reported",
        "_seen",
        "_seen_row",
        "_table",
        "_unreported",
        "_warm_until",
        "_width",
        "_words",
        "has_refused",
        "mode",
        "most",
        "waiting",
    )

    def __init__(
        self, table: LimitTable, counts: Counts, most: int, mode: Mode, notify: Callable[["Gate"], None]
    ) -> None:
        """`most` passes at once while nothing is used. `mode` is bounded, eventual or strict.

        `notify` makes the supervisor read the row: there is a report or a question for the hub.
        """
        layout = table.layout
        assert table.hub is not None
        assert layout.hub is not None
        self._table = table
        self._hub = table.hub
        self._counts = counts
        self._words = table.words
        self._width = layout.width
        # From the foreign column on, because counts in older files were made here too.
        self._cums = layout.heads + at.CUM
        self._heads = layout.head(layout.hub)
        self._own = table.head_at
        self._notify = notify
        self._unreported = 0
        self._quiet_until = 0.0
        self._reported = 0
        self._open_below = self._warm_until = self._seen_row = 0
        self.update_terms(most, mode)
        self.has_refused = False
        """True if a request was refused since the last notification of the supervisor; the notifier resets this."""
        self.waiting = 0
        """The sum of the costs that wait for claims in this process."""

    def update_terms(self, most: int, mode: Mode) -> None:
        """Apply the terms of a new configuration."""
        self.most = most
        self.mode = mode
        self._seen = -1  # The row's version at the last call of `_refresh_threshold`; no row has this value.

    @property
    def row(self) -> int:
        """The first word of its row. 0: the table has none, before the first decision or because it is full."""
        return self._counts.row

    @property
    def unspent_claims(self) -> int:
        """Claims that this process was given and has not spent."""
        column = self._table.column
        assert column is not None
        return claims.in_hand(self._table, self._counts.row, column)

    @property
    def news(self) -> tuple[float, ...]:
        """A value that changes when the hub's answer is in the row, when none came, or when the hub is lost or
        reached.
        """
        hub, row = self._hub, self._counts.row
        return self._table.sync_version(row), hub.warm_until(row), hub.hosts, hub.is_away

    def is_open(self, now: float, cost: int) -> bool:
        """Return whether a request of this `cost` may pass at edge time `now` without asking, reporting or claims.

        False proves nothing. Call it after a decision. It is true for most requests, and then neither `must_ask` nor
        `record_charge` has anything to do.
        """
        row, words = self._counts.row, self._words
        if words[row + ROW_SYNC] != self._seen or row != self._seen_row:
            self._refresh_threshold(row)
        counted: int = sum(words[row + self._cums : row + self._heads : self._width].tolist())
        return counted + cost < self._open_below and now * 1000 < self._warm_until

    def _refresh_threshold(self, row: int) -> None:
        """Compute the threshold that the hub's last answer allows.

        Any change that would allow less moves the row's version afterwards.
        """
        words, hub, own = self._words, row + self._heads, row + self._own
        self._seen, self._seen_row = words[row + ROW_SYNC], row
        if IS_WEAK:
            fence()
        self._warm_until = words[hub + WARM_UNTIL]
        if not row or self.mode == "strict" or words[own + GIVEN] != words[own + USED]:
            self._open_below = 0
            return
        thresholds = words[hub + THRESHOLDS]
        worth = thresholds & NEVER
        unreported = worth if self.mode == "eventual" else min(worth, (thresholds >> 32) + 1)
        self._open_below = words[row + at.ROW_ACKNOWLEDGED] + unreported

    def must_ask(self, now: float, cost: int, left: int) -> bool:
        """Return whether a request of this `cost` must wait for claims, with `left` left at edge time `now`.

        Also true if the request must be refused, because the hub cannot be asked and this host may not pass this cost
        by itself. Call it after a decision.
        """
        words, row = self._words, self._counts.row
        if not row:
            return self.is_away and self._hub.on_loss == "deny"
        hub, own = row + self._heads, row + self._own
        counted = sum(words[row + self._cums : hub : self._width].tolist())
        self._unreported = unreported = counted - words[row + at.ROW_ACKNOWLEDGED]
        if words[own + GIVEN] - words[own + USED] >= cost:
            return False
        if self.mode == "strict":
            # Even a single host asks: the next heartbeat may report another one, and it will have passed some requests
            # by then.
            return True
        hosts = words[HOSTS]
        if hosts >= AWAY:
            return self._is_beyond(now, cost, left)
        # No other host counts here, or the limit never waits for them.
        if hosts <= 1 or self.mode == "eventual":
            return False
        if words[hub + WARM_UNTIL] > now * 1000:
            allowed = words[hub + THRESHOLDS] >> 32
        else:
            allowed = compute_cold_allowance(self.most, hosts)
        return unreported + cost > allowed

    def _is_beyond(self, now: float, cost: int, left: int) -> bool:
        """Return whether a request exceeds this host's part while the hub is away and the supervisor has not written
        the part into the row yet.

        With `share` the part is an equal part of the rest at the last report to the hub, or the amount that always
        passes of a limit without a count: never more than the supervisor will write (`compute_host_share` of
        edge/sync/plan.py).
        """
        hub, counts, most = self._hub, self._counts, self.most
        if hub.on_loss != "share":
            return hub.on_loss == "deny"
        if hub.is_held(counts.row):
            # The supervisor renews the part several times in a window. If it was not renewed, the counts withheld for
            # others may be gone.
            window = counts.window.width * counts.window.cells / 1e6
            if hub.is_warm(counts.row, now - window / 2):
                return False
        hosts = hub.hosts
        # Some of the unreported counts may have left the window.
        unreported = max(0, min(self._unreported, most - left))
        room = left + unreported
        return unreported + cost > max(room // hosts, compute_cold_allowance(most, hosts) - (most - room))

    def is_withheld(self, now: float, left: int) -> bool:
        """Return whether a request that is charged later must be refused because the hub is away; `left` is the rest
        now.

        For limits that never ask otherwise.
        """
        return self.is_away and self.must_ask(now, 1, left)

    @property
    def is_away(self) -> bool:
        """True if the hub cannot be reached."""
        return self._words[HOSTS] >= AWAY

    @property
    def is_shut(self) -> bool:
        """True if no request passes until the hub is back."""
        return self.is_away and (self.mode == "strict" or self._hub.on_loss == "deny")

    def is_asking_useless(self, now: float) -> bool:
        """Return whether asking is useless: the hub is away, or has just answered that nothing is left."""
        return self.is_away or self._hub.is_asking_useless(self._counts.row, now)

    def is_certain(self, now: float) -> bool:
        """Return whether the counts of other hosts are known: the hub answered a moment ago, and the row is in the
        table.
        """
        words, row = self._words, self._counts.row
        if not row or words[HOSTS] >= AWAY:
            return False
        return words[HOSTS] <= 1 or words[row + self._heads + WARM_UNTIL] > now * 1000

    def record_charge(self, now: float, cost: int) -> None:
        """Account for a request that passed, after `must_ask` was false."""
        row = self._counts.row
        if not row:
            return
        words, own = self._words, row + self._own
        if words[own + GIVEN] - words[own + USED] >= cost:
            words[own + USED] += cost
        if is_quiet(self._quiet_until, now):
            return
        hub = row + self._heads
        worth = words[hub + THRESHOLDS] & NEVER
        if self._unreported + cost >= worth or words[hub + WARM_UNTIL] <= now * 1000:
            self._quiet_until = now + QUIET_SECONDS
            self._notify(self)

    def record_refusal(self, now: float) -> None:
        """Make the supervisor ask after a refusal: other hosts may use less by now."""
        self.has_refused = True
        if self.row and not is_quiet(self._quiet_until, now):
            self._quiet_until = now + QUIET_SECONDS
            self._notify(self)

    def request_count(self, now: float) -> None:
        """Make the supervisor fetch the count for a request that was admitted and is charged at its response."""
        counts = self._counts
        if counts.row and self._words[counts.row + self._heads + WARM_UNTIL] <= now * 1000:
            self.record_refusal(now)

    def record_late_charge(self, now: float) -> None:
        """Account for a charge without a question to the hub. It may be large, and is reported without delay."""
        counts = self._counts
        if not counts.row:
            return
        words, row = self._words, counts.row
        hub = row + self._heads
        counted = sum(words[row + self._cums : hub : self._width].tolist())
        # In another row the counts begin again.
        reported = max(words[row + at.ROW_ACKNOWLEDGED], self._reported if self._reported <= counted else 0)
        is_cold = not is_quiet(self._quiet_until, now) and words[hub + at.WARM_UNTIL] <= now * 1000
        if is_cold or counted - reported >= words[hub + at.THRESHOLDS] & NEVER:
            self._reported = counted
            self._quiet_until = now + QUIET_SECONDS
            self._notify(self)

    def add_waiting(self, cost: int) -> None:
        """Count a request that waits for `cost` claims, and make the supervisor ask for them."""
        self._update_waiting(cost)
        self._notify(self)

    def remove_waiting(self, cost: int) -> None:
        """Stop counting a request that waited: it passed, was refused, or is gone."""
        self._update_waiting(-cost)

    def _update_waiting(self, more: int) -> None:
        self.waiting += more
        if self.row:
            claims.request_claims(self._table, self.row, self.waiting)
