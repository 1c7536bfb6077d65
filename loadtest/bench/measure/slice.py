"""One slice: some seconds of one scenario at one peer, and whether its answers were right."""

from dataclasses import dataclass
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
    """CPU in µs a request: `cpu` of what serves, `system` the kernel's part of it, `control` of what does not serve.

    `busy` is the share of the time in which it ran, `waited` in which it waited for others on its core.
    `wrong` says why the slice does not count, empty where it does.
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
        """The part of `cpu` that is not the kernel's."""
        return self.cpu - self.system

    @property
    def disturbed(self) -> bool:
        """Something else had its core: the figure may be too high."""
        return self.waited > _WAITED_AT_MOST

    @property
    def idle(self) -> bool:
        """The load did not keep it busy: it may be too high too, as a proxy does more at a time when it is busy."""
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
    """Run the load and read off what it cost. Raises RuntimeError or ValueError where that cannot be said."""
    workers, control = running.workers(), running.control
    seen = upstream.seen()
    before, control_before = cpu.of_processes(workers), cpu.of_processes(control)
    load = wrk.run(scenario, running.port, seconds=seconds, connections=connections, core=core, folder=folder)
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
    """What was not right about the answers; empty where all was. `seen` is what the upstream counted."""
    if load.failed:
        return f"{load.failed} connections failed"
    passed = load.requests - load.refused
    if scenario.passes and load.refused:
        return f"{load.refused} of {load.requests} were refused"
    if not scenario.passes and passed > scenario.customer.limit:
        return f"{passed} passed of a limit of {scenario.customer.limit}"
    # When wrk stops, each connection may have a request under way that it does not count; where the machine is
    # disturbed, such a request of the slice before may arrive in this one.
    if not passed <= seen <= passed + 2 * connections:
        return f"the upstream saw {seen} requests of {passed} that were answered"
    # wrk counts bytes as they come, those of answers that it does not see the end of too.
    least, most = scenario.answer * load.requests, (scenario.answer + _HEAD_AT_MOST) * (load.requests + connections)
    if scenario.passes and not least < load.bytes <= most:
        return f"{load.bytes} bytes of {load.requests} answers with {scenario.answer} each and a head"
    return ""
