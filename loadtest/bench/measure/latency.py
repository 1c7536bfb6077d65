"""Added latency at half load: one rate, first straight to the upstream and then through a peer.

All peers take turns, round by round. Each is started anew and runs at half of its own maximum rate, so a temporary
disturbance of the machine affects all of them.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from loadtest.bench.child import output
from loadtest.bench.load.paced import WARM_UP_SECONDS, Pace
from loadtest.bench.measure import cpu
from loadtest.bench.measure.slice import take
from loadtest.bench.peers.peer import Peer, Running
from loadtest.bench.scenario import SCENARIOS, SMALL_ANSWER
from loadtest.bench.stage import Stage

_PROGRAM = Path(__file__).parents[1] / "load" / "paced.py"
_WAITED_AT_MOST = 0.003
_LATE_AT_MOST_MS = 0.3
_SCENARIO = SCENARIOS["small"]


@dataclass(frozen=True)
class Latency:
    """A peer's result in one round at `rate` requests a second: `p50`, `p99` and the generator's own `late`, in ms.

    `busy` is the share of its core that the peer used, `waited` the share of the time that it waited for others.
    """

    round: int
    peer: str
    rate: float
    busy: float
    waited: float
    direct: dict[str, float]
    through: dict[str, float]
    requests: int
    """Requests through the peer."""

    @property
    def disturbed(self) -> bool:
        """The proxy or the generator lost its core so often that p99 says nothing about the proxy."""
        return self.waited > _WAITED_AT_MOST or max(self.direct["late"], self.through["late"]) > _LATE_AT_MOST_MS

    def added(self, quantile: str) -> float:
        """Return the ms over direct at `p50` or `p99`."""
        return self.through[quantile] - self.direct[quantile]


def run(stage: Stage, peers: Sequence[Peer], say: Callable[[str], None]) -> tuple[list[Latency], dict[str, str]]:
    """Return the latencies, and by name the reason why a peer left the later rounds."""
    found: list[Latency] = []
    failures: dict[str, str] = {}
    for number in range(1, stage.options.rounds + 1):
        say(f"latency, round {number} of {stage.options.rounds}")
        for peer in peers:
            if peer.name in failures:
                continue
            try:
                found.append(_turn(stage, number, peer))
            except (OSError, RuntimeError, ValueError) as error:
                failures[peer.name] = f"latency, round {number}: {error}"
    return found, failures


def undisturbed(latencies: Sequence[Latency], peer: str) -> list[Latency]:
    """Return the peer's undisturbed rounds, or all of them if none was."""
    own = [latency for latency in latencies if latency.peer == peer]
    return [latency for latency in own if not latency.disturbed] or own


def against(latencies: Sequence[Latency], peer: str, reference: str, quantile: str) -> float | None:
    """Return the peer's added latency relative to the reference in each round: the median over their common rounds."""
    added = {(latency.peer, latency.round): latency.added(quantile) for latency in latencies}
    ratios = [own / added[reference, n] for (name, n), own in added.items() if name == peer and (reference, n) in added]
    return median(ratios) if ratios else None


def _turn(stage: Stage, number: int, peer: Peer) -> Latency:
    with stage.serving(peer) as running:
        return at_rate(stage, number, peer, running, half_load(stage, peer, running))


def at_rate(stage: Stage, number: int, peer: Peer, running: Running, rate: float) -> Latency:
    """Measure the peer's added latency at this rate: straight to the upstream first, then through the peer."""
    direct = pace(stage, stage.upstream.ports[0], rate)
    before = cpu.of_processes(running.workers())
    through = pace(stage, running.port, rate)
    spent = cpu.between(before, cpu.of_processes(running.workers()))
    lasted = (through.seconds + WARM_UP_SECONDS) * 1e9
    busy, waited = spent.ran / lasted, spent.waited / lasted
    return Latency(number, peer.name, rate, busy, waited, _in_ms(direct), _in_ms(through), through.requests)


def half_load(stage: Stage, peer: Peer, running: Running) -> float:
    """Return half of the requests per second that it answers under wrk."""
    options = stage.options
    return (
        median(
            take(
                0,
                peer.name,
                running,
                _SCENARIO,
                stage.upstream,
                seconds=1,
                connections=options.connections,
                core=options.load_core,
                folder=stage.folder,
            ).rate
            for _ in range(2)
        )
        / 2
    )


def pace(
    stage: Stage, port: int, rate: float, requests: Sequence[str] = (_SCENARIO.text(),), refused: Sequence[str] = ()
) -> Pace:
    """Send requests at this rate; see `Generator`. Raises RuntimeError if an answer is wrong or missing."""
    options = stage.options
    settings: dict[str, Any] = {
        "port": port,
        "connections": options.connections,
        "requests": requests,
        "refused": refused,
        "ending": SMALL_ANSWER.decode(),
        "rate": rate,
        "seconds": 1 if options.quick else 2,
    }
    file = stage.folder / "pace.json"
    file.write_text(json.dumps(settings))
    messages = output(options.load_core, [sys.executable, _PROGRAM, file], seconds=30)
    body = Pace(**json.loads(messages))
    if body.wrong or body.unanswered:
        raise RuntimeError(f"{body.wrong} wrong and {body.unanswered} missing answers of {body.requests}")
    return body


def _in_ms(pace: Pace) -> dict[str, float]:
    return {name: value * 1000 for name, value in asdict(pace).items() if name in ("p50", "p99", "late")}
