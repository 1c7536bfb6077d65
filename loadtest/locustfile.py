"""Locust with an open model: requests start when they are due, whether or not earlier ones were answered.

By itself, with Locust's web UI (which may change rate and seconds), `--headless`, `--processes N` or `--master`:

    locust -f loadtest/locustfile.py --workload loadtest/workloads/full.yaml --edges eu-west=http://127.0.0.1:8080,…

A file of your own may take its place: it imports `Arrivals` and `UntilFinished` from here, and puts classes of its own
into `loadtest.users.CLASSES`.

scripts/loadtest runs it with `--folder`: then it writes what was measured there, and the command judges.
"""

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from locust import LoadTestShape, events
from locust.runners import MasterRunner, WorkerRunner

sys.path.insert(0, str(Path(__file__).parents[1]))
from edgeproxy.config.problems import ConfigError
from loadtest import judge, record
from loadtest.client import Way
from loadtest.evidence import Evidence, name_controls, names_and_expectations
from loadtest.report import text
from loadtest.users import Arrivals, Run, phases
from loadtest.workload import Workload, load

__all__ = ["Arrivals", "UntilFinished"]

LEAD, PATIENCE = 1.0, 5.0
"""Seconds from the plan to the first arrival, and until a silent worker is given up."""


class Joined:
    """The measurements of all workers, on the master (or on the only process)."""

    def __init__(self, plan: dict[str, Any], folder: Path | None) -> None:
        self.plan, self._folder = plan, folder
        self._origin: float = time.perf_counter() + plan["begin"] - time.time()
        self.rows = bytearray()
        self.finished: set[int] = set()
        self.gave_up: set[int] = set()
        self.lost: dict[int, float] = {}
        self.workers: dict[int, dict[str, float]] = {}
        self._heard: dict[int, float] = {}
        self._line = Counter[str]()

    def clock(self) -> float:
        """Return the seconds since the beginning of the run."""
        return time.perf_counter() - self._origin

    def receive(self, report: dict[str, Any]) -> None:
        """Add a worker's report."""
        number, rows = report["worker"], report["rows"]
        self.rows += rows
        new = number not in self.workers
        self.workers[number] = {name: report[name] for name in ("pid", "cpu", "ready")}
        self._heard[number] = self.clock()
        if report["finished"]:
            self.finished.add(number)
        if report["gave_up"]:
            self.gave_up.add(number)
        if self._folder is not None:
            with (self._folder / "rows").open("ab") as stream:
                stream.write(rows)
            if new:
                self.write("workers.json")

    def over(self) -> bool:
        """Return whether every worker has finished, or an unfinished one is silent."""
        silent_since = self.clock() - LEAD - PATIENCE
        missing = [number for number in range(len(self.plan["workers"])) if number not in self.finished]
        for number in missing:
            if self._heard.get(number, 0.0) < silent_since:
                self.lost[number] = self._heard.get(number, 0.0)
        return not missing or bool(self.lost)

    def told(self) -> dict[str, Any]:
        """Return everything except the rows, for JSON."""
        return {
            "begin": self.plan["begin"], "workers": {str(number): worker for number, worker in self.workers.items()},
            "finished": sorted(self.finished), "gave_up": sorted(self.gave_up), "lost": sorted(self.lost.items()),
        }  # fmt: skip

    def write(self, name: str) -> None:
        """Write the results to the folder atomically."""
        assert self._folder is not None
        part = self._folder / f"{name}.part"
        part.write_text(json.dumps(self.told()))
        part.rename(self._folder / name)


class UntilFinished(LoadTestShape):
    """Keeps one `Arrivals` on each worker until all have reported their end, or one is lost."""

    def tick(self) -> tuple[int, float] | None:
        joined: Joined | None = self.runner.environment.joined  # type: ignore[union-attr]  # `register_messages` sets it.
        if joined is None:
            return getattr(self.runner, "worker_count", 1), 100
        return None if joined.over() else (len(joined.plan["workers"]), 100)


def pairs(given: str) -> dict[str, str]:
    """Return `REGION=URL,…` as a mapping."""
    return dict(pair.split("=", 1) for pair in given.split(",") if "=" in pair)


def urls_of(given: str, regions: list[str]) -> dict[str, str]:
    """Return `REGION=URL,…`, or one URL for all, as a mapping."""
    return dict.fromkeys(regions, given) if given.startswith("http") else pairs(given)


def plan_of(workload: Workload, given: Any, workers: list[str]) -> dict[str, Any]:
    """Return the plan for each worker."""
    edges, relays = pairs(given.edges), pairs(given.relays)
    names = [*workload.regions]
    ways = {}
    for home, name in enumerate(names):
        others = [n for n in range(len(names)) if n != home]
        # Each region's clients have another one that is next.
        others = others[home % len(others) :] + others[: home % len(others)] if others else []
        ways[str(home)] = [Way(home, edges[name])]
        ways[str(home)] += [Way(n, relays.get(names[n]) or edges[names[n]]) for n in others]
    shape = workload.phases()
    return {
        "begin": time.time() + LEAD,
        "phases": [list(phase) for phase in shape],
        "requests": [list(template) for template in workload.templates()],
        "names": workload.request_names(shape),
        "regions": workload.regions,
        "kinds": {name: list(kind) for name, kind in workload.kinds.items()},
        "anonymous": [name for name, tier in workload.tiers.items() if tier.addresses],
        "loopback": all((urlsplit(url).hostname or "").startswith("127.") for url in edges.values()),
        "ways": ways,
        "direct": urls_of(given.direct, names),
        "keys": json.loads(Path(given.keys).read_text()) if given.keys else {},
        "seed": workload.seed,
        "workers": workers,
        "worker": 0,
    }  # fmt: skip


