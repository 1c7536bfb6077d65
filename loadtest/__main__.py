"""The load test command: starts the servers under test and Locust, causes faults, judges, and writes the report.

It never imports Locust, which patches the standard library on import. Locust runs in processes of its own.
"""

import io
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeproxy.config.problems import ConfigError
from loadtest import judge, machine, options, preflight, schedule
from loadtest.admin import EVERY, Sampler
from loadtest.compare import Different, compared, same_workload
from loadtest.conservation import Accounts
from loadtest.events import Timeline, moments
from loadtest.evidence import Evidence, Verdict, name_controls, names_and_expectations
from loadtest.faults import FAULTS, Injected
from loadtest.report import figures, html, text
from loadtest.testbed.process import Process
from loadtest.testbed.redis import free_port
from loadtest.testbed.waiting import until
from loadtest.topology import DELAY, DISTANCE, Topology
from loadtest.workload import DIRECT, Workload, load

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
START, END = 30.0, 60.0
"""Seconds until Locust runs, and until it has ended after the last request was due."""
SETTLE = 10.0
"""Seconds until the ledger holds all counts."""
PROGRESS = " · lag "


class Generator:
    """The Locust processes, from `with` to their end. They and this command exchange files in `folder`."""

    def __init__(self, folder: Path, processes: int, locustfile: Path | None, say: Callable[..., None]) -> None:
        self.folder, self._say = folder, say
        command = [sys.executable, "-m", "locust", "-f", str(locustfile or LOCUSTFILE), "--headless", "--only-summary"]
        command += ["--folder", str(folder), "--loglevel", "WARNING"]
        if processes > 1:
            command += ["--processes", str(processes)]
            command += ["--master-bind-host", "127.0.0.1", "--master-bind-port", str(free_port())]
            command += ["--master-port", command[-1]]
        # The paths of a workload and a locustfile are relative to the working directory of the command.
        self._process = Process(command, folder / "locust.log", cwd=Path.cwd())
        self._following = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Generator":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.running:
            self._process.send_signal(signal.SIGTERM)
        self._process.stop()

    @property
    def output(self) -> str:
        """Their output."""
        return self._process.output

    def begin(self, **how: Any) -> float:
        """Start the load. Returns the start of the schedule, in Unix seconds."""
        part = self.folder / "go.part"
        until(lambda: (self.folder / "waits").exists() or not self._process.running, "Locust waits", seconds=START)
        part.write_text(json.dumps(how))
        part.rename(self.folder / "go")
        told = self.folder / "begin.json"
        until(lambda: told.exists() or not self._process.running, "Locust has a plan", seconds=START)
        if not told.exists():
            raise OSError(f"Locust ended before it began:\n{self.output[-2000:]}")
        self._following.start()
        begin: float = json.loads(told.read_text())["begin"]
        return begin

    def wait(self, seconds: float) -> dict[str, Any]:
        """Wait for the end. Returns the final report, or the start report if the processes ended without one."""
        deadline = time.monotonic() + seconds
        while self._process.running and time.monotonic() < deadline:
            time.sleep(0.05)
        self._following.join(1.0)
        return self.told("end.json") or self.told("workers.json")

    def told(self, name: str) -> dict[str, Any]:
        """Return the content of a file that the processes wrote; empty if the file is missing."""
        file = self.folder / name
        told: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return told

    @property
    def pids(self) -> dict[int, int]:
        """The pids of the workers, by number."""
        until(lambda: self.told("workers.json"), "workers report", seconds=START)
        return {int(number): worker["pid"] for number, worker in self.told("workers.json")["workers"].items()}

    def rows(self) -> bytes:
        """The results of all requests, packed."""
        file = self.folder / "rows"
        return file.read_bytes() if file.exists() else b""

    def _follow(self) -> None:
        """Print the lines of progress as they arrive."""
        with self._process.log.open(errors="replace") as log:
            running = True
            while running:
                running = self._process.running
                for line in log:
                    if PROGRESS in line:
                        self._say(line.rstrip())
                time.sleep(0.1)


