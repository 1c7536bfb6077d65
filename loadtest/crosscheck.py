"""A comparison with other generators: ours, h2load and plain Locust, in turn, through one edge.

    python -m loadtest.crosscheck [--stall] [--rounds N]

h2load runs as many processes of one connection (rate × 0.2 s of them, five requests/s each, started evenly within an
interval), so that a request seldom waits for the previous answer. With `--stall` the upstream stops for 300 ms every
3.3 s, at equal moments of each slice. A slice holds three whole stalls: p95 lies among the requests that meet a
stall, so one stall more or less would decide it.

The exit code is 0 if p50 and p95 of ours and of h2load agree within 10 % (the median of the rounds). p99 is only
shown, because a single pause of the machine decides it.
"""

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from statistics import median
from typing import NamedTuple

from loadtest import record, schedule
from loadtest.__main__ import Generator
from loadtest.events import Moment, Timeline
from loadtest.faults import STALL_PERIOD_SECONDS, STALL_SECONDS
from loadtest.testbed.customers import key_of
from loadtest.testbed.process import Process
from loadtest.topology import Topology, Upstream
from loadtest.workload import WORKLOADS, Workload, load

WORKLOAD = WORKLOADS / "crosscheck.yaml"
EACH = 5.0
"""Requests a second of an h2load process."""
AGREE = 0.10
PERCENTILES = (50.0, 95.0, 99.0)
CUSTOMER = "free-0"


class Measured(NamedTuple):
    """A generator's measurement: seconds of each request."""

    name: str
    times: Sequence[float]


class Stalls:
    """The upstream, unchanged or stopped in the middle of each `STALL_PERIOD_SECONDS` of a slice."""

    def __init__(self, upstream: Upstream, stall: bool) -> None:
        self._upstream, self._stall = upstream, stall

    @contextmanager
    def slice(self, begin: float, seconds: float) -> Iterator[None]:
        """Run a slice that begins at this moment (Unix seconds)."""
        timeline = Timeline(list(self._moments(seconds)) if self._stall else [], begin)
        timeline.start()
        try:
            yield
        finally:
            timeline.stop()
            self._upstream.go_on()

    def _moments(self, seconds: float) -> Iterator[Moment]:
        at = (STALL_PERIOD_SECONDS - STALL_SECONDS) / 2
        while at + STALL_SECONDS < seconds:
            yield Moment(at, self._upstream.stop, "stalled upstream")
            yield Moment(at + STALL_SECONDS, self._upstream.go_on, "end of stalled upstream")
            at += STALL_PERIOD_SECONDS


def ours(folder: Path, topology: Topology, stalls: Stalls, workload: Workload, processes: int) -> Measured:
    """Run the load test's own generator."""
    folder.mkdir()
    with Generator(folder, processes, None, lambda *_: None) as generator:
        begin = generator.begin(
            workload=str(WORKLOAD), edges=",".join(f"{region}={url}" for region, url in topology.urls.items())
        )
        length = schedule.length(workload.phases())
        with stalls.slice(begin + workload.warm_up, length - workload.warm_up):
            generator.wait(begin + length + 30 - time.time())
        rows = record.unpacked(generator.rows())
        times = [row.response for row in rows if row.due >= workload.warm_up and row.status == 200]
    return Measured(f"ours, {processes} worker{'s' * (processes > 1)}", times)


def h2load(folder: Path, topology: Topology, stalls: Stalls, rate: float, seconds: float) -> Measured:
    """Run h2load processes, whose logs list each request."""
    folder.mkdir()
    (url,) = topology.urls.values()
    number = round(rate / EACH)
    begin = time.time() + 0.5
    times = []
    with stalls.slice(begin, seconds):
        started = []
        for index in range(number):
            time.sleep(max(0.0, begin + index / EACH / number - time.time()))
            command = [
                str(shutil.which("h2load")),
                "--h1",
                "-c1",
                "-m1",
                f"--rps={EACH:g}",
                f"-D{1000 * seconds:.0f}ms",
            ]
            command += [f"--log-file={folder}/{index}.log", "-H", f"X-API-Key: {key_of(CUSTOMER)}", f"{url}/v1/x"]
            started.append(Process(command, folder / f"{index}.out"))
        for process in started:
            process.wait(seconds + 20)
    for index in range(number):
        for line in (folder / f"{index}.log").read_text().splitlines():
            _, status, microseconds = line.split("\t")
            if status == "200":
                times.append(int(microseconds) / 1e6)
    return Measured(f"h2load, {number} processes", times)


