"""The latency of a request with a known limit: with a near, distant or unreachable hub, and without a hub."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles
from time import monotonic
from typing import NamedTuple

from loadtest.regions.load import Account, Clients, Load, sleep_until
from loadtest.regions.world import World
from loadtest.testbed.edge import Edge

HUBS = {"hub-near": 0.0, "hub-at-150-ms": 0.150, "hub-cut-off": 0.150}
"""By region, seconds of a round trip to the hub. The last one is cut off before the measurement."""
ALONE = "memory://"
CUSTOMERS = 20
LIMITS = {"rate": "600/20s"}
"""The limit of each customer. Some 60 % of it are used, a third of that in each region with a hub."""
RATE = 20.0
"""Requests a second of a customer in the region whose turn it is."""
QUIET = 1.0
"""Requests a second in all other regions, so that no limit is idle."""
TURN = 2.0
"""Seconds of a turn."""
WARMING = 3
"""Rounds of turns until the windows are full."""
PERCENTILES = {"p50": 49, "p95": 94, "p99": 98}


class Spread(NamedTuple):
    """A figure of all rounds: median, minimum and maximum."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> "Spread":
        return cls(median(rounds), min(rounds), max(rounds))

    @property
    def width(self) -> float:
        return self.most - self.least


class Measured(NamedTuple):
    """One setting: latencies in seconds by percentile, and CPU seconds of its workers per request."""

    latencies: Mapping[str, Spread]
    cpu: Spread
    answers: Mapping[str, int]


def measure(folder: Path, rounds: int, seed: object) -> dict[str, Measured]:
    """Measure all settings in turn, `rounds` times. Returns results by setting."""
    customers = [f"warm-{number}" for number in range(CUSTOMERS)]
    with World(folder, {name: [LIMITS | {"name": name}] for name in customers}, regions=HUBS, seed=seed) as world:
        alone = world.edge(ALONE.partition(":")[0], hub=ALONE)
        with closing(alone):
            alone.begin()
            world.ready(alone, hosts=None)
            edges = {name: region.edge for name, region in world.regions.items()} | {ALONE: alone}
            return _measure(world, edges, customers, rounds, seed)


def _measure(
    world: World, edges: Mapping[str, Edge], customers: Sequence[str], rounds: int, seed: object
) -> dict[str, Measured]:
    turns = [(turn, name) for turn in range(WARMING + rounds) for name in edges]
    end = TURN * len(turns)
    loads = []
    for customer in customers:
        loads += [Load(customer, edge.port, 0.0, end, QUIET, "others") for edge in edges.values()]
        for place, (turn, name) in enumerate(turns):
            began = TURN * place
            loads.append(Load(customer, edges[name].port, began, began + TURN, RATE, f"{turn} {name}"))
    workers = {name: edge.worker_pids() for name, edge in edges.items()}
    begin = monotonic() + 2.0
    clients = Clients(world.folder, loads, begin, [f"{turn} {name}" for turn, name in turns], seed)
    used: dict[tuple[int, str], float] = {}
    for place, (turn, name) in enumerate(turns):
        if (turn, place % len(edges)) == (1, 0):
            world["hub-cut-off"].link.hole()
        sleep_until(begin + TURN * place)
        before = cpu(workers[name])
        sleep_until(begin + TURN * (place + 1))
        used[turn, name] = cpu(workers[name]) - before
    accounts = clients.accounts()
    return {name: _of(name, rounds, accounts, used) for name in edges}


def _of(name: str, rounds: int, accounts: Mapping[str, Account], used: Mapping[tuple[int, str], float]) -> Measured:
    measured = range(WARMING, WARMING + rounds)
    by_round = [quantiles(accounts[f"{turn} {name}"].took, n=100, method="inclusive") for turn in measured]
    latencies = {label: Spread.of([one[at] for one in by_round]) for label, at in PERCENTILES.items()}
    # A fourth of the requests elsewhere are its own too; they are few.
    asked = {turn: accounts[f"{turn} {name}"].asked + CUSTOMERS * QUIET * TURN for turn in measured}
    answers: dict[str, int] = {}
    for turn in measured:
        for status, count in accounts[f"{turn} {name}"].answers.items():
            answers[status] = answers.get(status, 0) + count
    return Measured(latencies, Spread.of([used[turn, name] / asked[turn] for turn in measured]), answers)


def cpu(pids: Sequence[int]) -> float:
    """Return the CPU seconds of these processes, all threads of each."""
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def faults(measured: Mapping[str, Measured]) -> list[str]:
    """Return a sentence for each setting with a refusal, or with a larger difference by the hub than among rounds."""
    said = []
    for name, one in measured.items():
        if set(one.answers) != {"200"}:
            said.append(f"{name}: answers {one.answers}")
    for label in PERCENTILES:
        noise = max(one.latencies[label].width for one in measured.values())
        alone = measured[ALONE].latencies[label].middle
        for name, one in measured.items():
            if abs(one.latencies[label].middle - alone) > noise:
                said.append(f"{name}: {label} is not as without a hub")
    return said


def table(measured: Mapping[str, Measured], say: Callable[[str], None]) -> None:
    """Print a table."""
    say(f"{'':15}" + "".join(f"{label + ' ms':>24}" for label in PERCENTILES) + f"{'CPU µs a request':>24}")
    for name, one in measured.items():
        figures = [(one.latencies[label], 1e3) for label in PERCENTILES] + [(one.cpu, 1e6)]
        cells = [f"{s.middle * by:7.2f} ({s.least * by:.2f}–{s.most * by:.2f})" for s, by in figures]
        say(f"{name:15}" + "".join(f"{cell:>24}" for cell in cells))
