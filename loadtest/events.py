"""What happens in the middle of a run: when, which is pure, and the thread that does it and notes when it was done."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from loadtest.evidence import GRACE, Loss
from loadtest.limits import Span
from loadtest.topology import Topology
from loadtest.workload import HOLE, Event, Workload

CONNECT = 1.0
"""Seconds until a client gives a connection up: it cannot know sooner that packets vanish."""


class Moment(NamedTuple):
    """Something to do, so many seconds after the beginning of the run, and what to call it."""

    at: float
    do: Callable[[], None]
    name: str


def moments(workload: Workload, seconds: float, topology: Topology) -> Iterator[Moment]:
    """The beginning and the end of each event; `seconds`: of the whole schedule."""
    judged = seconds - workload.warm_up
    for event in workload.events:
        begin = workload.warm_up + event.at * judged
        do, undo, name = deed(event, topology)
        yield Moment(begin, do, name)
        yield Moment(begin + event.lasts * judged, undo, f"end of {name}")


def deed(event: Event, topology: Topology) -> tuple[Callable[[], None], Callable[[], None], str]:
    """What an event does, what ends it, and its name."""
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
    """Does what is due, from `begin` (Unix seconds) on, until all is done or `stop`."""

    def __init__(self, planned: list[Moment], begin: float) -> None:
        super().__init__(name="events", daemon=True)
        self._planned = sorted(planned, key=lambda moment: moment.at)
        self._begin = begin
        self._stopped = threading.Event()
        self.done: list[tuple[str, float, float]] = []
        """What was done, when it was begun, and when it was over, in seconds after the beginning."""
        self.failed: BaseException | None = None
        self._doing: list[threading.Thread] = []

    def run(self) -> None:
        for moment in self._planned:
            if self._stopped.wait(max(0.0, self._begin + moment.at - time.time())):
                break
            # In a thread of its own: an edge may take seconds to come back, and what is next must not wait for that.
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
        """Do nothing more; what is being done is done first."""
        self._stopped.set()
        self.join(5)
        for doing in self._doing:
            doing.join(30)
        self.done.sort(key=lambda one: one[1])

    def missed(self) -> list[str]:
        """What was planned and not done."""
        return [moment.name for moment in self._planned[len(self.done) :]]

    def spans(self, name: str, end: float) -> Iterator[Span]:
        """From when to when something was so: until `end` where it was not undone."""
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
        """When each region was lost."""
        return [
            Loss(region, *span, grace)
            for region in workload.regions
            for name, grace in ((f"lost {region}", GRACE), (f"hole at {region}", GRACE + CONNECT))
            for span in self.spans(name, end)
        ]