def closed(folder: Path, topology: Topology, stalls: Stalls, seconds: float) -> Measured:
    """Run plain Locust. Its start time is unknown, so its slice with stalls is longer."""
    folder.mkdir()
    (url,) = topology.urls.values()
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("closed.py")), "--headless"]
    command += ["--users", "10", "--spawn-rate", "100", "--run-time", f"{seconds:.0f}s", "--host", url]
    command += ["--only-summary", "--loglevel", "WARNING"]
    environ = {"CROSSCHECK_KEY": key_of(CUSTOMER), "CROSSCHECK_TIMES": str(folder / "times")}
    with stalls.slice(time.time(), seconds + 30):
        Process(command, folder / "log", environ=environ).wait(seconds + 30)
    return Measured("plain Locust, 10 users", [float(line) for line in (folder / "times").read_text().split()])


def table(found: dict[str, list[Sequence[float]]]) -> Iterator[str]:
    """Yield a table of milliseconds: the medians of the rounds."""
    yield f"{'ms':26} {'requests':>8} " + " ".join(f"{f'p{p:g}':>8}" for p in PERCENTILES)
    for name, rounds in found.items():
        figures = " ".join(f"{1000 * middle(rounds, p):8.1f}" for p in PERCENTILES)
        yield f"{name:26} {sum(map(len, rounds)):8} {figures}"


def middle(rounds: Sequence[Sequence[float]], percent: float) -> float:
    """Return the median of a percentile over rounds."""
    return median(record.quantile(times, percent) for times in rounds)


def disagreements(mine: Sequence[Sequence[float]], its: Sequence[Sequence[float]]) -> list[str]:
    """Return the percentiles in which two generators differ by too much."""
    said = []
    for p in (50.0, 95.0):
        here, there = middle(mine, p), middle(its, p)
        if abs(here / there - 1) > AGREE:
            said.append(f"p{p:g} differs by {100 * abs(here / there - 1):.0f} %")
    return said


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser("python -m loadtest.crosscheck", description="Ours, h2load and plain Locust.")
    parser.add_argument("--stall", action="store_true", help="the upstream stands still for 300 ms every 3.3 s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1, help="of our generator")
    given = parser.parse_args(arguments)
    if shutil.which("h2load") is None:
        print("h2load is not on this machine: it is in the package nghttp2-client", file=sys.stderr)
        return 2
    stdout = sys.stdout
    say: Callable[[str], None] = lambda line: print(line, file=stdout, flush=True)  # noqa: E731
    workload = load(WORKLOAD, {})
    shape = workload.phases()[-1]
    assert isinstance(shape, schedule.Phase)
    found: dict[str, list[Sequence[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="crosscheck-") as created, redirect_stdout(io.StringIO()):
        folder = Path(created)
        with Topology(folder / "regions", workload) as topology:
            stalls = Stalls(topology.upstream, given.stall)
            for number in range(given.rounds):
                its = folder / f"{number}"
                its.mkdir()
                for one in (
                    ours(its / "ours", topology, stalls, workload, given.processes),
                    h2load(its / "h2load", topology, stalls, shape.rate, shape.seconds),
                    closed(its / "closed", topology, stalls, shape.seconds),
                ):
                    found.setdefault(one.name, []).append(one.times)
    for line in table(found):
        say(line)
    mine, its_, *_ = found.values()
    said = disagreements(mine, its_)
    say("; ".join(said) if said else "ours and h2load agree within 10 % at p50 and p95")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
