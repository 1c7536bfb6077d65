"""Reports of a rate to the hub: their times, their contents and how much a host may admit in between. Pure.

A rate in use is reported about every second, less often if no other host uses it, immediately if no answer came for a
while, and sooner the closer it is to its limit. Reports hold absolute counts and do not wait for the answer to the last
one. In between a host may admit a small part of the rest. Beyond that requests wait for a claim, unless no other host
uses the rate. Times are edge time in seconds.

The rules are in docs/design/limits.md#reports, #claims and #when-the-hub-is-away. The source of each constant is in
docs/design/limits.md#constants, and loadtest/regions/simulate.py tries them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from edgeproxy.edge.counters.hub_column import OnLoss
from edgeproxy.edge.limits.gate import compute_cold_allowance
from edgeproxy.edge.limits.rate_terms import RateTerms
from edgeproxy.hub.report import Bucket, Cell, Report, ReportAnswer, Window

TICK_SECONDS = 1.0
"""Seconds between two reports of a rate in use, give or take a fifth."""
ALONE_TICKS = 2.4
"""Ticks between two reports if no other host uses the rate: just before it would become cold."""
COLD_SECONDS = 3.0
"""After these seconds without an answer, the counts of other hosts are unknown."""
WARMING_SECONDS = 0.25
"""For these seconds after the first answer, the first counts of others may still be on their way."""
SOON_SECONDS = 0.03
"""Seconds between two reports that matter."""
AT_ONCE_SECONDS = 0.005
"""Seconds between two reports while requests wait and no claim is requested."""
STALE_SECONDS = 0.25
"""An answer older than these seconds is too old for a refusal."""
SECONDS_PER_HOST = 0.01
"""Seconds for each host that uses the rate, if that exceeds STALE_SECONDS: many hosts together ask no more often."""
CELLS_BEHIND = 2
"""Reports of cells up to this number older than the window are remembered."""
RETURNING_SECONDS = 10.0
"""For these seconds after the hub is back, other hosts find it too and report the requests that they admitted
meanwhile.
"""
COUNTS_PER_REPORT_MAX = 1 << 20
"""Counts between a report and its answer: no host counts more."""

WAITED_FOR, MATTERS, IN_TURN = range(3)
"""Reasons of a report. First, requests wait for it. Second, much is unreported, a request was refused, or answers are
overdue. Third, it is time. If not all can be sent, they go in this order.
"""


class HostCounts(NamedTuple):
    """This host's counts in the map. `cells`: by number; `cum`: ever; `spent`: claims used or returned.

    `waiting`: requests that wait for a claim. `refused`: a request was refused since the last report. `lately`:
    requests a second. `level`: the bucket's. `left`: how much would still pass.
    """

    cells: Mapping[int, int]
    cum: int
    left: int
    spent: int = 0
    waiting: int = 0
    refused: bool = False
    lately: float = 0.0
    level: float = 0.0


def compute_allowance(most: int, left: int, seen: int) -> int:
    """Return how much a host may admit between answers, if `seen` hosts use the rate: a fifth together."""
    seen = max(1, seen)
    return int(max(1, min(0.01, 0.2 / seen) * most, 0.5 * max(0, left) / seen))


def compute_report_threshold(most: int, left: int, hosts: int) -> int:
    """Return how many unreported counts make a report due before its tick, if `hosts` use the rate."""
    return int(max(1, 0.001 * most, 0.1 * max(0, left) / max(1, hosts - 1)))


def compute_claim_stock(most: int, left: int, hosts: int) -> int:
    """Return the claims that a strict host keeps in hand while less than half is used."""
    return int(max(1, 0.05 * most / hosts)) if left > most / 2 else 0


def compute_host_share(terms: RateTerms, hosts: int, own: int, foreign: int, on_loss: OnLoss) -> int:
    """Return how much this host may use of a rate while the hub is away. `own`, `foreign`: used at its last answer."""
    if terms.mode == "strict" or on_loss == "deny":
        return 0
    if on_loss == "full":
        return terms.most
    part = terms.most * own / (own + foreign) if own else 0
    return min(terms.most, int(max(compute_cold_allowance(terms.most, hosts), terms.most / max(1, hosts), part)))


class ReportDue(NamedTuple):
    """Time, perhaps past, and reason of a due report."""

    at: float
    why: int


class SentReport(NamedTuple):
    """A sent report: its seq, count ever, claims spent ever, claims requested, whether it was whole, and forgotten
    claims.

    Forgotten claims are in hand but unknown to the hub, and are requested additionally.
    """

    seq: int
    cum: int
    spent: int
    want: int
    whole: bool = False
    forgotten: int = 0


@dataclass(slots=True)
class RatePlan:
    """One host's part in one rate. `hosts`: on the hub, this one among them; `rtt`: seconds to the hub and back.

    A hub that has lost everything, or this host, reports that, and gets the whole window again. After the loss of the
    connection `drop_pending` is called: the reports in flight may have arrived or not.
    """

    key: bytes
    terms: RateTerms
    born: int
    hosts: int = 1
    rtt: float = 0.0
    width: float = 0.0
    """Seconds of a cell, exactly as used for the cells' large numbers; 0: the span's part."""
    acknowledged: int = 0
    """The count ever made here, in the last answered report."""
    reported: int = 0
    """The count ever made here, in the last report."""
    reported_at: float = -1e9
    answered_at: float = -1e9
    warm_since: float = -1e9
    seen: int = 1
    """Hosts that used the rate lately, according to the hub."""
    no_use_until: float = -1e9
    """Time until when requests for claims are useless after the hub refused one: the next cell or token."""
    foreign: Mapping[int, int] = field(default_factory=dict)
    level: tuple[float, float] = (0.0, 0.0)
    """Bucket level at the hub, without the claims that this host has in hand, and its time."""
    others: int = 0
    """For a bucket, a number in place of the count of other hosts. Each answer raises it so far that no column has more
    counts than the hub's, and all continue from the hub's level. It has no other meaning.
    """
    claims: int = 0
    """Claims granted ever; read from the map if another supervisor was here before."""
    spent: int = 0
    """Claims spent ever, as of the last report."""
    is_whole: bool = True
    """True if the next report has everything that counts, not only news."""
    _where: int = 0
    """The number of the link that brought the last answer."""
    _forgetful_until: float = -1e9
    _part: int = 0
    """Part that this host had while the hub was away, and when its hold ends."""
    _part_until: float = -1e9
    _tick: float = TICK_SECONDS
    _lowest: int = 0
    """The lowest cell that counted at the last report."""
    _reported_cells: dict[int, tuple[int, int]] = field(default_factory=dict)
    _granted: dict[int, int] = field(default_factory=dict)
    _settled: dict[int, int] = field(default_factory=dict)
    _forgotten: int = 0
    """Claims in hand that the hub has forgotten."""
    _under_way: list["SentReport"] = field(default_factory=list)
    """Reports without an answer yet, oldest first."""

    # ---- how much may pass

    def is_cold(self, now: float) -> bool:
        """Return whether the last answer is too old to use."""
        return now - self.answered_at > COLD_SECONDS

    def compute_claim_threshold(self, now: float, left: int) -> int | None:
        """Return the count ever made here that makes requests claim first; None: never."""
        if self.terms.mode == "strict":
            return 0
        if self.hosts <= 1 or self.terms.mode == "eventual":
            return None
        if self.is_cold(now) or now < self.warm_since + WARMING_SECONDS:
            return self.acknowledged + compute_cold_allowance(self.terms.most, self.hosts)
        if self.seen > 1:
            return self.acknowledged + compute_allowance(self.terms.most, left, self.seen)
        return None

    @property
    def in_hand(self) -> int:
        """Claims that were granted, and not spent as of the last report."""
        return max(0, self.claims - self.spent)

    @property
    def claims_requested(self) -> int:
        """Claims requested in reports that have no answer yet."""
        return sum(sent.want for sent in self._under_way)

    def _find_next_room(self, now: float, cell: int) -> float:
        """Return when there may be room again; there is none now."""
        terms, moments = self.terms, []
        if terms.cells:
            moments.append((cell + 1) * (self.width or terms.span / terms.cells))
        if terms.depth:
            moments.append(now + max(SOON_SECONDS, 1 / terms.rate))
        return min(moments)

    # ---- reports

    def compute_due(self, now: float, counted: HostCounts) -> float | None:
        """Return when the next report is due; None if there is nothing to report or to ask."""
        due = self.find_next_report(now, counted)
        return None if due is None else max(now, due.at)

    def find_next_report(self, now: float, counted: HostCounts) -> ReportDue | None:
        """Return when and why the next report is due; None if there is nothing to report or to claim."""
        if counted.waiting and self._compute_request(now, counted):
            return ReportDue(
                self.reported_at + (SOON_SECONDS if self.claims_requested else AT_ONCE_SECONDS), WAITED_FOR
            )
        if not self.has_news(counted):
            return None
        untold, users = counted.cum - self.reported, self.count_users(now)
        if (
            untold >= compute_report_threshold(self.terms.most, counted.left, users)
            # While an answer is on its way, asking again would bring it no sooner.
            or (counted.refused and (untold or (now - self.answered_at > self.stale_seconds and not self._under_way)))
            or (untold and self.answered_at < now - COLD_SECONDS and not self._under_way)
        ):
            return ReportDue(self.reported_at + SOON_SECONDS, MATTERS)
        return ReportDue(self.reported_at + self.compute_step_seconds(now), IN_TURN)

    def compute_step_seconds(self, now: float) -> float:
        """Return the seconds from one report to the next that is due only by time."""
        return self._tick * (1 if self.count_users(now) > 1 else ALONE_TICKS)

    def has_news(self, counted: HostCounts) -> bool:
        """Return whether there is anything to report or to ask."""
        return self.is_whole or counted.cum != self.reported or counted.refused or counted.spent > self.spent

    def is_settled(self, counted: HostCounts) -> bool:
        """Return whether there is nothing to report, and all reports have been answered."""
        return not self._under_way and not self.has_news(counted)

    @property
    def stale_seconds(self) -> float:
        """After this many seconds it asks again before it refuses more: longer with many hosts."""
        return max(STALE_SECONDS, SECONDS_PER_HOST * self.seen)

    def count_users(self, now: float) -> int:
        """Return how many hosts use the rate; all, if no answer is recent."""
        return self.hosts if self.is_cold(now) or now < self.warm_since + WARMING_SECONDS else self.seen

    def build_report(
        self, now: float, cell: int, instance: int, seq: int, counted: HostCounts, tick: float = TICK_SECONDS
    ) -> Report:
        """Build the report to send now. `tick`: seconds until the next report, unless something makes it due before."""
        terms = self.terms
        want = self._compute_request(now, counted)
        self.spent = counted.spent
        if self._granted:
            self._settle_claims()
        window = bucket = None
        if terms.cells:
            lowest = cell - terms.cells
            if lowest != self._lowest:
                self._lowest = lowest
                for cells in (self._reported_cells, self._granted, self._settled):
                    for old in [old for old in cells if old < lowest - CELLS_BEHIND]:
                        del cells[old]
            window = Window(terms.limit, terms.cells, cell, tuple(self._list_changed_cells(counted.cells, lowest)))
        if terms.depth:
            own = min(counted.level, float(counted.cum - self.acknowledged))
            bucket = Bucket(terms.depth, terms.rate, counted.level - own, own)
        self.reported = counted.cum
        self.reported_at = now
        self._tick = tick
        # The hub would grant them only for the forgotten claims in hand.
        forgotten = self._forgotten if want and not any(sent.forgotten for sent in self._under_way) else 0
        self._under_way.append(SentReport(seq, counted.cum, counted.spent, want, self.is_whole, forgotten))
        want += forgotten
        self.is_whole = False
        return Report(
            self.key, instance, seq, self.born, now, terms.span, counted.cum, counted.spent, want, window, bucket
        )

    def _compute_request(self, now: float, counted: HostCounts) -> int:
        """Return how many claims to ask for: for requests that wait or come before the answer, and to keep in hand."""
        in_stock = 0
        if self.terms.mode == "strict" and (counted.waiting or counted.cum != self.reported):
            # Nothing is kept for an unused rate once its claims were returned.
            in_stock = compute_claim_stock(self.terms.most, counted.left, self.hosts)
        if not (counted.waiting or in_stock) or now < self.no_use_until:
            return 0
        ahead = counted.lately * (self.rtt + SOON_SECONDS) if counted.waiting else 0
        # Claims in hand belong to other workers than the ones with waiting requests, which had none.
        more = max(0, int(ahead + in_stock) - (self.claims - counted.spent))
        return max(0, counted.waiting + more - self.claims_requested)

    def _settle_claims(self) -> None:
        """Settle the claims that are no longer in hand, in the order of their grants."""
        unsettled = {cell: many - self._settled.get(cell, 0) for cell, many in self._granted.items()}
        spent = sum(unsettled.values()) - self.in_hand
        for cell in sorted(unsettled):
            if spent <= 0:
                break
            some = min(spent, unsettled[cell])
            self._settled[cell] = self._settled.get(cell, 0) + some
            spent -= some

    def _list_changed_cells(self, counted: Mapping[int, int], lowest: int) -> list[Cell]:
        """Return the cells that have changed since they were reported, or all."""
        changed = []
        for cell in sorted({*counted, *self._settled}) if self._settled else counted:
            if cell >= lowest:
                counts = counted.get(cell, 0), self._settled.get(cell, 0)
                if self.is_whole or self._reported_cells.get(cell, (0, 0)) != counts:
                    self._reported_cells[cell] = counts
                    changed.append(Cell(cell, *counts))
        return changed

    # ---- answers

    def apply_answer(self, now: float, cell: int, seq: int, answer: ReportAnswer) -> int:
        """Apply the answer to a report. Return how many claims it grants."""
        sent = SentReport(0, self.acknowledged, self.spent, 0)
        while self._under_way and self._under_way[0].seq <= seq:
            sent = self._under_way.pop(0)
        self.acknowledged = sent.cum
        lowest = cell - self.terms.cells
        if self.is_cold(now):
            self.warm_since = now
        self.answered_at = now
        self.seen = answer.hosts
        # A replica that has become the primary knows this host, and perhaps not all of its reports.
        has_forgotten = not answer.known or answer.where != self._where
        self._where = answer.where
        if has_forgotten and self._reported_cells:
            # The other hosts must report everything to it again too. Until they have, its earlier answers still apply.
            self._forgetful_until = now + COLD_SECONDS
        if now < self._forgetful_until:
            cells = {*self.foreign, *answer.foreign}
            self.foreign = {of: max(self.foreign.get(of, 0), answer.foreign.get(of, 0)) for of in cells if of >= lowest}
        else:
            self.foreign = answer.foreign
        self.level = max(0.0, answer.level - answer.claims), answer.now
        self.others += COUNTS_PER_REPORT_MAX
        if has_forgotten and self._reported_cells and not sent.whole:
            self.is_whole = True
            self.reported_at = -1e9
        # The grant is computed from the claims in hand. So a lost answer is made up for, and claims that a hub forgot
        # are not given twice. An answer that came after a later one, or after `drop_pending`, predates claims spent
        # since.
        granted = 0
        if sent.seq == seq:
            more = answer.claims - (self.claims - sent.spent)
            granted, self._forgotten = max(0, more), max(0, -more)
        self.claims += granted
        for here, there in ((self._granted, answer.granted), (self._settled, answer.settled)):
            for of, many in there.items():
                here[of] = max(many, here.get(of, 0))
        if granted < sent.want and (sent.forgotten or not self._forgotten):
            self.no_use_until = self._find_next_room(now, cell)
        return granted

    def resume(self, now: float, part: int) -> None:
        """Start again with a hub that is back, after this host was limited to `part` without it.

        The hub does not know yet what hosts that return later have admitted, so there may seem to be room.
        """
        self._part, self._part_until = part, now + RETURNING_SECONDS

    def compute_withheld(self, now: float) -> int:
        """Return how much of the rest of a window is kept for hosts that return later."""
        if now >= self._part_until:
            return 0
        terms = self.terms
        return max(0, terms.limit - terms.limit * self._part // terms.most - sum(self.foreign.values()))

    def drop_pending(self) -> None:
        """Forget the reports in flight: the connection was lost, and their answers with it."""
        self._under_way.clear()
        self.is_whole = True
