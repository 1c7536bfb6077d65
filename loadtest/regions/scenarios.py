"""The scenarios of docs/design/limits.md#what-is-accepted: what is asked of whom, and the most that may pass of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MOST = 3400.0
"""Requests a second of one customer: what two cores carry beside everything else."""
BURST = 1000.0
"""Requests a second of a burst, at each host."""
BURST_SECONDS = 1.0
"""For which they come at least."""
WINDOW = 60.0
"""Seconds that each limit is for, unless said otherwise."""
CUT = 30.0
"""Seconds for which the hub is cut off."""

MODES = ("bounded", "eventual", "strict")
CLOSELY_LIMITED = 600
"""The highest limit for which there are targets with `eventual` and `strict`."""


class Asked(NamedTuple):
    """Requests at a host (by number), from one moment to another, so many a second."""

    host: int
    begin: float
    end: float
    rate: float


Loads = Callable[[int, float, int, float], Iterator[Asked]]
"""Of so many hosts, at a rate of so many a second, a limit, and for so many seconds; a burst for as many at least."""


@dataclass(frozen=True)
class Scenario:
    """`accept`: the most that may pass in any window, of L, hosts and workers."""

    name: str
    loads: Loads
    accept: Callable[[int, int, int], float]
    brief: bool = False
    """It is over once everything was asked, and takes its turn."""
    cut: bool = False
    """Meanwhile nobody reaches the hub for 30 s."""
    false_denials: float | None = None
    """The part of the requests that may be refused although there was room."""


def everywhere(times: float) -> Loads:
    """`times` the limit over all hosts together."""

    def loads(hosts: int, r: float, _: int, seconds: float) -> Iterator[Asked]:
        for host in range(hosts):
            yield Asked(host, 0, seconds, times * r / hosts)

    return loads


def attack(hosts: int, r: float, _: int, seconds: float) -> Iterator[Asked]:
    """20 times the limit at each host, as far as this machine gives that."""
    for host in range(hosts):
        yield Asked(host, 0, seconds, min(20 * r, MOST / hosts))


def burst(apart: float, at: Callable[[int], Sequence[int]]) -> Loads:
    """1,000 a second at some hosts, one after the other, for long enough to use the limit up by half as much again, and
    for so many seconds at least."""

    def loads(hosts: int, r: float, limit: int, seconds: float) -> Iterator[Asked]:
        places = at(hosts)
        lasts = max(seconds, 1.5 * limit / (BURST * len(places)))
        for place, host in enumerate(places):
            yield Asked(host, place * apart, place * apart + lasts, BURST)

    return loads


def roaming(hosts: int, r: float, _: int, seconds: float) -> Iterator[Asked]:
    """A client that moves on every five seconds."""
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
    """One row of the table: a scenario with a limit and a mode, played by a customer of its own."""

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
        """Of the customer, as the configuration has them."""
        return [{"name": self.customer, "rate": f"{self.limit}/{self.window:g}s", "sync": self.mode}]

    def accept(self, hosts: int, workers: int) -> float | None:
        """The most that may pass in any window; None where there is no target."""
        if self.mode == "eventual":
            return None
        if self.mode == "strict":
            return self.limit + 2 * (workers - 1)
        return self.played.accept(self.limit, hosts, workers)

    def loads(self, hosts: int, seconds: float) -> list[Asked]:
        """What is asked, of so many hosts."""
        return list(self.played.loads(hosts, self.limit / self.window, self.limit, seconds))


def parts(
    names: Sequence[str], limits: Sequence[int], modes: Sequence[str] = MODES, window: float = WINDOW
) -> list[Part]:
    """All of these with each other; the highest limits in mode bounded only, unless nothing else is asked for."""
    return [
        Part(name, limit, mode, window)
        for name in names
        for limit in limits
        for mode in modes
        if mode == "bounded" or limit <= CLOSELY_LIMITED or len(modes) == 1
    ]
