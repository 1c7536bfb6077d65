"""Regular customers beside a flood of invented keys.

The flood costs CPU itself. So it is measured alone too, and its own cost is subtracted: the rest is what regular
requests take. They take more beside any other kind of request, as these share the processor's caches. So a flood of one
wrong key is measured too, which empties no cache of the edge.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loadtest.bench.load import crowd_client
from loadtest.bench.measure import cpu
from loadtest.bench.measure.crowd import FLOOD, Crowd, format_request
from loadtest.bench.measure.latency import pace
from loadtest.bench.peers.peer import Peer, Running
from loadtest.bench.stage import Stage
from loadtest.instructions import count_per_exchange

CUSTOMERS = 5000
CONNECTIONS = 32
"""Connections of regular customers, and of the flood."""
RATE_FRACTION = 0.2
"""The rate of regular requests for latencies, of the highest rate. A flood has an equal rate."""
QUANTILES = ("p50", "p95", "p99")
INVENTED, WRONG = FLOODS = ("invented", "wrong")
"""A flood with another key in each request, and one with a single key. No customer has these keys."""
LOADS = ("alone", *FLOODS)
"""The loads with latencies of regular requests: without a flood, and beside each."""


@dataclass(frozen=True)
class FloodCost:
    """The cost in one round: µs of CPU a request, and latencies in ms by load and quantile."""

    peer: str
    round: int
    alone: float
    """A regular request without a flood."""
    flood: Mapping[str, float]
    """A request of each flood, without regular ones."""
    beside: Mapping[str, float]
    """A regular request beside each flood, whose own cost is subtracted."""
    waited: float
    """The largest share of a slice that the worker waited for its core."""
    latencies: Mapping[str, Mapping[str, float]]

    @property
    def to_alone(self) -> float:
        """The cost of a regular request beside invented keys, in proportion to one without a flood."""
        return self.beside[INVENTED] / self.alone

    @property
    def to_wrong(self) -> float:
        """The cost of a regular request beside invented keys, in proportion to one beside the wrong key."""
        return self.beside[INVENTED] / self.beside[WRONG]


def run(stage: Stage, peers: Sequence[Peer], say: Callable[[str], None]) -> tuple[list[FloodCost], dict[str, str]]:
    """Return the costs of peers that serve many customers, and why some could not be measured."""
    costs: list[FloodCost] = []
    failures: dict[str, str] = {}
    crowd = Crowd(CUSTOMERS)
    for number in range(1, stage.options.rounds + 1):
        say(f"a flood of invented keys, round {number} of {stage.options.rounds}")
        for peer in peers:
            if peer.name not in failures:
                try:
                    with stage.serving(peer, crowd=crowd) as running:
                        costs.append(_measure(stage, peer.name, number, running, crowd))
                except (OSError, RuntimeError, ValueError) as error:
                    failures[peer.name] = f"round {number}: {error}"
    return costs, {f"flood, {name}": why for name, why in failures.items()}


def count_instructions(stage: Stage, say: Callable[[str], None]) -> tuple[dict[str, int], dict[str, str]]:
    """Return the instructions of an exchange of edgeproxy by scenario, and why they could not be counted."""
    say("instructions beside a flood of invented keys")
    counts: dict[str, int] = {}
    try:
        for kind in _SCENARIOS:
            counts[kind.name] = count_per_exchange(str(stage.options.python), kind.name)
    except FileNotFoundError:
        return counts, {"instructions beside a flood": "not here: install valgrind"}
    return counts, {}


_SCENARIOS = (Crowd(CUSTOMERS), Crowd(CUSTOMERS, is_flood=True), Crowd(CUSTOMERS, is_beside_flood=True))


def compute_instructions_ratio(counts: Mapping[str, int]) -> float | None:
    """Return the instructions of a regular request beside a flood, in proportion to one without it."""
    if any(kind.name not in counts for kind in _SCENARIOS):
        return None
    alone, flood, both = (counts[kind.name] for kind in _SCENARIOS)
    return (2 * both - flood) / alone  # An exchange beside the flood is a regular one or one of the flood.


def _measure(stage: Stage, peer: str, number: int, running: Running, crowd: Crowd) -> FloodCost:
    core = stage.options.load_core
    path = f"/{crowd.list_route_names()[0]}/{crowd.kind}"
    crowd_client.run(running.port, path, customers=CUSTOMERS, connections=8, seconds=1, core=core, in_turn=True)
    waited: list[float] = []

    def take(regular: int, flood: int, kind: str) -> tuple[float, int, int]:
        """Return the µs of CPU, and the requests of customers and of the flood, over so many connections of each."""
        before = cpu.of_processes(running.workers())
        own, others = crowd_client.run(
            running.port,
            path,
            customers=CUSTOMERS,
            connections=regular,
            invented=flood,
            seconds=stage.options.seconds,
            core=core,
            one_key=kind == WRONG,
        )
        spent = cpu.between(before, cpu.of_processes(running.workers()))
        waited.append(spent.waited / 1000 / own.microseconds)
        if own.refused or others.refused != others.requests:
            raise RuntimeError(f"{own.refused} requests were refused, {others.refused} of a flood of {others.requests}")
        return spent.ran / 1000, own.requests, others.requests

    microseconds, requests, _ = take(2 * CONNECTIONS, 0, INVENTED)
    floods, beside = {}, {}
    for kind in FLOODS[:: 1 if number % 2 else -1]:
        spent, _, count = take(0, 2 * CONNECTIONS, kind)
        floods[kind] = spent / count
        spent, own, count = take(CONNECTIONS, CONNECTIONS, kind)
        beside[kind] = (spent - floods[kind] * count) / own
    rate = requests / stage.options.seconds * RATE_FRACTION
    return FloodCost(
        peer=peer,
        round=number,
        alone=microseconds / requests,
        flood=floods,
        beside=beside,
        waited=max(waited),
        latencies=_measure_latencies(stage, running, path, rate),
    )


def _measure_latencies(stage: Stage, running: Running, path: str, rate: float) -> dict[str, dict[str, float]]:
    regular = [format_request(number, path).decode() for number in range(CUSTOMERS)]
    begin = CUSTOMERS + (1 << 20)
    invented = [format_request(number, path).decode() for number in range(begin, begin + 2 * FLOOD)]
    latencies = {}
    for load, refused in zip(LOADS, ((), invented, invented[:1]), strict=True):
        result = pace(stage, running.port, rate * (2 if refused else 1), regular, refused)
        latencies[load] = {quantile: getattr(result, quantile) * 1000 for quantile in QUANTILES}
    return latencies
