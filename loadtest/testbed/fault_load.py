"""Load on an edge that loses parts, and the rules for all counts after the load."""

import re
import threading
from collections import Counter
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtest.testbed.customers import UNLIMITED
from loadtest.testbed.edge import Edge
from loadtest.testbed.load_clients import Account, Load, Plan
from loadtest.testbed.process import kill
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import SLOWNESS, until

PATHS = ["/", "/?wait=2", "POST /?wait=1", "/?size=30000", "/?status=404", "/?status=503", "/?status=204", "/?wait=7"]
"""The requests of clients. Some take a while, so that kills hit requests at every stage."""
OUTAGE = 3.0 * SLOWNESS
"""Seconds without any answer that the loss of one worker of two may cost on a busy machine; usually some
milliseconds.
"""


class Watch(threading.Thread):
    """Reads the edge's counters continuously, and records each fall. A silent admin listener is no fall."""

    def __init__(self, edge: Edge) -> None:
        super().__init__(name="watch")
        self.falls: list[str] = []
        self.readings = 0
        self._edge = edge
        self._seen: dict[str, float] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            try:
                shown: dict[str, float] = {f"usage of {name}": total for name, total in self._edge.usage().items()}
                for (name, labels), value in self._edge.metrics().items():
                    if name in ("edge_requests_total", "edge_usage_counted_total", "edge_request_seconds_count"):
                        shown[f"{name} {labels}"] = value
            except (OSError, HTTPException):
                continue
            self.readings += 1
            for name, value in self._seen.items():
                if shown.get(name, 0) < value:
                    self.falls.append(f"{name} fell from {value} to {shown.get(name)}")
            self._seen.update(shown)

    def end(self) -> None:
        self._over.set()
        self.join(30)


