"""What edgeproxy may cost, and whether it did: the budgets of the design in a literal table."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

from edgeproxy.base.build import COMPILED
from loadtest.bench.measure.crowd import parse_crowd
from loadtest.bench.measure.flood import compute_instructions_ratio
from loadtest.bench.measure.latency import against
from loadtest.bench.peers import REFERENCE
from loadtest.bench.peers.edge import Edge
from loadtest.bench.peers.handmade import Handmade
from loadtest.bench.peers.haproxy import HAProxy
from loadtest.bench.report.http2 import find_verdicts
from loadtest.bench.report.results import Results
from loadtest.bench.report.summary import proportion

_EDGE = Edge.name
_TO_REFERENCE = {"small": (1.05, 1.15), "rich": (1.05, 1.15), "vary": (1.25, 1.5), "429": (1.2, 1.5), "64k": (1.0, 1.0)}
"""CPU in proportion to the reference, on a PGO build and on a plain one."""
_CROWD_SIZE = 1000
"""From so many customers on, a crowd has budgets."""
_CROWD_TO_REFERENCE, _NEW_PATHS_TO_REFERENCE = 1.0, (1.1, 0.9)
_COMPILED_CROWD_TO_HAPROXY = 1.0
_FIRST_TO_LATER = 2.0
_WORKERS_TO_ONE = {16: 1.05, 64: 1.10}
"""Instructions in proportion to those with one worker."""
_TO_HANDMADE = 0.2
_REFUSED_TO_FORWARDED = 0.6
_ADDED_MS = {"p50": 0.2, "p99": 1.0}
_ADDED_TO_REFERENCE = 1.0
_WORKER_BYTES = 60 << 20
_CROWD_BYTES = {100_000: 250 << 20}
"""Memory of worker and supervisor by number of customers: their PSS, as RSS counts shared pages twice."""
_CONNECTION_BYTES = 8 << 10
_BESIDE_FLOOD = 1.05
_DECISION_US = 0.5
_NEW_CELL_US = 4.0
_STRANGER_US = 12.0


@dataclass(frozen=True)
class Verdict:
    what: str
    budget: float
    found: float

    @property
    def kept(self) -> bool:
        return self.found <= self.budget


def verdicts(results: Results) -> list[Verdict]:
    """One for each budget of which something was measured; of latencies that were all disturbed only ratios."""
    return [
        *_cpu(results),
        *_crowds(results),
        *_workers(results),
        *_latency(results),
        *_memory(results),
        *_decision(results),
        *_window(results),
        *_http2(results),
        *_floods(results),
    ]


def _cpu(results: Results) -> Iterator[Verdict]:
    plain = not results.python.pgo
    for scenario, budgets in _TO_REFERENCE.items():
        found = proportion(results.slices, (_EDGE, scenario), (REFERENCE, scenario))
        if found is not None:
            yield Verdict(f"CPU, {scenario}, × {REFERENCE}", budgets[plain], found)
    found = proportion(results.slices, (_EDGE, "small"), (Handmade.name, "small"))
    if found is not None:
        yield Verdict(f"CPU, small, × {Handmade.name}", _TO_HANDMADE, found)
    found = proportion(results.slices, (_EDGE, "429"), (_EDGE, "small"))
    if found is not None:
        yield Verdict("CPU, 429, × small", _REFUSED_TO_FORWARDED, found)


def _crowds(results: Results) -> Iterator[Verdict]:
    """New paths, and plain Python, are compared with the reference, and the compiled build with HAProxy."""
    is_compiled = results.python.build == COMPILED
    for name in dict.fromkeys(each.scenario for each in results.slices):
        crowd = parse_crowd(name)
        if crowd is None or crowd.customers < _CROWD_SIZE:
            continue
        to, budget = (REFERENCE, name), _CROWD_TO_REFERENCE
        if crowd.is_again:
            continue
        if crowd.is_first:
            to, budget = (_EDGE, replace(crowd, is_first=False, is_again=True).name), _FIRST_TO_LATER
        elif crowd.has_new_paths:
            budget = _NEW_PATHS_TO_REFERENCE[is_compiled]
        elif is_compiled:
            to, budget = (HAProxy.name, name), _COMPILED_CROWD_TO_HAPROXY
        ratio = proportion(results.slices, (_EDGE, name), to)
        if ratio is not None:
            yield Verdict(f"CPU, {name}, × {to[1] if crowd.is_first else to[0]}", budget, ratio)


def _workers(results: Results) -> Iterator[Verdict]:
    for scenario, counts in results.workers.items():
        for workers, budget in _WORKERS_TO_ONE.items():
            yield Verdict(f"instructions, {scenario}, {workers} workers × one", budget, counts[workers] / counts[1])


def _latency(results: Results) -> Iterator[Verdict]:
    for quantile in _ADDED_MS:
        found = against(results.latencies, _EDGE, REFERENCE, quantile)
        if found is not None:
            yield Verdict(f"added latency {quantile}, × {REFERENCE}", _ADDED_TO_REFERENCE, found)
    own = [each for each in results.latencies if each.peer == _EDGE and not each.disturbed]
    if own:
        for quantile, budget in _ADDED_MS.items():
            yield Verdict(f"added latency {quantile}, ms", budget, median(each.added(quantile) for each in own))


def _memory(results: Results) -> Iterator[Verdict]:
    for each in results.memory:
        if each.peer == _EDGE:
            yield Verdict("memory of an idle worker, MiB", _WORKER_BYTES / 2**20, each.idle.rss / 2**20)
            yield Verdict("memory of an idle connection, KiB", _CONNECTION_BYTES / 2**10, each.connection / 2**10)
    for crowd in results.crowd_memory:
        if crowd.peer == _EDGE and crowd.customers in _CROWD_BYTES:
            what = f"memory of worker and supervisor, {crowd.customers:,} customers, PSS, MiB"
            yield Verdict(what, _CROWD_BYTES[crowd.customers] / 2**20, crowd.together.pss / 2**20)


def _decision(results: Results) -> Iterator[Verdict]:
    for each in results.decisions:
        if each.budgeted:
            yield Verdict(f"{each.what}, µs", _DECISION_US, each.microseconds)


def _http2(results: Results) -> Iterator[Verdict]:
    for what, budget, found in find_verdicts(results.http2):
        yield Verdict(what, budget, found)


def _floods(results: Results) -> Iterator[Verdict]:
    what = "a request beside a flood of invented keys"
    floods = [each for each in results.floods if each.peer == Edge.name]
    if floods:
        yield Verdict(f"CPU, {what}, × without", _BESIDE_FLOOD, median(each.to_alone for each in floods))
        to_wrong = median(each.to_wrong for each in floods)
        yield Verdict(f"CPU, {what}, × beside one of a wrong key", _BESIDE_FLOOD, to_wrong)
    counted = compute_instructions_ratio(results.flood_instructions)
    if counted is not None:
        yield Verdict(f"instructions, {what}, × without", _BESIDE_FLOOD, counted)


def _window(results: Results) -> Iterator[Verdict]:
    for each in results.policies:
        if each.what == "sliding_window":
            if each.new_cell is not None:
                yield Verdict("first decision in a new cell, µs", _NEW_CELL_US, each.new_cell)
            yield Verdict("first sight of a subject, µs", _STRANGER_US, each.stranger)
