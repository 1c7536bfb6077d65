"""All peers in turn, scenario by scenario, round by round: what disturbs the machine disturbs all of them.

Each round starts every peer anew, since two starts of one program can differ by more than what is looked for.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from loadtest.bench.measure.slice import Slice, take
from loadtest.bench.peers.peer import Peer, Running
from loadtest.bench.scenario import SCENARIOS, Scenario
from loadtest.bench.stage import Stage

_WARM_UP = SCENARIOS["small"]


def run(stage: Stage, peers: Sequence[Peer], say: Callable[[str], None]) -> tuple[list[Slice], dict[str, str]]:
    """The slices, and by name why a peer was left out of the rounds that followed."""
    slices: list[Slice] = []
    failures: dict[str, str] = {}
    for number in range(1, stage.options.rounds + 1):
        say(f"round {number} of {stage.options.rounds}")
        with ExitStack() as stack:
            serving = _start(stage, stack, [peer for peer in peers if peer.name not in failures], failures)
            for name in stage.options.scenarios:
                # The order changes from round to round: whoever comes second meets a warmer machine.
                for peer, running in list(serving.items())[:: 1 if number % 2 else -1]:
                    if not SCENARIOS[name].passes and not peer.does_job:
                        continue
                    try:
                        slices.append(_slice(stage, number, peer, running, SCENARIOS[name]))
                    except (OSError, RuntimeError, ValueError) as error:
                        failures[peer.name] = f"round {number}, {name}: {error}"
                        del serving[peer]
    return slices, failures


def _start(stage: Stage, stack: ExitStack, peers: Sequence[Peer], failures: dict[str, str]) -> dict[Peer, Running]:
    serving = {}
    for peer in peers:
        try:
            serving[peer] = stack.enter_context(stage.serving(peer))
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
