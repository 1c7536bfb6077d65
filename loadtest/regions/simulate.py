"""Many hosts on one limit, simulated event by event: the real planner and the real hub, on a network that takes time.

    python -m loadtest.regions.simulate                              the accepted scenarios, six hosts
    python -m loadtest.regions.simulate --hosts 1000 --limits 600    the same with that many hosts
    python -m loadtest.regions.simulate --hosts 1000 --on 3          of which three are used
    python -m loadtest.regions.simulate --mode delta --tick 1        the usual way elsewhere, see Delta

A host decides as a worker does (edge/limits/), with what its plan allows; a report takes half a round trip to the hub,
and the answer as long. What counts is the most that was let through in any window of W, by the one true clock. Requests
that come while a host can only refuse are not played one by one: they come at random, so that it does not matter when
the one before came (docs/limits/regions.md, `Many hosts, simulated`).
"""

import argparse
import heapq
import json
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Literal

from edgeproxy.edge.counters.hub_column import OnLoss
from edgeproxy.edge.limits.gate import UNUSED_SECONDS, WAIT_SECONDS_MAX
from edgeproxy.edge.limits.rate_terms import Mode, RateTerms
from edgeproxy.edge.sync.plan import TICK_SECONDS, HostCounts, RatePlan, compute_host_share
from edgeproxy.hub.report import Report, ReportAnswer
from loadtest.testbed.memory_hub import Memory

CELLS = 28
REGIONS = (0.001, 0.080, 0.150)
"""Seconds of a round trip to the hub from the hosts of three regions."""
DEADLINE = 1.0
"""Seconds without an answer until a host considers the hub down."""
PROBE = 0.5
"""Seconds between two attempts to reach it again."""
LATELY = 0.25
"""Seconds over which a host measures the rate of requests."""

Way = Literal["bounded", "eventual", "strict", "delta"]


def round_trips(hosts: int) -> list[float]:
    """Return round trips for this many hosts, a third of them in each region: 1, 80, 150, 1, 80, 150 ms…"""
    return [REGIONS[host % len(REGIONS)] for host in range(hosts)]


class Delta(RatePlan):
    """The usual design of other products: each host reports its counts every `_tick` seconds, and no request ever
    waits.

    Unlike some of those products, it has cells, the hub and absolute counts, as our design has.
    """

    def compute_claim_threshold(self, now: float, left: int) -> int | None:
        return None

    def compute_due(self, now: float, counted: HostCounts) -> float | None:
        return max(now, self.reported_at + self._tick) if counted.cum != self.reported or counted.refused else None


