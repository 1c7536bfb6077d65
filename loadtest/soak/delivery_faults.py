"""Faults on the way of counts to the ledger: of the edge that seals and ships them, its disk and clock, of the network,
and of the collector.
"""

import random
import shutil
from collections.abc import Callable
from time import sleep

from edgeproxy.edge.usage import identity
from edgeproxy.edge.usage.segment import Record, parse_records
from edgeproxy.edge.usage.spool import list_segments
from loadtest.soak.fault import FaultKind
from loadtest.soak.site import Site
from loadtest.testbed.faulty_edge import copied, dies_at, put_back
from loadtest.testbed.process import kill
from loadtest.testbed.relay import CALM, DOWN, STORMY
from loadtest.testbed.step_kill import COLLECTOR_STEPS, EDGE_STEPS, boundaries
from loadtest.testbed.waiting import until

CLOCKS = (-3600.0, -90.0, -5.0, 0.0, 5.0, 90.0, 3600.0)
"""Errors of clocks in seconds."""
NETWORKS = (CALM, STORMY, STORMY, DOWN)
"""States of the network. A stormy one is drawn twice as often."""


class DeliveryFaults:
    """Makes these faults. `handlers` has a function for each kind, which draws the details."""

    def __init__(self, site: Site) -> None:
        self._site, self._edge, self._collector = site, site.edge, site.collector
        self._copy = site.folder / "copy.db"
        self.handlers: dict[FaultKind, Callable[[random.Random], None]] = {
            FaultKind.KILL_STEP: self._kill_at_step,
            FaultKind.KILL_EDGE: self._kill_edge,
            FaultKind.TEAR: self._tear_spool,
            FaultKind.END: self._restart_edge,
            FaultKind.MOVE: self._move_state,
            FaultKind.SWITCH: self._switch_shipping,
            FaultKind.FILL: self._fill_disk,
            FaultKind.CLOCK: self._set_clock,
            FaultKind.WEATHER: self._change_network,
            FaultKind.LATE: self._repeat_batches,
            FaultKind.COLLECTOR_KILL: self._kill_collector,
            FaultKind.COLLECTOR_END: self._restart_collector,
            FaultKind.COLLECTOR_COPY: self._copy_collector,
            FaultKind.COLLECTOR_BACK: self._restore_collector,
        }

    # ---- the edge

    def _kill_at_step(self, draw: random.Random) -> None:
        """Kill the supervisor with SIGKILL at any moment, and its successor at a step. The workers serve on."""
        self._unblock_shipping()
        step, number = draw.choice(boundaries(EDGE_STEPS)), draw.randint(1, 4)
        with self._site.record_fault(FaultKind.KILL_STEP, note=f"{step} {number}"):
            with self._site.well:
                kill(self._edge.supervisor.pid)
                self._edge.supervisor.wait(10)
            self._edge.dies_at(step, number)
            self._edge.start()
            self._site.settle()

    def _kill_edge(self, _: random.Random) -> None:
        with self._site.record_fault(FaultKind.KILL_EDGE):
            with self._site.well:
                self._edge.kill_all()
            self._edge.start()
        self._site.settle()

    def _tear_spool(self, draw: random.Random) -> None:
        with self._site.record_fault(FaultKind.TEAR):
            with self._site.well:
                self._edge.kill_all()
            path = list_segments(self._edge.state / "spool")[-1]
            content = path.read_bytes()
            last = [record for record in parse_records(content) if isinstance(record, Record)][-1:]
            # A power cut leaves half of a record, or blocks of zeros or old data that the file system had allocated.
            part = content[last[0].offset :][: last[0].size // 2] if last else b""
            with path.open("ab") as file:
                file.write(draw.choice((part, bytes(4096), draw.randbytes(99))))
            self._edge.start()
        self._site.settle()

    def _restart_edge(self, _: random.Random) -> None:
        with self._site.record_fault(FaultKind.END):
            with self._site.well:
                self._edge.end()
            self._edge.start()
        self._site.settle()

    def _move_state(self, _: random.Random) -> None:
        old = self._edge.state
        new = old.with_name("moved" if old.name == "state" else "state")
        with self._site.record_fault(FaultKind.MOVE):
            with self._site.well:
                self._edge.end()
            # A copy has other inodes, so the edge takes it for another directory until it is adopted.
            shutil.copytree(old, new, ignore=shutil.ignore_patterns("*.sock"))
            shutil.rmtree(old)
            identity.adopt_identity(new, new)
            self._edge.start(state=str(new))
        self._site.settle()

    def _switch_shipping(self, _: random.Random) -> None:
        with self._site.record_fault(FaultKind.SWITCH):
            usage = self._edge.settings.pop("usage")
            answers = [self._edge.reload().status]
            until(lambda: self._edge.status()["usage"]["shipping"]["state"] == "off", "nothing is shipped")
            answers.append(self._edge.reload(usage=usage).status)
            assert answers == [200, 200]

    def _fill_disk(self, _: random.Random) -> None:
        with self._site.record_fault(FaultKind.FILL):
            self._edge.fill_disk(not self._edge.is_full)

    def _set_clock(self, draw: random.Random) -> None:
        with self._site.record_fault(FaultKind.CLOCK):
            self._edge.set_clock(draw.choice(CLOCKS))

    # ---- the network

    def _unblock_shipping(self) -> None:
        """Free the disk and the network, so that batches are sealed and some arrive.

        Otherwise a process that dies at a step of sealing or shipping might never reach it.
        """
        self._edge.fill_disk(False)
        if self._edge.relay.fates is DOWN:
            self._edge.relay.fates = STORMY

    def _change_network(self, draw: random.Random) -> None:
        with self._site.record_fault(FaultKind.WEATHER):
            self._edge.relay.fates = draw.choice(NETWORKS)

    def _repeat_batches(self, _: random.Random) -> None:
        with self._site.record_fault(FaultKind.LATE) as fault:
            fault.note = f"{self._edge.relay.late()} of them"

    # ---- the collector

    def _kill_collector(self, draw: random.Random) -> None:
        self._unblock_shipping()
        step, number = draw.choice(boundaries(COLLECTOR_STEPS)), draw.randint(1, 6)
        with self._site.record_fault(FaultKind.COLLECTOR_KILL, note=f"{step} {number}"):
            dies_at(self._collector, step, number)
            self._collector.start()

    def _restart_collector(self, _: random.Random) -> None:
        with self._site.record_fault(FaultKind.COLLECTOR_END):
            self._collector.end()
            self._collector.start()

    def _copy_collector(self, _: random.Random) -> None:
        with self._site.record_fault(FaultKind.COLLECTOR_COPY):
            copied(self._collector, self._copy)

    def _restore_collector(self, draw: random.Random) -> None:
        if not self._copy.exists():
            self._copy_collector(draw)
            sleep(draw.uniform(1.0, 5.0))  # Batches arrive meanwhile, which the restored copy lacks.
        with self._site.record_fault(FaultKind.COLLECTOR_BACK):
            put_back(self._collector, self._copy)