def workload_of(given: Any) -> Workload:
    """Return the workload of the options, with the rate and seconds that the web UI may have changed."""
    workload = load(Path(given.workload), os.environ)
    if not given.direct:
        workload = workload.without_direct()
    if given.seconds:
        workload = workload.scaled(float(given.seconds))
    return workload.at_rate(float(given.rate)) if given.rate else workload


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    add = parser.add_argument
    add("--workload", default=str(Path(__file__).with_name("workloads") / "smoke.yaml"))
    add("--rate", type=float, default=0.0, help="requests/s at the beginning, over all workers; 0: the workload's")
    add("--seconds", type=float, default=0.0, help="that are judged; 0: the workload's")
    add("--edges", default="eu-west=http://127.0.0.1:8080", help="REGION=URL,…")
    add("--relays", default="", help="REGION=URL,…: the way to it for clients of other regions")
    add("--direct", default="", help="URL of the upstream itself, for the control, or REGION=URL,… of each")
    add("--keys", default="", help="a JSON file: customer: key")
    add("--folder", default="", help="where to write what was measured; without it the verdict is printed")


@events.init.add_listener
def register_messages(environment: Any, **_: Any) -> None:
    environment.run, environment.joined, runner = None, None, environment.runner
    if isinstance(runner, WorkerRunner):
        runner.register_message("plan", lambda msg, **_: setattr(environment, "run", Run(msg.data)))
    elif isinstance(runner, MasterRunner):
        runner.register_message("measured", lambda msg, **_: environment.joined.receive(msg.data))


@events.test_start.add_listener
def send_plan(environment: Any, **_: Any) -> None:
    runner, given = environment.runner, environment.parsed_options
    if isinstance(runner, WorkerRunner):
        return
    folder = Path(given.folder) if given.folder else None
    if folder is not None:
        (folder / "waits").touch()
        while not (folder / "go").exists():  # The command starts Locust while it still starts the edges.
            gevent.sleep(0.02)
        for name, value in json.loads((folder / "go").read_text()).items():
            setattr(given, name, value)
    try:
        workload = workload_of(given)
    except ConfigError as errors:
        print(errors, file=sys.stderr)
        environment.process_exit_code = 2
        runner.quit()
        return
    environment.workload = workload
    workers = [one.id for one in runner.clients.ready] if isinstance(runner, MasterRunner) else ["local"]
    plan = plan_of(workload, given, workers)
    environment.joined = Joined(plan, folder)
    if folder is not None:
        environment.joined.write("begin.json")
    if isinstance(runner, MasterRunner):
        for number, worker in enumerate(workers):
            runner.send_message("plan", plan | {"worker": number}, worker)
    else:
        environment.run = Run(plan)
    environment.progress = gevent.spawn(progress, environment.joined, workload)


def progress(joined: Joined, workload: Workload) -> None:
    """Print a line a second."""
    said = 0
    while True:
        gevent.sleep(1.0)
        line = bytes(joined.rows[said:])
        said += len(line)
        if line:
            print(text.progress(joined.clock(), list(record.unpacked(line)), [*workload.kinds]), flush=True)


@events.test_stop.add_listener
def end(environment: Any, **_: Any) -> None:
    joined = environment.joined
    if isinstance(environment.runner, WorkerRunner) or joined is None:
        return
    environment.progress.kill()
    environment.joined = None  # The web UI may start another one.
    if environment.parsed_options.folder:
        joined.write("end.json")
        return
    known = evidence(environment.workload, joined, urls_of(environment.parsed_options.direct, joined.plan["regions"]))
    verdict = judge.judge(known)
    print(*text.summary(known, verdict), sep="\n", flush=True)
    environment.process_exit_code = verdict.exit_code


def evidence(workload: Workload, joined: Joined, direct: dict[str, str]) -> Evidence:
    """Return the evidence of a run against edges without further observation."""
    due, judged = judge.due_by_second(Run(joined.plan).schedule(), workload.warm_up)
    return Evidence(
        workload=workload,
        seconds=sum(phase.seconds for phase in phases(joined.plan)),
        rows=bytes(joined.rows),
        due=due,
        due_judged=judged,
        workers=len(joined.plan["workers"]),
        lost_workers=sorted(joined.lost.items()),
        gave_up=sorted(joined.gave_up),
        fresh=False,
        outside=True,
        controls=name_controls(direct),
        **names_and_expectations(workload, phases(joined.plan)),
    )
