"""One slice: some seconds of one scenario at one peer, with a check of the answers."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtest.bench.load import wrk
from loadtest.bench.measure import cpu
from loadtest.bench.peers.peer import Running
from loadtest.bench.scenario import Scenario
from loadtest.bench.upstream.fixed import Upstream

_HEAD_AT_MOST = 2048
_BUSY_AT_LEAST = 0.9
_WAITED_AT_MOST = 0.03


@dataclass(frozen=True)
class Slice:
    """CPU in µs per request: `cpu` of the serving processes, `system` the kernel's part, `control` of other processes.

    `busy` is the share of time that the peer ran, `waited` the share that it waited for its core. `wrong` is the reason
    why the slice does not count, or empty.
    """

    round: int
    peer: str
    scenario: str
    requests: int
    rate: float
    cpu: float
    control: float
    busy: float
    waited: float
    wrong: str
    system: float = 0.0

    @property
    def user(self) -> float:
        """The part of `cpu` outside the kernel."""
        return self.cpu - self.system

    @property
    def disturbed(self) -> bool:
        """Other work used its core: the figure may be too high."""
        return self.waited > _WAITED_AT_MOST

    @property
    def idle(self) -> bool:
        """The load did not keep it busy. The figure may be too high, because a busy proxy handles more at once."""
        return self.busy < _BUSY_AT_LEAST


def take(
    round_: int,
    name: str,
    running: Running,
    scenario: Scenario,
    upstream: Upstream,
    *,
    seconds: int,
    connections: int,
    core: int,
    folder: Path,
) -> Slice:
    """Run the load and measure its cost. Raises RuntimeError or ValueError if the cost is unknown."""
    workers, control = running.workers(), running.control
    send = partial(wrk.run, scenario, running.port, seconds=seconds, connections=connections, core=core, folder=folder)
    if scenario.crowd is not None and scenario.crowd.is_first:
        send(warms_up=True)
        upstream.settled()
    seen = upstream.seen()
    before, control_before = cpu.of_processes(workers), cpu.of_processes(control)
    load = send()
    seen = upstream.settled() - seen
    spent = cpu.between(before, cpu.of_processes(running.workers()))
    apart = cpu.between(control_before, cpu.of_processes(control))
    if not spent.ran or not load.requests:
        raise RuntimeError("it answered nothing")
    nanoseconds = load.microseconds * 1000
    return Slice(
        round=round_,
        peer=name,
        scenario=scenario.name,
        requests=load.requests,
        rate=load.requests / load.microseconds * 1e6,
        cpu=spent.ran / 1000 / load.requests,
        control=apart.ran / 1000 / load.requests,
        busy=(spent.ran + apart.ran) / nanoseconds,
        waited=spent.waited / nanoseconds,
        wrong=fault(scenario, load, seen, connections),
        system=spent.ran * spent.system_share / 1000 / load.requests,
    )


def fault(scenario: Scenario, load: wrk.Load, seen: int, connections: int) -> str:
    """Return the fault of the answers, or an empty text. `seen` is the upstream's count."""
    if load.failed:
        return f"{load.failed} connections failed"
    passed = load.requests - load.refused
    if scenario.passes and load.refused:
        return f"{load.refused} of {load.requests} were refused"
    if not scenario.passes and passed > scenario.customer.limit:
        return f"{passed} passed of a limit of {scenario.customer.limit}"
    # When wrk stops, each connection may have a request under way that wrk does not count. On a disturbed machine such
    # a request of the slice before may arrive in this one.
    if not passed <= seen <= passed + 2 * connections:
        return f"the upstream saw {seen} requests of {passed} that were answered"
    # wrk counts bytes as they arrive, also of answers whose end it does not see.
    least, most = scenario.answer * load.requests, (scenario.answer + _HEAD_AT_MOST) * (load.requests + connections)
    if scenario.passes and not least < load.bytes <= most:
        return f"{load.bytes} bytes of {load.requests} answers with {scenario.answer} each and a head"
    return ""
