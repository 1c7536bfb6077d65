"""Many hosts on one limit, simulated event by event: the real planner and the real hub, on a network that takes time.

    python -m tests.regions.simulate                 the scenarios of LIMITS section 9
    python -m tests.regions.simulate --hosts 100     the same with that many hosts

A host decides as a worker does (limits/), with what its plan allows; a report takes half a round trip to the hub, and
the answer as long. What counts is the most that was let through in any window of W, by the one true clock.
"""

import argparse
import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from edgeproxy.limits.gate import LONGEST, UNUSED
from edgeproxy.sync.memory import Memory
from edgeproxy.sync.plan import Counted, Mode, OnLoss, Plan, Terms, held_to
from edgeproxy.sync.report import Report, Told

CELLS = 28
ROUND_TRIPS = (0.001, 0.001, 0.080, 0.080, 0.150, 0.150)
DEADLINE = 1.0
"""Seconds without an answer after which the hub is away."""
PROBE = 0.5
"""Seconds between two attempts to reach it again."""


class Host:
    """One edge with one worker."""

    def __init__(self, world: "World", number: int, rtt: float, terms: Terms, on_loss: OnLoss) -> None:
        self.world = world
        self.number = number
        self.rtt = rtt
        self.terms = terms
        self.on_loss = on_loss
        self.plan = Plan(b"k", terms, born=1, hosts=world.hosts, rtt=rtt)
        self.cells: dict[int, int] = {}
        self.cum = self.spent = self.seq = 0
        self.held: int | None = None
        """What this host may use in a window while the hub is away; None while it is there."""
        self.waiting: deque[tuple[float, int]] = deque()
        self.recent: deque[float] = deque()
        self.refused = False
        self._wakes_at: float | None = None
        self._unanswered: deque[float] = deque()
        self._connection = 0

    @property
    def cell(self) -> int:
        return int(self.world.now / self.world.width)

    def own(self) -> int:
        lowest = self.cell - CELLS
        return sum(count for cell, count in self.cells.items() if cell >= lowest)

    def left(self) -> int:
        if self.held is not None:
            return self.held - self.own()
        lowest = self.cell - CELLS
        foreign = sum(count for cell, count in self.plan.foreign.items() if cell >= lowest)
        return self.terms.limit - self.own() - foreign

    def counted(self) -> Counted:
        while self.recent and self.recent[0] < self.world.now - 0.25:
            self.recent.popleft()
        lately = len(self.recent) / 0.25
        return Counted(self.cells, self.cum, self.left(), self.spent, len(self.waiting), self.refused, lately)

    # ---- requests

    def request(self) -> None:
        self.recent.append(self.world.now)
        self.world.asked += 1
        self._forget()
        left = self.left()
        if left < 1:
            self._refuse()
        elif self.plan.claims > self.spent:
            self.spent += 1
            self._admit(self.world.now)
        elif not self._must_ask(left):
            self._admit(self.world.now)
        elif self.world.now < self.plan.no_use_until or len(self.waiting) >= left:
            self._refuse()
        else:
            self.world.number += 1
            waits = (self.world.now, self.world.number)
            self.waiting.append(waits)
            self.world.later(LONGEST[self.terms.mode], self._give_up, waits)
        self._wake_when_due()

    def _must_ask(self, left: int) -> bool:
        ask_from = None if self.held is not None else self.plan.ask_from(self.world.now, left)
        return ask_from is not None and self.cum >= ask_from

    def _admit(self, since: float) -> None:
        self.cells[self.cell] = self.cells.get(self.cell, 0) + 1
        self.cum += 1
        self.world.admitted.append(self.world.now)
        if self.world.now > since:
            self.world.waits.append(self.world.now - since)

    def _refuse(self) -> None:
        self.refused = True
        self.world.refused += 1

    def _give_up(self, waits: tuple[float, int]) -> None:
        if waits in self.waiting:
            self.waiting.remove(waits)
            self._refuse()

    def _forget(self) -> None:
        if len(self.cells) > CELLS + 8:
            for cell in [cell for cell in self.cells if cell < self.cell - CELLS - 4]:
                del self.cells[cell]

    # ---- the hub

    def _wake_when_due(self) -> None:
        due = self.plan.due(self.world.now, self.counted())
        if due is not None and (self._wakes_at is None or due < self._wakes_at - 1e-9):
            self._wakes_at = due
            self.world.later(due - self.world.now, self._wake, due)

    def _wake(self, at: float) -> None:
        if self._wakes_at != at:
            return
        self._wakes_at = None
        due = self.plan.due(self.world.now, self.counted())
        if due is not None and self.held is None and due <= self.world.now + 1e-9:
            self._tell()
        if self.held is None:
            self._wake_when_due()

    def _tell(self) -> None:
        self.seq += 1
        self.world.calls += 1
        tick = self.world.random.uniform(0.8, 1.2)
        report = self.plan.report(self.world.now, self.cell, self.number, self.seq, self.counted(), tick)
        self.refused = False
        self._unanswered.append(self.world.now)
        self.world.later(DEADLINE, self._overdue, self.world.now)
        if self.world.linked:
            self.world.later(self.rtt / 2, self.world.at_hub, self, self._connection, report)

    def answered(self, connection: int, seq: int, told: Told) -> None:
        if connection != self._connection:
            return
        self._unanswered.popleft()
        before = self.plan.claims
        self.plan.answer(self.world.now, self.cell, seq, told)
        if self.plan.claims > before:
            self.world.later(UNUSED[self.terms.mode], self._give_back, self.plan.claims)
        self._serve()
        self._wake_when_due()

    def _serve(self) -> None:
        while self.waiting:
            left = self.left()
            if left >= 1 and self.plan.claims > self.spent:
                self.spent += 1
                self._admit(self.waiting.popleft()[0])
            elif left < 1 or self.world.now < self.plan.no_use_until:
                self.waiting.popleft()
                self._refuse()
            elif self._must_ask(left):
                break
            else:
                self._admit(self.waiting.popleft()[0])

    def _give_back(self, claims: int) -> None:
        if self.plan.claims == claims and claims > self.spent:
            self.spent = claims
            self._wake_when_due()

    def _overdue(self, sent_at: float) -> None:
        """The hub has not answered in time: it is away."""
        if self.held is None and self._unanswered and self._unanswered[0] <= sent_at:
            lowest = self.cell - CELLS
            foreign = sum(count for cell, count in self.plan.foreign.items() if cell >= lowest)
            self.held = held_to(self.terms, self.world.hosts, self.own(), foreign, self.on_loss)
            self._unanswered.clear()
            self._connection += 1
            self.plan.lost()
            self._serve()
            self.world.later(PROBE, self._probe)

    def _probe(self) -> None:
        if self.world.linked:
            self.held = None
            self._tell()
        else:
            self.world.later(PROBE, self._probe)