class Host:
    """One edge with one worker."""

    def __init__(self, world: "World", number: int, rtt: float) -> None:
        self.world = world
        self.number = number
        self.rtt = rtt
        self.terms = world.terms
        if world.way == "delta":
            # As if it had told the hub of other keys all the time, at moments of its own.
            begin = world.now - world.random.random() * world.tick
            self.plan: RatePlan = Delta(b"k", self.terms, 1, world.hosts, rtt, reported_at=begin, _tick=world.tick)
        else:
            self.plan = RatePlan(b"k", self.terms, born=1, hosts=world.hosts, rtt=rtt)
        self.streams: list[Stream] = []
        self.cells: dict[int, int] = {}
        self.cum = self.spent = self.seq = 0
        self.held: int | None = None
        """The requests that this host may admit in a window while the hub is down; None while the hub answers."""
        self.waiting: deque[float] = deque()
        """When each waiting request arrived."""
        self.recent: deque[tuple[float, int]] = deque()
        self._lately = 0
        self.refused = False
        self._wakes_at: float | None = None
        self._unanswered: deque[float] = deque()
        self._connection = 0
        self._own = self._foreign = 0
        self._own_cell = self._foreign_cell = -1
        self._theirs: Mapping[int, int] = {}

    @property
    def cell(self) -> int:
        return int(self.world.now / self.world.width)

    def own(self) -> int:
        if self._own_cell != self.cell:
            self._own_cell, lowest = self.cell, self.cell - CELLS
            for old in [cell for cell in self.cells if cell < lowest - 4]:
                del self.cells[old]
            self._own = sum(count for cell, count in self.cells.items() if cell >= lowest)
        return self._own

    def foreign(self) -> int:
        if self._foreign_cell != self.cell:
            self._foreign_cell, lowest = self.cell, self.cell - CELLS
            self._foreign = sum(count for cell, count in self._theirs.items() if cell >= lowest)
        return self._foreign

    def left(self) -> int:
        if self.held is not None:
            return self.held - self.own()
        return self.terms.limit - self.own() - self.foreign()

    def counted(self) -> HostCounts:
        while self.recent and self.recent[0][0] < self.world.now - LATELY:
            self._lately -= self.recent.popleft()[1]
        lately = self._lately / LATELY
        return HostCounts(self.cells, self.cum, self.left(), self.spent, len(self.waiting), self.refused, lately)

    # ---- requests

    def come(self, many: int) -> None:
        """Record the arrival of this many requests."""
        self.recent.append((self.world.now, many))
        self._lately += many

    def request(self) -> float | None:
        """Handle a request. Returns until when the host will refuse all requests, unless the hub answers before."""
        now, left, until = self.world.now, self.left(), None
        self.come(1)
        if left < 1:
            until = self._refuse()
        elif self.plan.claims > self.spent:
            self.spent += 1
            self._admit(now)
        elif not self._must_ask(left):
            self._admit(now)
        elif now < self.plan.no_use_until:
            until = self._refuse()
        elif len(self.waiting) >= left:
            until = min(self._refuse(), self.waiting[0] + WAIT_SECONDS_MAX[self.terms.mode])
        else:
            self.waiting.append(now)
            if len(self.waiting) == 1:
                self.world.later(WAIT_SECONDS_MAX[self.terms.mode], self._give_up)
        self._wake_when_due()
        return until

    def _must_ask(self, left: int) -> bool:
        ask_from = None if self.held is not None else self.plan.compute_claim_threshold(self.world.now, left)
        return ask_from is not None and self.cum >= ask_from

    def _admit(self, since: float) -> None:
        own = self.own()
        self.cells[self.cell] = self.cells.get(self.cell, 0) + 1
        self._own = own + 1
        self.cum += 1
        self.world.admitted.append(self.world.now)
        if self.world.now > since:
            self.world.waits.append(self.world.now - since)

    def _refuse(self) -> float:
        self.refused = True
        self.world.refused += 1
        # When to ask again, and when the oldest cell leaves the window.
        moments = (self.plan.answered_at + self.plan.stale_seconds, (self.cell + 1) * self.world.width)
        return min(moment for moment in moments if moment > self.world.now)

    def _give_up(self) -> None:
        """Refuse the requests that have waited too long."""
        longest = WAIT_SECONDS_MAX[self.terms.mode]
        while self.waiting and self.waiting[0] <= self.world.now - longest + 1e-9:
            self.waiting.popleft()
            self._refuse()
        if self.waiting:
            self.world.later(self.waiting[0] + longest - self.world.now, self._give_up)

    # ---- the hub

    def _wake_when_due(self) -> None:
        due = self.plan.compute_due(self.world.now, self.counted())
        if due is not None and (self._wakes_at is None or due < self._wakes_at - 1e-9):
            self._wakes_at = due
            self.world.later(due - self.world.now, self._wake, due)

    def _wake(self, at: float) -> None:
        if self._wakes_at != at:
            return
        self._wakes_at = None
        due = self.plan.compute_due(self.world.now, self.counted())
        if due is not None and self.held is None and due <= self.world.now + 1e-9:
            self._tell()
        if self.held is None:
            self._wake_when_due()

    def _tell(self) -> None:
        self.seq += 1
        self.world.calls += 1
        tick = self.world.tick * (1.0 if self.world.way == "delta" else self.world.random.uniform(0.8, 1.2))
        report = self.plan.build_report(self.world.now, self.cell, self.number, self.seq, self.counted(), tick)
        self.refused = False
        self._unanswered.append(self.world.now)
        self.world.later(DEADLINE, self._overdue, self.world.now)
        if self.world.linked:
            self.world.later(self.rtt / 2, self.world.at_hub, self, self._connection, report)
        # The next one that is refused has it told that some are.
        self._go_on()

    def answered(self, connection: int, seq: int, told: ReportAnswer) -> None:
        if connection != self._connection:
            return
        self._unanswered.popleft()
        before = self.plan.claims
        self.plan.apply_answer(self.world.now, self.cell, seq, told)
        self._theirs = self.plan.foreign
        if more := self.plan.compute_withheld(self.world.now):
            self._theirs = {**self._theirs, self.cell: self._theirs.get(self.cell, 0) + more}
        self._foreign_cell = -1
        if self.plan.claims > before:
            self.world.later(UNUSED_SECONDS[self.terms.mode], self._give_back, self.plan.claims)
        self._serve()
        self._wake_when_due()
        self._go_on()

    def _serve(self) -> None:
        while self.waiting:
            left = self.left()
            if left >= 1 and self.plan.claims > self.spent:
                self.spent += 1
                self._admit(self.waiting.popleft())
            elif left < 1 or self.world.now < self.plan.no_use_until:
                self.waiting.popleft()
                self._refuse()
            elif self._must_ask(left):
                break
            else:
                self._admit(self.waiting.popleft())

    def _go_on(self) -> None:
        """Resume the streams that were refused until now."""
        for stream in self.streams:
            stream.go_on()

    def _give_back(self, claims: int) -> None:
        if self.plan.claims == claims and claims > self.spent:
            self.spent = claims
            self._wake_when_due()

    def _overdue(self, sent_at: float) -> None:
        """Treat the hub as down, because it has not answered in time."""
        if self.held is None and self._unanswered and self._unanswered[0] <= sent_at:
            own = max(0, self.own() - (self.cum - self.plan.acknowledged))
            self.held = compute_host_share(self.terms, self.world.hosts, own, self.foreign(), self.world.on_loss)
            self._unanswered.clear()
            self._connection += 1
            self.plan.drop_pending()
            self._serve()
            self._go_on()
            self.world.later(PROBE, self._probe)

    def _probe(self) -> None:
        if not self.world.linked:
            self.world.later(PROBE, self._probe)
        elif self.held is not None:
            self.plan.resume(self.world.now, self.held)
            self.held = None
            self._tell()
            self._go_on()


