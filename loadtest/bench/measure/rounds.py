"""All peers in turn, scenario by scenario, round by round: what disturbs the machine disturbs all of them.

Each round starts every peer anew, since two starts of one program can differ by more than the effect under test.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby, product

from loadtest.bench.measure.crowd import Crowd, list_crowds
from loadtest.bench.measure.slice import Slice, take
from loadtest.bench.peers.edge import Edge, OtherVersion
from loadtest.bench.peers.haproxy import HAProxy
from loadtest.bench.peers.nginx import Lua
from loadtest.bench.peers.peer import Peer, Running
from loadtest.bench.scenario import SCENARIOS, Scenario
from loadtest.bench.stage import Stage

_WARM_UP = SCENARIOS["small"]


CROWD_PEERS = (Edge.name, Lua.name, HAProxy.name)
"""The peers that are set up with many customers; another version of edgeproxy is one more."""


def list_crowd_scenarios(customers: Sequence[int]) -> Iterator[tuple[Crowd, list[Scenario]]]:
    """Yield the scenarios of many customers, with the crowd that a start of the peers serves."""
    for crowd, same in groupby(list_crowds(customers), lambda crowd: Crowd(crowd.customers, crowd.routes)):
        yield crowd, [replace(SCENARIOS[each.kind], name=each.name, crowd=each) for each in same]


def run_crowds(stage: Stage, peers: Sequence[Peer], say: Callable[[str], None]) -> tuple[list[Slice], dict[str, str]]:
    """Return the slices of many customers, and by name why a peer was left out."""
    return _run(stage, list_crowd_peers(peers), say, list(list_crowd_scenarios(stage.options.customers)))


def list_crowd_peers(peers: Sequence[Peer]) -> list[Peer]:
    """Return the peers that serve many customers."""
    return [peer for peer in peers if peer.name in CROWD_PEERS or isinstance(peer, OtherVersion)]


def run(stage: Stage, peers: Sequence[Peer], say: Callable[[str], None]) -> tuple[list[Slice], dict[str, str]]:
    """The slices, and by name why a peer was left out of the rounds that followed."""
    return _run(stage, peers, say, [(None, [SCENARIOS[name] for name in stage.options.scenarios])])


def _run(
    stage: Stage,
    peers: Sequence[Peer],
    say: Callable[[str], None],
    groups: Sequence[tuple[Crowd | None, Sequence[Scenario]]],
) -> tuple[list[Slice], dict[str, str]]:
    """Take the slices of each group of scenarios. The peers are started anew for each group."""
    slices: list[Slice] = []
    failures: dict[str, str] = {}
    for number, (crowd, scenarios) in product(range(1, stage.options.rounds + 1), groups):
        say(f"round {number} of {stage.options.rounds}{'' if crowd is None else f', {crowd.name}'}")
        with ExitStack() as stack:
            serving = _start(stage, stack, [peer for peer in peers if peer.name not in failures], failures, crowd)
            for scenario in scenarios:
                # The order changes from round to round: whoever comes second meets a warmer machine.
                for peer, running in list(serving.items())[:: 1 if number % 2 else -1]:
                    if not scenario.passes and not peer.does_job:
                        continue
                    try:
                        slices.append(_slice(stage, number, peer, running, scenario))
                    except (OSError, RuntimeError, ValueError) as error:
                        failures[peer.name] = f"round {number}, {scenario.name}: {error}"
                        del serving[peer]
    return slices, failures


def _start(
    stage: Stage, stack: ExitStack, peers: Sequence[Peer], failures: dict[str, str], crowd: Crowd | None
) -> dict[Peer, Running]:
    serving = {}
    for peer in peers:
        try:
            serving[peer] = stack.enter_context(stage.serving(peer, crowd=crowd))
            _slice(stage, 0, peer, serving[peer], _WARM_UP, seconds=1)
        except (OSError, RuntimeError, ValueError) as error:
            failures[peer.name] = f"start: {error}"
            serving.pop(peer, None)
    return serving


def _slice(
    stage: Stage, number: int, peer: Peer, running: Running, scenario: Scenario, seconds: int | None = None
) -> Slice:
    options = stage.options
    return take(
        number,
        peer.name,
        running,
        scenario,
        stage.upstream,
        seconds=seconds or options.seconds,
        connections=options.connections,
        core=options.load_core,
        folder=stage.folder,
    )
