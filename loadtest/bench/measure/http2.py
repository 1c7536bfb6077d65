"""The cost of a request over HTTP/2 compared with HTTP/1.1: by streams of a connection, with and without TLS.

One load generator, h2load, sends both; of many customers it is a program of our own. Each round starts every peer anew,
and all take turns in each row.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from loadtest.bench.load import crowd_client, h2load
from loadtest.bench.load.wrk import FIRST_SECONDS, TURN_CONNECTIONS, Load
from loadtest.bench.measure import cpu
from loadtest.bench.measure.crowd import Crowd
from loadtest.bench.measure.slice import fault
from loadtest.bench.measure.tls import create_certificate
from loadtest.bench.peers.peer import Peer, Running
from loadtest.bench.scenario import SCENARIOS
from loadtest.bench.stage import Stage

WAITED_FRACTION_MAX: Final = 0.03
"""The accepted share of a slice that a peer waited for its core."""


@dataclass(frozen=True)
class Row:
    """A kind of load: connections, and streams of each; no streams: HTTP/1.1."""

    name: str
    scenario: str
    connections: int
    streams: int


ROWS: Final = (
    Row("HTTP/1.1", "small", 64, 0),
    Row("1 stream", "small", 64, 1),
    Row("10 streams", "small", 8, 10),
    Row("100 streams", "small", 4, 100),
    Row("64k, HTTP/1.1", "64k", 32, 0),
    Row("64k, 4 streams", "64k", 8, 4),
)


@dataclass(frozen=True)
class Http2Cost:
    """CPU in µs a request of one peer in one row of one round. `wrong` says why it does not count, if so."""

    round: int
    peer: str
    row: str
    secure: bool
    cpu: float
    waited: float
    wrong: str
    customers: int = 1

    @property
    def disturbed(self) -> bool:
        """Return whether other work used its core."""
        return self.waited > WAITED_FRACTION_MAX


def run_crowds(
    stage: Stage, peers: Sequence[Peer], say: Callable[[str], None]
) -> tuple[list[Http2Cost], dict[str, str]]:
    """Return the cost with each number of customers: see `run`."""
    costs: list[Http2Cost] = []
    failures: dict[str, str] = {}
    for customers in stage.options.customers:
        some, failed = run(stage, [peer for peer in peers if peer.name not in failures], say, Crowd(customers))
        costs += some
        failures.update(failed)
    return costs, failures


def run(
    stage: Stage, peers: Sequence[Peer], say: Callable[[str], None], crowd: Crowd | None = None
) -> tuple[list[Http2Cost], dict[str, str]]:
    """Return the cost of requests for each peer with HTTP/2, and by name the reason why a peer was left out."""
    costs: list[Http2Cost] = []
    failures: dict[str, str] = {}
    certificate = create_certificate(stage.folder, "ECDSA P-256")
    for number in range(1, stage.options.rounds + 1):
        say(f"HTTP/2, round {number} of {stage.options.rounds}{'' if crowd is None else f', {crowd.name}'}")
        with ExitStack() as stack:
            serving: dict[Peer, Running] = {}
            for peer in peers:
                if peer.name not in failures:
                    try:
                        running = stack.enter_context(
                            stage.serving(peer, certificate=certificate, http2=True, crowd=crowd)
                        )
                        if crowd is not None:
                            for scenario in dict.fromkeys(row.scenario for row in ROWS):
                                _send_first_requests(stage, running, crowd, scenario)
                    except (OSError, RuntimeError, ValueError) as error:
                        failures[peer.name] = f"HTTP/2, start: {error}"
                        continue
                    if running.http2_port and running.secure_port:
                        serving[peer] = running
            for secure in (False, True):
                for row in ROWS:
                    for peer, running in list(serving.items())[:: 1 if number % 2 else -1]:
                        try:
                            costs.append(_measure(stage, number, peer.name, running, row, crowd, secure=secure))
                        except (OSError, RuntimeError, ValueError) as error:
                            failures[peer.name] = f"HTTP/2, round {number}, {row.name}: {error}"
                            del serving[peer]
    return costs, failures


def _send_first_requests(stage: Stage, running: Running, crowd: Crowd, scenario: str) -> None:
    crowd_client.run(
        running.port,
        SCENARIOS[scenario].target,
        customers=crowd.customers,
        connections=TURN_CONNECTIONS,
        seconds=FIRST_SECONDS,
        core=stage.options.load_core,
        in_turn=True,
    )


def _send_load(stage: Stage, running: Running, row: Row, crowd: Crowd | None, *, secure: bool) -> Load:
    options, scenario = stage.options, SCENARIOS[row.scenario]
    http2 = row.streams > 0
    port = running.secure_port if secure else running.http2_port if http2 else running.port
    if crowd is not None:
        load, _ = crowd_client.run(
            port,
            scenario.target,
            customers=crowd.customers,
            connections=row.connections,
            streams=row.streams,
            seconds=options.seconds,
            core=options.load_core,
            secure=secure,
        )
        return load
    return h2load.run(
        scenario,
        port,
        http2=http2,
        secure=secure,
        connections=row.connections,
        streams=max(1, row.streams),
        seconds=options.seconds,
        core=options.load_core,
    )


def _measure(
    stage: Stage, number: int, name: str, running: Running, row: Row, crowd: Crowd | None, *, secure: bool
) -> Http2Cost:
    seen = stage.upstream.seen()
    before = cpu.of_processes(running.workers())
    load = _send_load(stage, running, row, crowd, secure=secure)
    seen = stage.upstream.settled() - seen
    spent = cpu.between(before, cpu.of_processes(running.workers()))
    if not load.requests:
        raise RuntimeError("it answered nothing")
    return Http2Cost(
        round=number,
        peer=name,
        row=row.name,
        secure=secure,
        cpu=spent.ran / 1000 / load.requests,
        waited=spent.waited / 1000 / load.microseconds,
        wrong=fault(SCENARIOS[row.scenario], load, seen, row.connections * max(1, row.streams)),
        customers=1 if crowd is None else crowd.customers,
    )
