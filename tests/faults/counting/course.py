"""Half an hour of everything: what is done to edges, collector and network when, drawn from a seed, and the record."""

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from edgeproxy.usage import identity
from edgeproxy.usage.segment import Record, records
from edgeproxy.usage.spool import segments
from tests.faults.counting.relay import CALM, DOWN, STORMY
from tests.faults.counting.site import Counted, Site, stepping
from tests.faults.counting.stepping import COLLECTOR_STEPS, EDGE_STEPS, boundaries, said
from tests.support.collector import verified
from tests.support.process import ROOT, kill
from tests.support.storm import whole_crew
from tests.support.waiting import until

WEIGHTS = {
    "a worker killed": 4,
    "a supervisor killed at a step": 6,
    "an edge killed whole": 2,
    "an edge ended and started": 2,
    "an edge replaced beside the old one": 2,
    "the end of a spool torn": 2,
    "a state directory moved, and adopted": 1,
    "shipping switched off and on": 1,
    "the collector killed at a step": 4,
    "the collector ended and started": 1,
    "the collector copied": 3,
    "the collector put back to its copy": 1,
    "another weather in the network": 6,
    "old requests delivered once more": 2,
    "a disk full, or with room again": 3,
    "a clock set": 2,
}
BETWEEN = (0.0, 2.0)
"""Seconds between two deeds."""
ROUND = 120.0
"""Seconds between two moments at which all is well and all sums must be equal."""
STEPS = (-3600.0, -90.0, -5.0, 0.0, 5.0, 90.0, 3600.0)
"""By how many seconds clocks are wrong."""
WEATHERS = (CALM, STORMY, STORMY, DOWN)