class Stream:
    """Requests to a host at random, `rate` a second, until `end`."""

    def __init__(self, world: "World", host: Host, end: float, rate: float) -> None:
        self.world, self.host, self.end, self.rate = world, host, end, rate
        self._turn = 0
        self._refused_since: float | None = None

    def begin(self) -> None:
        """Schedule the next request."""
        self._turn += 1
        self._refused_since = None
        wait = self.world.random.expovariate(self.rate)
        if self.world.now + wait < self.end:
            self.world.later(wait, self._come, self._turn)

    def _come(self, turn: int) -> None:
        if turn != self._turn:
            return
        self.world.asked += 1
        until = self.host.request()
        self.begin()
        if until is not None and until > self.world.now:
            self._turn += 1
            self._refused_since = self.world.now
            self.world.later(until - self.world.now, self._over, self._turn)

    def _over(self, turn: int) -> None:
        if turn == self._turn:
            self.go_on()

    def go_on(self) -> None:
        """Count the requests that were refused meanwhile, and schedule the next one."""
        if self._refused_since is None:
            return
        passed = min(self.world.now, self.end) - self._refused_since
        many = int(self.rate * passed + self.world.random.random())
        self.world.asked += many
        self.world.refused += many
        if self.world.now < self.end:
            self.host.come(round(self.rate * min(passed, LATELY)))
        self.begin()