class Storm:
    """Client processes against an edge, from `with` to `over`.

    One process sends for the customer without limits during the whole storm. If there is a `steady` customer with a
    limit, it sends some 150 requests a second, until its limit has refused it for a while.
    """

    def __init__(self, edge: Edge, upstream: Upstream, folder: Path, *, steady: str | None = None) -> None:
        self.edge = edge
        self.upstream = upstream
        self.steady = steady
        self.kills = 0
        self.accounts: list[Account] = []
        self._folder = folder / "load"
        self._loads: list[Load] = []
        self._watch = Watch(edge)

    def __enter__(self) -> Self:
        plans = [Plan(self.edge.port, [UNLIMITED], PATHS, connections=8)]
        if self.steady is not None:
            plans.append(Plan(self.edge.port, [self.steady], ["/?wait=20"], connections=4, refusals=400))
        self._loads = [Load(self._folder, f"clients-{number}", plan) for number, plan in enumerate(plans)]
        self._watch.start()
        self.go_on()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._watch.end()
            for load in self._loads:
                load.stop()

    def received(self, customer: str = UNLIMITED) -> int:
        """Return the requests of this customer that the upstream received."""
        count: int = self.upstream.seen()["received"].get(customer, 0)
        return count

    def go_on(self, requests: int = 150) -> None:
        """Wait until the upstream has received this many more requests: the edge serves."""
        expected = self.received() + requests
        until(lambda: self.received() >= expected, f"{requests} requests more arrive", seconds=20)

    def kill_workers(self, *pids: int) -> None:
        """Send SIGKILL to these workers, and wait for their successors."""
        for pid in pids:
            kill(pid)
            self.kills += 1
        until(lambda: whole_crew(self.edge, {*pids}), "there are new workers", seconds=20)

    def kill_supervisor(self) -> set[int]:
        """Send SIGKILL to the supervisor; return the workers that it leaves behind."""
        orphans = set(self.edge.worker_pids())
        kill(self.edge.supervisor.pid)
        self.edge.supervisor.wait(10)
        self.kills += 1
        return orphans

    def kill_everything(self) -> None:
        """Send SIGKILL to the supervisor and all workers at once, so that no process listens."""
        supervisor = self.edge.supervisor
        for pid in (supervisor.pid, *supervisor.family() - {supervisor.pid}):
            kill(pid)
            self.kills += 1
        supervisor.wait(10)

    def orphans_leave(self, orphans: set[int]) -> None:
        """Wait until the workers of a dead supervisor have left by themselves, because another supervisor serves."""
        until(lambda: not self.edge.supervisor.family() & orphans, "the orphans leave", seconds=15)

    def over(self, seconds: float = 30) -> None:
        """Stop the load, let `steady` reach its limit, and collect the accounts."""
        endless, limited = self._loads[:1], self._loads[1:]
        self.accounts = [load.account(seconds) for load in limited]
        self.accounts += [load.finish() for load in endless]
        self._watch.end()
        assert not self._watch.falls, self._watch.falls[:5]
        assert self._watch.readings > 0
        print(self.figures())

    # ---- the sums

    def answered(self, customer: str) -> int:
        """Return the billable answers that clients received whole."""
        return sum(account.answered(customer) for account in self.accounts)

    def lost(self, customer: str) -> int:
        """Return the requests without a whole answer."""
        return sum(account.lost.get(customer, 0) for account in self.accounts)

    def counted(self, customer: str) -> int:
        """Return the requests in `/usage`."""
        return self.edge.usage().get(customer, 0)

    def billable(self, customer: str) -> int:
        """Return the billable answers of the upstream."""
        given: int = self.upstream.seen()["billable"].get(customer, 0)
        return given

    def figures(self) -> str:
        """Return the results in a line for each customer."""
        customers = [UNLIMITED, *([self.steady] if self.steady else [])]
        statuses: Counter[str] = Counter()
        for account in self.accounts:
            for counts in account.answers.values():
                statuses.update(counts)
        lines = [f"{self.kills} kills; answers {dict(sorted(statuses.items()))}"]
        for name in customers:
            sums = f"answered {self.answered(name)} <= counted {self.counted(name)} <= given {self.billable(name)}"
            lines.append(f"{name}: {sums}; lost {self.lost(name)}")
        for account in self.accounts:
            outages = f"silence {account.silence:.3f} s, recovery {account.recovery:.3f} s"
            lines.append(f"{outages}, refused {account.refused}, reset {account.reset}, closed {account.closed}")
        return "\n".join(lines)

    def assert_counted(self) -> None:
        """Require: answered to clients <= counted <= given by the upstream
        (docs/design/counting.md#proof-obligations).
        """
        for customer in [UNLIMITED, *([self.steady] if self.steady else [])]:
            answered, counted, given = self.answered(customer), self.counted(customer), self.billable(customer)
            assert answered <= counted <= given, customer
            assert given - answered <= self.lost(customer)

    def assert_held(self, limit: int, workers: int) -> None:
        """Require the limit of `steady`: at most L + 2(N - 1) admitted, and no refusal while there was room.

        A lost worker may have charged requests that no client saw, so the room may be smaller by these.
        """
        assert self.steady is not None
        bound = limit + 2 * (workers - 1)
        assert self.counted(self.steady) <= bound
        assert self.received(self.steady) <= bound
        used = self.edge.limit(self.steady)["used"]
        assert self.counted(self.steady) <= used <= bound
        assert self.counted(self.steady) + self.lost(self.steady) >= limit

    def assert_served_throughout(self) -> None:
        """Require that no connection was refused, and that answers never stopped for long."""
        for account in self.accounts:
            assert account.refused == 0
            assert account.silence < OUTAGE
            assert account.recovery < OUTAGE


READY = re.compile(r'"pid": ?(\d+)[^\n]*"event": ?"worker ready"')


def whole_crew(edge: Edge, gone: set[int]) -> bool:
    """Return whether all workers run and are ready, and none of the killed ones is among them."""
    pids = set(edge.worker_pids())
    ready = {int(pid) for pid in READY.findall(edge.output)}
    return not pids & gone and len(pids) == edge.settings["workers"] and pids <= ready