class Course:
    """The deeds of one run, and what came of them."""

    def __init__(self, site: Site, seed: int, seconds: float) -> None:
        self.seed, self.seconds = seed, seconds
        self.took: dict[str, list[float]] = {}
        """How long each deed took, in seconds."""
        self.lines: list[str] = []
        """What was found whenever all was well."""
        self.verdicts: list[str] = []
        self._site = site
        self._chance = random.Random(f"{seed} course")
        self._copy = site.folder / "copy.db"
        self._moves = 0
        chosen = {
            "a worker killed": self._worker,
            "a supervisor killed at a step": self._supervisor,
            "an edge killed whole": self._whole,
            "an edge ended and started": self._restart,
            "an edge replaced beside the old one": self._replace,
            "the end of a spool torn": self._torn,
            "a state directory moved, and adopted": self._move,
            "shipping switched off and on": self._switch,
            "a disk full, or with room again": self._disk,
            "a clock set": self._clock,
            "another weather in the network": self._weather,
            "old requests delivered once more": self._late,
        }
        self._deeds: dict[str, Callable[[], object]] = {
            **{name: lambda deed=deed: deed(self._edge()) for name, deed in chosen.items()},  # type: ignore[misc]
            "the collector killed at a step": self._collector,
            "the collector ended and started": self._collector_restart,
            "the collector copied": self._collector_copied,
            "the collector put back to its copy": self._collector_restored,
        }

    def run(self) -> None:
        """All of it; raises at the first sum that is not as it must be."""
        over = time.monotonic() + self.seconds
        due = self._chance.sample(list(WEIGHTS), len(WEIGHTS))
        while time.monotonic() < over or due:
            for edge in self._site.edges:
                edge.relay.fates = STORMY
                edge.load(3)
            for edge in self._site.edges:
                edge.shipped_more()
            ends = min(time.monotonic() + ROUND, over)
            while time.monotonic() < ends or (due and ends == over):
                name = due.pop() if due else self._chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
                began = time.monotonic()
                print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
                self._deeds[name]()
                self.took.setdefault(name, []).append(time.monotonic() - began)
                time.sleep(self._chance.uniform(*BETWEEN))
            self._all_is_well()
        self._end()

    def _edge(self) -> Counted:
        return self._chance.choice(self._site.edges)

    def _all_is_well(self) -> None:
        for edge in self._site.edges:
            edge.fill_disk(False)
            edge.set_clock(0.0)
            edge.relay.fates = CALM
            until(lambda edge=edge: whole_crew(edge, set()), "there are all workers", seconds=60)
        for edge in self._site.edges:
            edge.unload()
        self.lines.append(self._site.assert_exact(killed=True))

    def _end(self) -> None:
        """Everything is ended, and what is on disk is looked at by the commands for that."""
        for edge in self._site.edges:
            edge.end()
            command = [sys.executable, "-m", "edgeproxy", "spool", "verify", "-c", edge.file]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            self.verdicts.append(f"`edgeproxy spool verify` of {edge.region}: {(done.stdout + done.stderr).strip()}")
            assert done.returncode == 0, self.verdicts[-1]
        code, found = verified(self._site.collector)
        self.verdicts.append(f"`edgeproxy verify`: {found.strip()}")
        assert code == 0, found

    # ---- edges

    def _well(self, edge: Counted) -> None:
        """It can seal and ship, so that it comes to each step."""
        edge.fill_disk(False)
        if edge.relay.fates is DOWN:
            edge.relay.fates = STORMY

    def _worker(self, edge: Counted) -> None:
        gone = self._chance.choice(edge.worker_pids())
        kill(gone)
        until(lambda: whole_crew(edge, {gone}), "there is a new worker", seconds=60)

    def _supervisor(self, edge: Counted) -> None:
        """Killed at any moment, and its successor at a step; workers go on."""
        self._well(edge)
        kill(edge.supervisor.pid)
        edge.supervisor.wait(10)
        edge.dies_at(self._chance.choice(boundaries(EDGE_STEPS)), self._chance.randint(1, 4))
        self._start(edge)

    def _whole(self, edge: Counted) -> None:
        edge.kill_all()
        self._start(edge)

    def _start(self, edge: Counted) -> None:
        """A supervisor, and nobody else's workers."""
        edge.start()
        until(lambda: whole_crew(edge, set()), "there are all workers", seconds=60)
        until(
            lambda: edge.supervisor.family() == {edge.supervisor.pid, *edge.worker_pids()}, "orphans leave", seconds=60
        )

    def _restart(self, edge: Counted) -> None:
        edge.end()
        self._start(edge)

    def _replace(self, edge: Counted) -> None:
        old, serving = edge.supervisor, '"event": "edge serving"'
        before = edge.output.count(serving)
        edge.begin()
        until(lambda: edge.output.count(serving) > before, "the new one serves", seconds=60)
        assert old.wait_after(signal.SIGTERM, 30) == 0
        until(lambda: whole_crew(edge, set()), "there are all workers", seconds=60)

    def _torn(self, edge: Counted) -> None:
        edge.kill_all()
        path = segments(edge.state / "spool")[-1]
        content = path.read_bytes()
        last = [one for one in records(content) if isinstance(one, Record)][-1:]
        # Half of a record, as it is when the power goes; or what the file system makes of it.
        part = content[last[0].offset :][: last[0].size // 2] if last else b""
        with path.open("ab") as file:
            file.write(self._chance.choice((part, bytes(4096), self._chance.randbytes(99))))
        self._start(edge)

    def _move(self, edge: Counted) -> None:
        edge.end()
        self._moves += 1
        old = edge.state
        new = old.with_name(f"state-{self._moves}")
        shutil.copytree(old, new, ignore=shutil.ignore_patterns("*.sock"))
        shutil.rmtree(old)
        identity.adopt(new, new)
        edge.settings["state"] = str(new)
        self._start(edge)

    def _switch(self, edge: Counted) -> None:
        usage = edge.settings.pop("usage")
        answers = [edge.reload().status]
        until(lambda: edge.status()["usage"]["shipping"]["state"] == "off", "nothing is shipped", seconds=60)
        edge.settings["usage"] = usage
        answers.append(edge.reload().status)
        assert answers == [200, 200]

    def _disk(self, edge: Counted) -> None:
        edge.fill_disk(not edge.is_full)

    def _clock(self, edge: Counted) -> None:
        edge.set_clock(self._chance.choice(STEPS))

    def _weather(self, edge: Counted) -> None:
        edge.relay.fates = self._chance.choice(WEATHERS)

    def _late(self, edge: Counted) -> None:
        edge.relay.late()

    # ---- the collector

    def _collector(self) -> None:
        collector = self._site.collector
        for edge in self._site.edges:
            self._well(edge)
        collector.kill()
        usual = collector.command
        where = f"{self._chance.choice(boundaries(COLLECTOR_STEPS))} {self._chance.randint(1, 6)}"
        collector.command = stepping(where, "collector")
        process = collector.begin()
        until(lambda: not process.running, f"the collector is killed {where}", seconds=60)
        assert said(where) in process.output
        collector.command = usual
        collector.start()

    def _collector_restart(self) -> None:
        self._site.collector.end()
        self._site.collector.start()

    def _collector_copied(self) -> None:
        copied(self._site.collector.database, self._copy)

    def _collector_restored(self) -> None:
        if not self._copy.exists():
            self._collector_copied()
            time.sleep(self._chance.uniform(1.0, 5.0))  # so that something is lacking
        collector = self._site.collector
        collector.kill()
        for suffix in ("-wal", "-shm"):
            Path(f"{collector.database}{suffix}").unlink(missing_ok=True)
        shutil.copy(self._copy, collector.database)
        collector.start()

    # ---- the record

    def record(self) -> str:
        """What was done and found, in Markdown."""
        fates: Counter[str] = Counter()
        for edge in self._site.edges:
            fates.update(edge.relay.met)
        took = sorted(self.took.items())
        deeds = [f"| {name} | {len(each)} | {median(each):.2f} | {max(each):.2f} |" for name, each in took]
        about = f"Seed {self.seed}, {self.seconds:.0f} s, {len(self._site.edges)} edges with two workers each."
        return "\n".join(
            [
                f"{about} All sums agreed at each of {len(self.lines)} moments at which all was well.",
                "",
                *[f"- {line}" for line in (*self.lines[-1:], *self.verdicts)],
                "",
                "| deed | times | median s | longest s |",
                "| --- | --- | --- | --- |",
                *deeds,
                "",
                "| what became of a request to the collector | times |",
                "| --- | --- |",
                *[f"| {fate} | {count} |" for fate, count in sorted(fates.items())],
                "",
            ]
        )


def copied(database: Path, to: Path) -> None:
    """A backup of a database of SQLite that is in use."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)