def prepared(given: Any) -> Workload:
    """Return the workload as it will be played. Raises ConfigError."""
    workload = load(given.workload, os.environ)
    if given.edges is not None:
        # Edges of another party may lack regions, and this command can cause no faults there.
        workload = workload.model_copy(update={"events": ()})
        if not given.direct:
            workload = workload.without_direct()
        for option, urls in (("--edges", given.edges), ("--direct", given.direct)):
            if urls and (missing := workload.regions.keys() - urls.keys()):
                raise ValueError(f"{option} has no URL of {', '.join(sorted(missing))}")
    if given.seconds:
        workload = workload.scaled(given.seconds)
    return workload.at_rate(given.rate) if given.rate else workload


class Run:
    """A run from its preparation to its verdict."""

    def __init__(self, given: Any, workload: Workload, folder: Path, say: Callable[..., None]) -> None:
        self.given, self.workload, self.folder, self.say = given, workload, folder, say
        self.phases = workload.phases()
        self.seconds = schedule.length(self.phases)
        self.samples: dict[str, list[dict[str, float]]] = {}
        self.done: list[tuple[str, float, float]] = []
        self.told: dict[str, Any] = {}
        self.begin = 0.0
        self.clocks: list[tuple[float, float, machine.Counters]] = []
        """Before and after: Unix seconds, CPU seconds of this process, and the kernel's counters."""

    def evidence(self) -> Evidence:
        """Play the workload and return the evidence."""
        talk = self.folder / "talk"
        talk.mkdir(parents=True)
        with Generator(talk, self.given.processes, self.given.locustfile, self.say) as generator:
            if self.given.edges is not None:
                return self._outside(generator)
            fault = FAULTS[self.given.inject] if self.given.inject else None
            how: dict[str, Any] = {}
            if fault is not None:
                how["settings"] = lambda region: fault.settings(self.workload, region)
                how["delay"] = fault.slower * self.workload.thresholds.p95 or DELAY
            with Topology(self.folder / "regions", self.workload, **how) as topology:
                evidence = self._inside(generator, topology)
            evidence.trouble = topology.trouble
            return evidence

    def _play(
        self, generator: Generator, where: Mapping[str, str], planned: Callable[[], Any], **also: str
    ) -> Timeline:
        """Start the generator and wait for its end, while the planned events happen."""
        given = self.given
        self.begin = generator.begin(
            workload=str(given.workload),
            seconds=given.seconds or 0.0,
            rate=given.rate or 0.0,
            edges=",".join(f"{region}={url}" for region, url in where.items()),
            **also,
        )
        timeline = Timeline(list(planned()), self.begin)
        timeline.start()
        self.due, self.due_judged = judge.due_by_second(
            schedule.arrivals(self.phases, self.workload.regions, self.workload.kinds, self.workload.seed),
            self.workload.warm_up,
        )
        time.sleep(max(self.begin - time.time(), 0.0))
        self.clocks = [(time.time(), time.process_time(), machine.read_counters())]
        self.told = generator.wait(self.seconds + END)
        self.clocks.append((time.time(), time.process_time(), machine.read_counters()))
        timeline.stop()
        self.done = timeline.done
        if timeline.failed is not None:
            raise timeline.failed
        return timeline

    def _machine(self) -> machine.Machine:
        """Return the use of the cores during the run."""
        (begun, mine_before, before), (ended, mine_after, after) = self.clocks
        own = mine_after - mine_before + sum(one["cpu"] for one in self.told.get("workers", {}).values())
        own += sum(sample["workers_cores"] * EVERY for samples in self.samples.values() for sample in samples)
        return machine.compare_counters(before, after, ended - begun, own)

    def _outside(self, generator: Generator) -> Evidence:
        """Run against existing edges and return the evidence that is visible from outside."""
        given = self.given
        keys = str(given.keys) if given.keys else ""
        direct = ",".join(f"{region}={url}" for region, url in given.direct.items())
        known: dict[str, str] = json.loads(given.keys.read_text()) if given.keys else {}
        promised = preflight.find_differences(self.workload, given.edges, known)
        self._play(generator, given.edges, list, direct=direct, keys=keys)
        return self._evidence(
            generator,
            fresh=given.unused,
            outside=True,
            controls=name_controls(given.direct),
            promised=promised,
            distance=given.distance,
        )

    def _inside(self, generator: Generator, topology: Topology) -> Evidence:
        """Run against edges that this command starts, and return the evidence."""
        injected = FAULTS[self.given.inject] if self.given.inject else None

        def planned() -> Iterator[Any]:
            yield from moments(self.workload, self.seconds, topology)
            if injected is not None:
                yield from injected.moments(Injected(self.workload, self.seconds, topology, lambda: generator.pids))

        relays = ",".join(f"{region}={url}" for region, url in topology.relays.items())
        with Sampler(topology) as sampler:
            timeline = self._play(generator, topology.urls, planned, relays=relays, direct=topology.direct)
            topology.upstream.go_on()
        self.samples = sampler.samples(self.begin)
        evidence = self._evidence(
            generator,
            losses=timeline.losses(self.workload, self.seconds),
            cuts=list(timeline.spans("cut hub", self.seconds)),
            distance=DISTANCE,
        )
        anonymous = {name: "-" for name, tier in self.workload.tiers.items() if tier.addresses}
        answered, unanswered = judge.accounted(evidence, anonymous)
        for region in topology.lost.copy():
            topology.restore(region)  # Its unshipped counts are on its disk.
        evidence.missed = timeline.missed()
        self._settle(topology)
        counts = topology.upstream.counts()
        upstream = {name: count for name, count in counts.items() if name != DIRECT}
        evidence.accounts = Accounts(answered, unanswered, topology.ledger(), upstream)
        return evidence

    def _settle(self, topology: Topology) -> None:
        """Wait until the edges have shipped all counts to the ledger. If some are missing, the judge reports it."""
        deadline = time.monotonic() + SETTLE
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            quiet = quiet + 1 if topology.shipped() else 0
            time.sleep(0.1)

    def _evidence(self, generator: Generator, **also: Any) -> Evidence:
        told = self.told
        lost = [(int(number), at) for number, at in told.get("lost", [])]
        if "finished" not in told:
            lost = [(0, 0.0)]
        return Evidence(
            workload=self.workload,
            seconds=self.seconds,
            rows=generator.rows(),
            due=self.due,
            due_judged=self.due_judged,
            workers=self.given.processes,
            lost_workers=lost,
            gave_up=told.get("gave_up", []),
            machine=self._machine(),
            **names_and_expectations(self.workload, self.phases),
            **also,
        )


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    given = options.parse(arguments)
    stdout = sys.stdout

    def say(*lines: str) -> None:
        print(*lines, sep="\n", file=stdout, flush=True)

    before = None
    try:
        workload = prepared(given)
        if given.against is not None:
            before = json.loads(given.against.read_text())
            same_workload({"workload": figures.workload_of(workload)}, before)
        if given.keys is not None and not isinstance(json.loads(given.keys.read_text()), dict):
            raise ValueError(f"{given.keys} is not a JSON object of customers and their keys")
    except (ConfigError, Different, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="loadtest-")))
        undo.enter_context(redirect_stdout(io.StringIO()))  # The party that started the edges shows their output.
        try:
            run = Run(given, workload, folder, say)
            evidence = run.evidence()
        except KeyboardInterrupt:
            return 130
        except preflight.UnusableKeyError as error:
            print(error, file=sys.stderr)
            return 2
        verdict = judge.judge(evidence)
        say(*text.summary(evidence, verdict))
        return report(run, evidence, verdict, before, say)


def report(run: Run, evidence: Evidence, verdict: Verdict, before: Any, say: Callable[..., None]) -> int:
    """Write the report and return the exit code of the run."""
    out = run.given.out
    if out is None:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        out = options.RESULTS / f"{run.given.workload.stem}-{now}"
    out.mkdir(parents=True, exist_ok=True)
    its = figures.of(run, evidence, verdict)
    if before is not None:
        its["compared"] = [one._asdict() for one in compared(its, before)]
    figures.write(out, its, verdict, run.begin, run.seconds)
    (out / "report.html").write_text(html.page(its))
    return verdict.exit_code


def start() -> None:
    """Run the command with the process's arguments, and exit with its code."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    start()