class World:
    """Hosts, the hub, and the events to come."""

    def __init__(
        self, terms: Terms, round_trips: Sequence[float] = ROUND_TRIPS, seed: int = 1, on_loss: OnLoss = "share"
    ) -> None:
        self.random = random.Random(seed)
        self.terms = terms
        self.width = terms.span / CELLS
        self.now = 1e6 + self.random.random() * self.width
        self.began = self.now
        self.hosts = len(round_trips)
        self.linked = True
        self.hub = Memory()
        self.admitted: list[float] = []
        self.waits: list[float] = []
        self.asked = self.refused = self.calls = self.number = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = 0
        self.all = [Host(self, number, rtt, terms, on_loss) for number, rtt in enumerate(round_trips, 1)]

    def later(self, seconds: float, then: Callable[..., None], *given: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, then, given))

    def at_hub(self, host: Host, connection: int, report: Report) -> None:
        if self.linked:
            told = self.hub.report(report)
            self.later(host.rtt / 2, self._back, host, connection, report.seq, told)

    def _back(self, host: Host, connection: int, seq: int, told: Told) -> None:
        if self.linked:
            host.answered(connection, seq, told)

    def link(self, linked: bool) -> None:
        self.linked = linked

    def load(self, host: int, begin: float, end: float, rate: float) -> None:
        """Requests to a host at random, `rate` a second, between two moments from now."""
        at = begin
        while True:
            at += self.random.expovariate(rate)
            if at >= end:
                return
            self.later(self.began + at - self.now, self.all[host].request)

    def run(self, seconds: float) -> None:
        until = self.began + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, then, given = heapq.heappop(self._events)
            then(*given)

    @property
    def worst(self) -> int:
        """The most that was let through in any window."""
        admitted = sorted(self.admitted)
        most = first = 0
        for last, at in enumerate(admitted):
            while admitted[first] <= at - self.terms.span:
                first += 1
            most = max(most, last - first + 1)
        return most


