"""The scenarios of docs/design/limits.md#what-is-accepted: their requests, and the most that may pass."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MOST = 3400.0
"""Requests a second of one customer: the most that two cores handle beside everything else."""
BURST = 1000.0
"""Requests a second of a burst, at each host."""
BURST_SECONDS = 1.0
"""The shortest burst in seconds."""
WINDOW = 60.0
"""Seconds of each limit's window, unless stated otherwise."""
CUT = 30.0
"""Seconds of a cut from the hub."""

MODES = ("bounded", "eventual", "strict")
CLOSELY_LIMITED = 600
"""The highest limit with targets for `eventual` and `strict`."""


class Asked(NamedTuple):
    """Requests at a host (by number), from one moment to another, at a rate per second."""

    host: int
    begin: float
    end: float
    rate: float


Loads = Callable[[int, float, int, float], Iterator[Asked]]
"""Maps (hosts, rate per second, limit, seconds) to requests. For a burst, `seconds` is the shortest length."""


@dataclass(frozen=True)
class Scenario:
    """A scenario. `accept` maps limit, hosts and workers to the most requests that may pass in any window."""

    name: str
    loads: Loads
    accept: Callable[[int, int, int], float]
    brief: bool = False
    """The scenario ends when all requests are sent, and runs after the others."""
    cut: bool = False
    """The hub is out of reach for 30 s meanwhile."""
    false_denials: float | None = None
    """The share of requests that may be refused although there was room."""


def everywhere(times: float) -> Loads:
    """Return loads of `times` the limit, spread over all hosts."""

    def loads(hosts: int, r: float, _: int, seconds: float) -> Iterator[Asked]:
        for host in range(hosts):
            yield Asked(host, 0, seconds, times * r / hosts)

    return loads


def attack(hosts: int, r: float, _: int, seconds: float) -> Iterator[Asked]:
    """Yield 20 times the limit at each host, as far as this machine can send it."""
    for host in range(hosts):
        yield Asked(host, 0, seconds, min(20 * r, MOST / hosts))


def burst(apart: float, at: Callable[[int], Sequence[int]]) -> Loads:
    """Return loads of 1,000 requests a second at some hosts in turn.

    Each lasts long enough to use up the limit and half as much again, and at least `seconds`.
    """

    def loads(hosts: int, r: float, limit: int, seconds: float) -> Iterator[Asked]:
        places = at(hosts)
        lasts = max(seconds, 1.5 * limit / (BURST * len(places)))
        for place, host in enumerate(places):
            yield Asked(host, place * apart, place * apart + lasts, BURST)

    return loads


def roaming(hosts: int, r: float, _: int, seconds: float) -> Iterator[Asked]:
    """Yield the requests of a client that changes its host every five seconds."""
    for step in range(int(seconds / 5)):
        yield Asked(step % hosts, step * 5, step * 5 + 5, 1.5 * r)


SCENARIOS = {
    "steady": Scenario("steady 3 L over all hosts", everywhere(3), lambda L, H, N: L + max(0.03 * L, H)),
    "attack": Scenario("attack 20 L at all hosts", attack, lambda L, H, N: L + max(0.05 * L, H + 1)),
    "burst": Scenario(
        "burst everywhere at once", burst(0, range), lambda L, H, N: (1.5 if L <= 60 else 1.15) * L, brief=True
    ),
    "waves": Scenario(
        "burst host by host, 1 s apart", burst(1, range), lambda L, H, N: (1.55 if L <= 60 else 1.15) * L, brief=True
    ),
    "flash": Scenario(
        "burst at one host", burst(0, lambda hosts: [hosts // 2]), lambda L, H, N: L + 2 * (N - 1), brief=True
    ),
    "roaming": Scenario("client moves every 5 s, 1.5 L", roaming, lambda L, H, N: 1.07 * L),
    "calm": Scenario("0.8 L, at random", everywhere(0.8), lambda L, H, N: L + max(0.03 * L, H), false_denials=0.01),
    "cut": Scenario("hub cut for 30 s at 3 L", everywhere(3), lambda L, H, N: 1.25 * L, cut=True),
    "siege": Scenario("hub cut for 30 s at 20 L", everywhere(20), lambda L, H, N: 1.30 * L, cut=True),
}


@dataclass(frozen=True)
class Part:
    """A row of the table: a scenario with a limit and a mode, played by its own customer."""

    scenario: str
    limit: int
    mode: str = "bounded"
    window: float = WINDOW

    @property
    def customer(self) -> str:
        return f"{self.scenario}-{self.mode}-{self.limit}-{self.window:g}s"

    @property
    def played(self) -> Scenario:
        return SCENARIOS[self.scenario]

    @property
    def limits(self) -> list[dict[str, str]]:
        """The customer's limits, in the form of the configuration."""
        return [{"name": self.customer, "rate": f"{self.limit}/{self.window:g}s", "sync": self.mode}]

    def accept(self, hosts: int, workers: int) -> float | None:
        """Return the most requests that may pass in any window; None without a target."""
        if self.mode == "eventual":
            return None
        if self.mode == "strict":
            return self.limit + 2 * (workers - 1)
        return self.played.accept(self.limit, hosts, workers)

    def loads(self, hosts: int, seconds: float) -> list[Asked]:
        """Return the requests for this many hosts."""
        return list(self.played.loads(hosts, self.limit / self.window, self.limit, seconds))


def parts(
    names: Sequence[str], limits: Sequence[int], modes: Sequence[str] = MODES, window: float = WINDOW
) -> list[Part]:
    """Return all combinations of these. The highest limits run in mode bounded only, unless only they are selected."""
    return [
        Part(name, limit, mode, window)
        for name in names
        for limit in limits
        for mode in modes
        if mode == "bounded" or limit <= CLOSELY_LIMITED or len(modes) == 1
    ]
