"""Faults that a load test must detect. `--inject NAME` spoils a run, and the verdict must report it.

They let readers check that a "pass" is meaningful.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import orjson

from loadtest.events import Moment
from loadtest.testbed.waiting import until
from loadtest.topology import Topology, people
from loadtest.workload import Workload

STALL_SECONDS, STALL_PERIOD_SECONDS = 0.3, 3.3
"""The length of a stall of the upstream, and the time from the start of one stall to the next."""
STOP_SECONDS, STOP_PERIOD_SECONDS = 0.2, 1.0
"""The length of a stop of a worker of the generator, and the time from one stop to the next."""


class Injected(NamedTuple):
    """A run as faults see it. `pids` are the generator's workers, once they have reported."""

    workload: Workload
    seconds: float
    topology: Topology
    pids: Callable[[], Mapping[int, int]]


class Fault(NamedTuple):
    """A fault: `settings` of an edge by workload and region, and `moments` in the run."""

    what: str
    settings: Callable[[Workload, str], Mapping[str, Any]] = lambda workload, region: {}
    slower: float = 0.0
    """The upstream's response time as a share of the p95 threshold; 0 leaves it unchanged."""
    moments: Callable[[Injected], Iterator[Moment]] = lambda run: iter(())


def get_faulty_region(workload: Workload) -> str:
    """Return the region whose edge gets the fault: the last one."""
    return [*workload.regions][-1]


def _leaking(workload: Workload, region: str) -> Mapping[str, Any]:
    return {"hub": "memory://"} if region == get_faulty_region(workload) else {}


def _half(workload: Workload, region: str) -> Mapping[str, Any]:
    if region != get_faulty_region(workload):
        return {}
    file = people(workload)
    for tier in file["tiers"].values():
        for limit in tier["limits"]:
            count, _, window = limit["rate"].partition("/")
            limit["rate"] = f"{int(count) // 2}/{window}"
    return {"tiers": file["tiers"]}


def _stalls(run: Injected) -> Iterator[Moment]:
    at = run.workload.warm_up
    while at + STALL_SECONDS < run.seconds:
        yield Moment(at, run.topology.upstream.stop, "stalled upstream")
        yield Moment(at + STALL_SECONDS, run.topology.upstream.go_on, "end of stalled upstream")
        at += STALL_PERIOD_SECONDS


def _hangs(run: Injected) -> Iterator[Moment]:
    middle = run.workload.warm_up + 0.4 * (run.seconds - run.workload.warm_up)
    yield Moment(middle, run.topology.upstream.stop, "hanging upstream")


def _lost_regions(run: Injected) -> Iterator[Moment]:
    def lose_all() -> None:
        for region in run.workload.regions:
            run.topology.lose(region)

    yield Moment(-10.0, lose_all, "nobody there")


def _starved(run: Injected) -> Iterator[Moment]:
    at = run.workload.warm_up
    while at < run.seconds:
        yield Moment(at, lambda: _stop_for(run.pids()[0], STOP_SECONDS), "starved worker 0")
        at += STOP_PERIOD_SECONDS


def _stop_for(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def _killed(run: Injected) -> Iterator[Moment]:
    middle = run.workload.warm_up + 0.3 * (run.seconds - run.workload.warm_up)

    def kill() -> None:  # Workers of a busy machine may report later than planned.
        until(lambda: 1 in run.pids(), "worker 1 has reported")
        os.kill(run.pids()[1], signal.SIGKILL)

    yield Moment(middle, kill, "killed worker 1")


def _drops(run: Injected) -> Iterator[Moment]:
    """From the middle of the run on, a collector receives the batches that acknowledges and drops them."""
    forgetful = Forgetful()

    def forget() -> None:
        forgetful.start()
        for edge in run.topology.edges.values():
            usage = edge.settings["usage"] | {"collector": f"http://127.0.0.1:{forgetful.port}"}
            edge.reload(usage=usage)

    yield Moment(run.workload.warm_up + 0.5 * (run.seconds - run.workload.warm_up), forget, "dropped batches")


class Forgetful(threading.Thread):
    """A collector that acknowledges every batch and stores none."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Acknowledge)
        self.port: int = self._server.server_address[1]

    def run(self) -> None:
        self._server.serve_forever()


class _Acknowledge(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = orjson.dumps({"watermark": int(self.headers.get("Edge-Seq") or 0)})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


FAULTS = {
    "slow-upstream": Fault("the upstream takes half as long again as p95 may", slower=1.5),
    "stalls": Fault("the upstream stands still for 300 ms every 3.3 s", moments=_stalls),
    "hanging-upstream": Fault("from two fifths on the upstream answers nothing", moments=_hangs),
    "nobody": Fault("no edge is there", moments=_lost_regions),
    "leaking-limit": Fault("the last region shares its limits with nobody", settings=_leaking),
    "false-429": Fault("the last region holds customers to half their limit", settings=_half),
    "dropped-batches": Fault("from the middle on batches are acknowledged and forgotten", moments=_drops),
    "starved-generator": Fault("a worker of the generator is stopped for 200 ms of each second", moments=_starved),
    "lost-worker": Fault("a worker of the generator is killed; needs two", moments=_killed),
}
