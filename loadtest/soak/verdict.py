"""The judge of a soak test: which fault explains which trouble, which sums must agree, and what must not grow."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeproxy.edge.proxy.connections.client import LAST_REQUEST_SECONDS
from loadtest.soak.account import Account, How, Trouble
from loadtest.soak.course import Calm
from loadtest.soak.fault import Fault, FaultKind, Held
from loadtest.soak.kinds import KINDS
from loadtest.soak.sums import Sums
from loadtest.soak.watch import Vitals, Watch, trend

GRACE = 2.0
"""Seconds after a fault within which clients notice its effects."""
BROKEN: tuple[How, ...] = ("reset", "closed", "cut", "unconnected")
"""Results of a client whose connection lost its other end."""
MIGRATES = Path("/proc/sys/net/ipv4/tcp_migrate_req").read_text().strip() == "1"
"""The kernel migrates the pending handshakes of a closed listening socket to other sockets of the port.

Without migration it resets them: 5 of 35,500 connections while a socket was replaced 66 times. With it, none of
32,200.
"""
LOST = 3
"""The most handshakes that a drain may lose if the kernel does not migrate them."""
LATENESS_SECONDS = 0.2
"""Seconds for which an answer and the next request may cross on the wire."""
MEMORY = 8 << 10
"""KiB that a process may gain in the calm phase: caches of heads and answers, and pieces of bodies."""
GAIN_KIB_MAX = 94 << 10
"""KiB that a process may hold at any moment beyond an idle one of the same edge. An idle worker holds 34 MiB. A copy of
the fork server holds 126 MiB, because that server has imported all commands.
"""
DESCRIPTORS = 12
"""Descriptors, other than connections, that all processes of a kind together may gain in the calm phase. Connections
open and close during a count, so the figure is inexact.
"""
SAMPLES = 10
"""The fewest readings of a process that are judged."""


def by_worker(fault: Fault, trouble: Trouble) -> bool:
    """A lost worker takes the connections that it held with it, and no others."""
    return trouble.how in BROKEN and trouble.port in fault.ports


def by_endpoint(fault: Fault, trouble: Trouble) -> bool:
    """One of several endpoints is lost, with the answers that it had begun and the requests that are not retried."""
    if trouble.how == "status":
        return trouble.status == 502 and not KINDS[trouble.kind].repeatable
    return trouble.how == "cut" and trouble.endpoint in fault.endpoints


def by_outage(fault: Fault, trouble: Trouble) -> bool:
    """All endpoints are lost, so the edge can answer no request."""
    return by_endpoint(fault, trouble) or (trouble.how == "status" and trouble.status in (502, 503))


def by_drain(_: Fault, trouble: Trouble) -> bool:
    """Old workers drain: they notify WebSockets, some kernels reset handshakes, and a request may reach an idle
    connection just after its end. No other client notices.
    """
    return trouble.how == "told" or is_handshake(trouble) or is_late(trouble)


def is_handshake(trouble: Trouble) -> bool:
    """Return whether a handshake may have been lost with its listening socket."""
    return not MIGRATES and trouble.new and trouble.how in ("unconnected", "reset", "closed")


def is_late(trouble: Trouble) -> bool:
    """Return whether a client was idle for as long as a draining worker waits for its next request.

    Such a request crosses the end of its connection (RFC 9112 section 9.5). Clients pause for less, but a busy machine
    makes them late.
    """
    is_idle = trouble.idle >= LAST_REQUEST_SECONDS - LATENESS_SECONDS
    return is_idle and trouble.how in ("reset", "closed") and not trouble.new and not trouble.endpoint


def by_death(_: Fault, trouble: Trouble) -> bool:
    """No edge serves until another edge starts."""
    return trouble.how in (*BROKEN, "refused")


def by_end(_: Fault, trouble: Trouble) -> bool:
    """Workers finish their requests, notify WebSockets and leave. Then no edge listens until another one starts."""
    return trouble.how in ("told", "refused", "unconnected")


def by_nothing(_: Fault, __: Trouble) -> bool:
    """No client may notice the fault."""
    return False


EXPLAINS: dict[FaultKind, Callable[[Fault, Trouble], bool]] = {
    **dict.fromkeys(FaultKind, by_nothing),
    FaultKind.KILL_WORKER: by_worker,
    FaultKind.HANG_WORKER: by_worker,
    FaultKind.KILL_SUPERVISOR: by_drain,
    FaultKind.KILL_STEP: by_drain,
    FaultKind.ROLL: by_drain,
    FaultKind.RESTART: by_endpoint,
    FaultKind.OUTAGE: by_outage,
    FaultKind.KILL_EDGE: by_death,
    FaultKind.TEAR: by_death,
    FaultKind.END: by_end,
    FaultKind.MOVE: by_end,
}


def explanation(trouble: Trouble, faults: list[Fault]) -> Fault | None:
    """Return the fault that was under way and may have caused this trouble, or None."""
    for fault in faults:
        if fault.began <= trouble.at <= fault.ended + GRACE and EXPLAINS[fault.kind](fault, trouble):
            return fault
    return None


@dataclass
class Outcome:
    """All records of a soak test and the expected values. Each check returns complaints; an empty list is a pass."""

    seed: int
    seconds: float
    fault_kinds: frozenset[FaultKind]
    """The kinds of faults that the test had to make."""
    faults: list[Fault]
    held: dict[str, Held]
    sums: list[Sums]
    """The sums of all sides whenever no request was under way. The last ones are of the end."""
    met: Counter[str]
    """The outcomes of the edge's requests to the collector."""
    watch: Watch
    calm: Calm
    idle: int
    """KiB that the smallest process of the edge held before the load."""

    @property
    def account(self) -> Account:
        """The account of all clients."""
        return self.sums[-1].account

    def complaints(self) -> list[str]:
        """Return all complaints."""
        sums = next((found for total in self.sums if (found := total.complaints())), [])
        return [*self.undone(), *self.unexplained(), *self.fallen(), *sums, *self.turns(), *self.growth()]

    def undone(self) -> list[str]:
        """Return the planned kinds of faults that did not happen: the test proves nothing about them."""
        missing = self.fault_kinds - {fault.kind for fault in self.faults}
        return [f"not done: {kind}" for kind in FaultKind if kind in missing]

    def explained(self) -> Counter[tuple[str, str, str]]:
        """Count the explained troubles by (kind of fault, how, status or empty)."""
        counts: Counter[tuple[str, str, str]] = Counter()
        for trouble in self.account.troubles:
            fault = explanation(trouble, self.faults)
            if fault is not None:
                counts[fault.kind, trouble.how, str(trouble.status) if trouble.how == "status" else ""] += 1
        return counts

    def unexplained(self) -> list[str]:
        """Return the troubles that no fault explains, and the drains that explain too many."""
        found, handshakes = [], Counter[int]()
        for trouble in self.account.troubles:
            fault = explanation(trouble, self.faults)
            if fault is None:
                found.append(f"no fault explains {trouble}")
            elif EXPLAINS[fault.kind] is by_drain and is_handshake(trouble):
                handshakes[self.faults.index(fault)] += 1
        several = [(self.faults[index], number) for index, number in handshakes.items() if number > LOST]
        return found + [f"{fault.kind} at {fault.began:.2f} lost {number} handshakes" for fault, number in several]

    def fallen(self) -> list[str]:
        """Return the counters that fell, and the exemptions that are not needed."""
        needless = [f"{name} need not be exempt: it outlives its supervisor" for name in self.watch.needlessly_exempt]
        blind = [] if self.watch.readings >= self.seconds / 3 else [f"only {self.watch.readings} looks at the counters"]
        return self.watch.falls + needless + blind + [repr(failure) for failure in self.watch.failures]

    def turns(self) -> list[str]:
        """Return errors about temporary customers and routes: each must be served while it exists and refused
        otherwise.
        """
        found = []
        for name, several in self.account.seen.items():
            for seen in several:
                there = self.held[name].between(seen.began, seen.at)
                refused = not seen.served and seen.status == KINDS[name].refusal
                if (seen.served and there == {False}) or (refused and there == {True}):
                    found.append(f"{name} at {seen.at:.2f}: status {seen.status}, though that held: {there}")
        return found

    def in_calm(self) -> dict[int, list[Vitals]]:
        """Return the readings of the processes that lived throughout the calm phase, without its first fifth, in which
        they settle.
        """
        begun = self.calm.began + (self.calm.ended - self.calm.began) / 5
        found = {
            pid: [held for held in several if begun <= held.at <= self.calm.ended]
            for pid, several in self.watch.vitals.items()
        }
        return {pid: several for pid, several in found.items() if len(several) >= SAMPLES}

    def beside(self, role: str) -> list[tuple[float, float]]:
        """Return how many descriptors other than connections the processes of a role held together, at each reading."""
        found: dict[int, tuple[float, float]] = {}
        connections = self.watch.connections if role == "worker" else dict.fromkeys(self.watch.connections, 0.0)
        for pid, several in self.in_calm().items():
            if self.watch.roles[pid] == role:
                for held in several:
                    if held.look in connections:
                        at, others = found.get(held.look, (held.at, -connections[held.look]))
                        found[held.look] = at, others + held.descriptors
        return list(found.values())

    def growth(self) -> list[str]:
        """Return the processes that grow in the calm phase (reloads only) or are too large at any time."""
        found = []
        for pid, several in self.in_calm().items():
            memory = trend([(held.at, held.memory) for held in several])
            who = f"{self.watch.roles[pid]} {pid}"
            if memory.growth > MEMORY:
                found.append(f"{who} grew from {memory.begin:.0f} to {memory.end:.0f} KiB in the calm")
        for role in ("worker", "supervisor"):
            several_open = self.beside(role)
            if len(several_open) >= SAMPLES and (line := trend(several_open)).growth > DESCRIPTORS:
                found.append(f"{role}s went from {line.begin:.0f} to {line.end:.0f} descriptors beside connections")
        if self.calm.ended and not self.in_calm():
            found.append("no process was seen for long enough to say how it grows")
        for pid, several in self.watch.vitals.items():
            largest = max(held.memory for held in several)
            if largest > self.idle + GAIN_KIB_MAX:
                found.append(
                    f"{self.watch.roles[pid]} {pid} held {largest} KiB, and {self.idle} KiB are usual when idle"
                )
        return found