class World:
    """Hosts, the hub, and the events to come.

    `hosts` is the number of hosts on the hub, including hosts without requests. `tick` is the seconds between two
    reports, unless an event makes one due earlier.
    """

    def __init__(
        self,
        terms: RateTerms,
        trips: Sequence[float],
        seed: int = 1,
        *,
        hosts: int = 0,
        tick: float = TICK_SECONDS,
        way: Way = "bounded",
        on_loss: OnLoss = "share",
    ) -> None:
        self.random = random.Random(seed)
        self.terms = terms
        self.width = terms.span / CELLS
        self.now = 1e6 + self.random.random() * self.width
        self.began = self.now
        self.hosts = max(hosts, len(trips))
        self.tick = tick
        self.way = way
        self.on_loss: OnLoss = on_loss
        self.linked = True
        self.hub = Memory()
        self.admitted: list[float] = []
        self.waits: list[float] = []
        self.asked = self.refused = self.calls = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = 0
        self.all = [Host(self, number, rtt) for number, rtt in enumerate(trips, 1)]

    def later(self, seconds: float, then: Callable[..., None], *given: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, then, given))

    def at_hub(self, host: Host, connection: int, report: Report) -> None:
        if self.linked:
            told = self.hub.report(report)
            self.later(host.rtt / 2, self._back, host, connection, report.seq, told)

    def _back(self, host: Host, connection: int, seq: int, told: ReportAnswer) -> None:
        if self.linked:
            host.answered(connection, seq, told)

    def link(self, linked: bool) -> None:
        self.linked = linked

    def load(self, host: int, begin: float, end: float, rate: float) -> None:
        """Send requests to a host at random, `rate` a second, between two moments after the beginning."""
        stream = Stream(self, self.all[host], self.began + end, rate)
        self.all[host].streams.append(stream)
        self.later(self.began + begin - self.now, stream.begin)

    def run(self, seconds: float) -> None:
        until = self.began + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, then, given = heapq.heappop(self._events)
            then(*given)

    @property
    def worst(self) -> int:
        """The most requests that were admitted in any window."""
        most = first = 0
        for last, at in enumerate(self.admitted):
            while self.admitted[first] <= at - self.terms.span:
                first += 1
            most = max(most, last - first + 1)
        return most


Loads = Callable[[int, float, int], Iterator[tuple[int, float, float, float]]]
"""Maps (hosts, rate in requests per second, limit) to loads: (host, begin, end, requests per second)."""


@dataclass(frozen=True)
class Scenario:
    """The loads of a simulation, and when the hub is down."""

    name: str
    seconds: float
    loads: Loads
    cut: tuple[float, float] | None = None


def everywhere(times: float, seconds: float) -> Loads:
    """Return loads of `times` the limit, spread over all hosts."""

    def loads(hosts: int, r: float, _: int) -> Iterator[tuple[int, float, float, float]]:
        for host in range(hosts):
            yield host, 0, seconds, times * r / hosts

    return loads


def burst(apart: float, hosts_of: Callable[[int], Sequence[int]]) -> Loads:
    """Return loads of 1,000 requests a second at some hosts in turn, each long enough to use up the limit."""

    def loads(hosts: int, r: float, limit: int) -> Iterator[tuple[int, float, float, float]]:
        some = hosts_of(hosts)
        seconds = max(1, 1.5 * limit / 1000 / len(some))
        for place, host in enumerate(some):
            yield host, place * apart, place * apart + seconds, 1000

    return loads


def roaming(hosts: int, r: float, _: int) -> Iterator[tuple[int, float, float, float]]:
    """Yield the loads of a client that changes its host every five seconds."""
    for step in range(48):
        yield step % hosts, step * 5, step * 5 + 5, 1.5 * r


SCENARIOS = (
    Scenario("steady 3 L over all hosts", 180, everywhere(3, 180)),
    Scenario("attack 20 L at all hosts", 130, lambda hosts, r, _: ((host, 0, 130, 20 * r) for host in range(hosts))),
    Scenario("burst everywhere at once from idle", 70, burst(0, range)),
    Scenario("burst host by host, 1 s apart", 70, burst(1, range)),
    Scenario("burst at one host", 70, burst(0, lambda hosts: [min(1, hosts - 1)])),
    Scenario("client moves every 5 s, 1.5 L", 240, roaming),
    Scenario("0.8 L", 300, everywhere(0.8, 300)),
    Scenario("hub cut for 30 s at 3 L", 180, everywhere(3, 180), cut=(65, 95)),
    Scenario("hub cut for 30 s at 20 L", 180, everywhere(20, 180), cut=(65, 95)),
)


