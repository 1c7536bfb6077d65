"""Events during a run: their times (pure), and the thread that causes them and records when."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from loadtest.evidence import GRACE, Loss
from loadtest.limits import Span
from loadtest.topology import Topology
from loadtest.workload import HOLE, Event, Workload

CONNECT = 1.0
"""Seconds until a client gives a connection attempt up: only then it notices that packets vanish."""


class Moment(NamedTuple):
    """An action, its time in seconds after the beginning of the run, and its name."""

    at: float
    do: Callable[[], None]
    name: str


def moments(workload: Workload, seconds: float, topology: Topology) -> Iterator[Moment]:
    """Yield the beginning and the end of each event. `seconds` is the length of the whole schedule."""
    judged = seconds - workload.warm_up
    for event in workload.events:
        begin = workload.warm_up + event.at * judged
        do, undo, name = deed(event, topology)
        yield Moment(begin, do, name)
        yield Moment(begin + event.lasts * judged, undo, f"end of {name}")


def deed(event: Event, topology: Topology) -> tuple[Callable[[], None], Callable[[], None], str]:
    """Return the functions that start and end an event, and its name."""
    if event.lose is not None:
        region = event.lose
        if event.how == HOLE:
            door = topology.doors[region]
            return door.hole, door.heal, f"hole at {region}"
        return lambda: topology.lose(region), lambda: topology.restore(region), f"lost {region}"
    if event.cut is not None:
        return topology.cut_hub, topology.heal_hub, "cut hub"
    return lambda: topology.upstream.slow(event.by), lambda: topology.upstream.slow(0), "slow upstream"


class Timeline(threading.Thread):
    """Runs due actions from `begin` (Unix seconds) on, until all are done or `stop`."""

    def __init__(self, planned: list[Moment], begin: float) -> None:
        super().__init__(name="events", daemon=True)
        self._planned = sorted(planned, key=lambda moment: moment.at)
        self._begin = begin
        self._stopped = threading.Event()
        self.done: list[tuple[str, float, float]] = []
        """The name of each done action, with its start and end in seconds after the beginning."""
        self.failed: BaseException | None = None
        self._doing: list[threading.Thread] = []

    def run(self) -> None:
        for moment in self._planned:
            if self._stopped.wait(max(0.0, self._begin + moment.at - time.time())):
                break
            # Each action has its own thread: an edge may take seconds to return, and the next action must not wait for
            # it.
            doing = threading.Thread(target=self._do, args=(moment,), name=moment.name, daemon=True)
            self._doing.append(doing)
            doing.start()

    def _do(self, moment: Moment) -> None:
        began = time.time() - self._begin
        try:
            moment.do()
        except BaseException as error:
            self.failed = error
        else:
            self.done.append((moment.name, began, time.time() - self._begin))

    def stop(self) -> None:
        """Start no further actions, and wait for running ones."""
        self._stopped.set()
        self.join(5)
        for doing in self._doing:
            doing.join(30)
        self.done.sort(key=lambda one: one[1])

    def missed(self) -> list[str]:
        """Return the actions that were planned and not done."""
        return [moment.name for moment in self._planned[len(self.done) :]]

    def spans(self, name: str, end: float) -> Iterator[Span]:
        """Yield the spans of an event; one that never ended lasts until `end`."""
        begin = None
        for did, began, over in self.done:
            if did == name:
                begin = began
            elif did == f"end of {name}" and begin is not None:
                yield begin, over
                begin = None
        if begin is not None:
            yield begin, end

    def losses(self, workload: Workload, end: float) -> list[Loss]:
        """Return when each region was lost."""
        return [
            Loss(region, *span, grace)
            for region in workload.regions
            for name, grace in ((f"lost {region}", GRACE), (f"hole at {region}", GRACE + CONNECT))
            for span in self.spans(name, end)
        ]
