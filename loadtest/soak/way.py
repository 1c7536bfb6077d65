"""Deeds on the way of counts: the edge that seals and ships them, its disk and clock, the network, the collector."""

import random
import shutil
from collections.abc import Callable
from time import sleep

from edgeproxy.edge.usage import identity
from edgeproxy.edge.usage.segment import Record, parse_records
from edgeproxy.edge.usage.spool import list_segments
from loadtest.soak.fault import Deed
from loadtest.soak.site import Site
from loadtest.testbed.faulty_edge import copied, dies_at, put_back
from loadtest.testbed.process import kill
from loadtest.testbed.relay import CALM, DOWN, STORMY
from loadtest.testbed.step_kill import COLLECTOR_STEPS, EDGE_STEPS, boundaries
from loadtest.testbed.waiting import until

CLOCKS = (-3600.0, -90.0, -5.0, 0.0, 5.0, 90.0, 3600.0)
"""Errors of clocks in seconds."""
WEATHERS = (CALM, STORMY, STORMY, DOWN)


class Way:
    """From the edge to the ledger."""

    def __init__(self, site: Site) -> None:
        self._site, self._edge, self._collector = site, site.edge, site.collector
        self._copy = site.folder / "copy.db"
        self.deeds: dict[Deed, Callable[[random.Random], None]] = {
            Deed.KILL_STEP: self._kill_at_step,
            Deed.KILL_EDGE: self._kill_edge,
            Deed.TEAR: self._tear,
            Deed.END: self._end,
            Deed.MOVE: self._move,
            Deed.SWITCH: self._switch,
            Deed.FILL: self._fill,
            Deed.CLOCK: self._clock,
            Deed.WEATHER: self._weather,
            Deed.LATE: self._late,
            Deed.COLLECTOR_KILL: self._collector_killed,
            Deed.COLLECTOR_END: self._collector_ended,
            Deed.COLLECTOR_COPY: self._collector_copied,
            Deed.COLLECTOR_BACK: self._collector_back,
        }

    # ---- the edge

    def _kill_at_step(self, draw: random.Random) -> None:
        """kill -9 of the supervisor at any moment, and of its successor at a step; workers serve on."""
        self._go_on()
        step, number = draw.choice(boundaries(EDGE_STEPS)), draw.randint(1, 4)
        with self._site.deed(Deed.KILL_STEP, note=f"{step} {number}"):
            with self._site.well:
                kill(self._edge.supervisor.pid)
                self._edge.supervisor.wait(10)
            self._edge.dies_at(step, number)
            self._edge.start()
            self._site.settle()

    def _kill_edge(self, _: random.Random) -> None:
        with self._site.deed(Deed.KILL_EDGE):
            with self._site.well:
                self._edge.kill_all()
            self._edge.start()
        self._site.settle()

    def _tear(self, draw: random.Random) -> None:
        with self._site.deed(Deed.TEAR):
            with self._site.well:
                self._edge.kill_all()
            path = list_segments(self._edge.state / "spool")[-1]
            content = path.read_bytes()
            last = [one for one in parse_records(content) if isinstance(one, Record)][-1:]
            # Half of a record, as after a power cut, or junk from the file system.
            part = content[last[0].offset :][: last[0].size // 2] if last else b""
            with path.open("ab") as file:
                file.write(draw.choice((part, bytes(4096), draw.randbytes(99))))
            self._edge.start()
        self._site.settle()

    def _end(self, _: random.Random) -> None:
        with self._site.deed(Deed.END):
            with self._site.well:
                self._edge.end()
            self._edge.start()
        self._site.settle()

    def _move(self, _: random.Random) -> None:
        old = self._edge.state
        new = old.with_name("moved" if old.name == "state" else "state")
        with self._site.deed(Deed.MOVE):
            with self._site.well:
                self._edge.end()
            shutil.copytree(old, new, ignore=shutil.ignore_patterns("*.sock"))
            shutil.rmtree(old)
            identity.adopt_identity(new, new)
            self._edge.start(state=str(new))
        self._site.settle()

    def _switch(self, _: random.Random) -> None:
        with self._site.deed(Deed.SWITCH):
            usage = self._edge.settings.pop("usage")
            answers = [self._edge.reload().status]
            until(lambda: self._edge.status()["usage"]["shipping"]["state"] == "off", "nothing is shipped")
            answers.append(self._edge.reload(usage=usage).status)
            assert answers == [200, 200]

    def _fill(self, _: random.Random) -> None:
        with self._site.deed(Deed.FILL):
            self._edge.fill_disk(not self._edge.is_full)

    def _clock(self, draw: random.Random) -> None:
        with self._site.deed(Deed.CLOCK):
            self._edge.set_clock(draw.choice(CLOCKS))

    # ---- the network

    def _go_on(self) -> None:
        """Batches are sealed and arrive, now and then: each step is come to."""
        self._edge.fill_disk(False)
        if self._edge.relay.fates is DOWN:
            self._edge.relay.fates = STORMY

    def _weather(self, draw: random.Random) -> None:
        with self._site.deed(Deed.WEATHER):
            self._edge.relay.fates = draw.choice(WEATHERS)

    def _late(self, _: random.Random) -> None:
        with self._site.deed(Deed.LATE) as fault:
            fault.note = f"{self._edge.relay.late()} of them"

    # ---- the collector

    def _collector_killed(self, draw: random.Random) -> None:
        self._go_on()
        step, number = draw.choice(boundaries(COLLECTOR_STEPS)), draw.randint(1, 6)
        with self._site.deed(Deed.COLLECTOR_KILL, note=f"{step} {number}"):
            dies_at(self._collector, step, number)
            self._collector.start()

    def _collector_ended(self, _: random.Random) -> None:
        with self._site.deed(Deed.COLLECTOR_END):
            self._collector.end()
            self._collector.start()

    def _collector_copied(self, _: random.Random) -> None:
        with self._site.deed(Deed.COLLECTOR_COPY):
            copied(self._collector, self._copy)

    def _collector_back(self, draw: random.Random) -> None:
        if not self._copy.exists():
            self._collector_copied(draw)
            sleep(draw.uniform(1.0, 5.0))  # so that something is lacking
        with self._site.deed(Deed.COLLECTOR_BACK):
            put_back(self._collector, self._copy)