@dataclass(frozen=True)
class Found:
    """The result of a simulation.

    `worst` is the fullest window as a part of the limit. `refused` and `waited` are parts of the requests, and
    `late` is the part of the admitted requests that had waited. `median` and `longest` are their waits in seconds.
    `calls` are all hosts' calls of the hub per second.
    """

    worst: float
    refused: float
    waited: float
    late: float
    median: float
    longest: float
    calls: float


def play(
    scenario: Scenario,
    terms: RateTerms,
    trips: Sequence[float] = (),
    seed: int = 1,
    *,
    hosts: int = 0,
    tick: float = TICK_SECONDS,
    way: Way | None = None,
    on_loss: OnLoss = "share",
) -> Found:
    """Simulate a scenario once. `way` overrides the mode of `terms`."""
    trips = trips or round_trips(6)
    world = World(terms, trips, seed, hosts=hosts, tick=tick, way=way or terms.mode, on_loss=on_loss)
    for load in scenario.loads(len(trips), terms.limit / terms.span, terms.limit):
        world.load(*load)
    if scenario.cut is not None:
        begin, end = scenario.cut
        world.later(begin, world.link, False)
        world.later(end, world.link, True)
    world.run(scenario.seconds)
    asked, passed = max(1, world.asked), max(1, len(world.admitted))
    return Found(
        world.worst / terms.limit,
        world.refused / asked,
        len(world.waits) / asked,
        len(world.waits) / passed,
        median(world.waits) if world.waits else 0.0,
        max(world.waits, default=0.0),
        world.calls / scenario.seconds,
    )


def window(limit: int, span: float = 60.0, mode: Mode = "bounded") -> RateTerms:
    """Return a sliding window."""
    return RateTerms(limit, span, CELLS, mode=mode)


def average(found: Sequence[Found]) -> Found:
    """Return the mean of each figure over seeds, and the longest of all waits."""
    means = {name: mean(getattr(one, name) for one in found) for name in Found.__dataclass_fields__}
    return Found(**{**means, "longest": max(one.longest for one in found)})


def main() -> None:
    """Print a table, or a line of JSON for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=6, help="on the hub")
    parser.add_argument("--on", type=int, help="hosts of these to which requests come; all of them")
    parser.add_argument("--limits", type=int, nargs="+", default=[60, 600], help="requests a minute")
    parser.add_argument("--mode", choices=("bounded", "eventual", "strict", "delta"), default="bounded")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tick", type=float, default=TICK_SECONDS, help="seconds between two reports")
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    way: Way = given.mode
    mode: Mode = "eventual" if way == "delta" else way
    trips = round_trips(min(given.hosts, given.on or given.hosts))
    for scenario in SCENARIOS:
        if given.only not in scenario.name:
            continue
        for limit in given.limits:
            terms = window(limit, mode=mode)
            found = [
                play(scenario, terms, trips, seed, hosts=given.hosts, tick=given.tick, way=way)
                for seed in range(given.seeds)
            ]
            one = average(found)
            if given.json:
                print(json.dumps({"scenario": scenario.name, "limit": limit, **asdict(one)}), flush=True)
                continue
            print(
                f"{scenario.name:36} {limit:6}  {one.worst:6.3f}  most {max(each.worst for each in found):6.3f}"
                f"  refused {100 * one.refused:5.1f} %"
                f"  waited {100 * one.waited:5.1f} %, of those let through {100 * one.late:5.1f} %,"
                f" {1000 * one.median:4.0f} ms, at most {1000 * one.longest:4.0f} ms  calls {one.calls:6.1f}/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