Loads = Callable[[int, float, int], Iterator[tuple[int, float, float, float]]]
"""Of so many hosts, at a rate of so many a second and a limit: host, begin, end, requests a second."""


@dataclass(frozen=True)
class Scenario:
    """Whom what is asked of: (host, begin, end, requests a second) of so many hosts at a rate of `r` a second."""

    name: str
    seconds: float
    loads: Loads
    cut: tuple[float, float] | None = None


def everywhere(times: float, seconds: float) -> Loads:
    """`times` the limit over all hosts together."""

    def loads(hosts: int, r: float, _: int) -> Iterator[tuple[int, float, float, float]]:
        for host in range(hosts):
            yield host, 0, seconds, times * r / hosts

    return loads


def burst(apart: float, hosts_of: Callable[[int], Sequence[int]]) -> Loads:
    """1,000 a second at some hosts, one after the other, for long enough to use the limit up."""

    def loads(hosts: int, r: float, limit: int) -> Iterator[tuple[int, float, float, float]]:
        for place, host in enumerate(hosts_of(hosts)):
            yield host, place * apart, place * apart + max(1, limit / 6000), 1000

    return loads


def roaming(hosts: int, r: float, _: int) -> Iterator[tuple[int, float, float, float]]:
    """A client that moves on every five seconds."""
    for step in range(48):
        yield step % hosts, step * 5, step * 5 + 5, 1.5 * r


SCENARIOS = (
    Scenario("steady 3 L over all hosts", 180, everywhere(3, 180)),
    Scenario("attack 20 L at all hosts", 130, lambda hosts, r, _: ((host, 0, 130, 20 * r) for host in range(hosts))),
    Scenario("burst everywhere at once from idle", 70, burst(0, range)),
    Scenario("burst host by host, 1 s apart", 70, burst(1, range)),
    Scenario("burst at one host", 70, burst(0, lambda hosts: [hosts // 2])),
    Scenario("client moves every 5 s, 1.5 L", 240, roaming),
    Scenario("0.8 L", 300, everywhere(0.8, 300)),
    Scenario("hub cut for 30 s at 3 L", 180, everywhere(3, 180), cut=(65, 95)),
    Scenario("hub cut for 30 s at 20 L", 180, everywhere(20, 180), cut=(65, 95)),
)


@dataclass(frozen=True)
class Found:
    """What came of it: the worst window as a part of the limit, parts of requests, seconds, calls a second."""

    worst: float
    refused: float
    waited: float
    longest: float
    calls: float


def play(
    scenario: Scenario,
    terms: Terms,
    round_trips: Sequence[float] = ROUND_TRIPS,
    seed: int = 1,
    on_loss: OnLoss = "share",
) -> Found:
    """Play a scenario once."""
    world = World(terms, round_trips, seed, on_loss)
    for load in scenario.loads(world.hosts, terms.limit / terms.span, terms.limit):
        world.load(*load)
    if scenario.cut is not None:
        begin, end = scenario.cut
        world.later(begin, world.link, False)
        world.later(end, world.link, True)
    world.run(scenario.seconds)
    asked = max(1, world.asked)
    return Found(
        world.worst / terms.limit,
        world.refused / asked,
        len(world.waits) / asked,
        max(world.waits, default=0.0),
        world.calls / scenario.seconds,
    )


def window(limit: int, span: float = 60.0, mode: Mode = "bounded") -> Terms:
    """A sliding window."""
    return Terms(limit, span, CELLS, mode=mode)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=6)
    parser.add_argument("--limits", type=int, nargs="+", default=[60, 600])
    parser.add_argument("--mode", choices=("bounded", "eventual", "strict"), default="bounded")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    round_trips = [ROUND_TRIPS[host * len(ROUND_TRIPS) // given.hosts] for host in range(given.hosts)]
    for scenario in SCENARIOS:
        if given.only not in scenario.name:
            continue
        for limit in given.limits:
            found = [play(scenario, window(limit, mode=given.mode), round_trips, seed) for seed in range(given.seeds)]
            print(
                f"{scenario.name:36} {limit:6}  {mean(one.worst for one in found):6.3f}"
                f"  most {max(one.worst for one in found):6.3f}"
                f"  refused {100 * mean(one.refused for one in found):5.1f} %"
                f"  waited {100 * mean(one.waited for one in found):5.1f} %,"
                f" {1000 * max(one.longest for one in found):4.0f} ms"
                f"  calls {mean(one.calls for one in found):6.1f}/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
