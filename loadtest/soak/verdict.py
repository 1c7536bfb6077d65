"""The judge: which trouble is explained by which fault, which sums must agree, and what must stay as it was."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeproxy.edge.proxy.client import LAST_REQUEST_SECONDS
from loadtest.soak.account import Account, How, Trouble
from loadtest.soak.course import Calm
from loadtest.soak.fault import Deed, Fault, Held
from loadtest.soak.kinds import KINDS
from loadtest.soak.sums import Sums
from loadtest.soak.watch import Vitals, Watch, trend

GRACE = 2.0
"""Seconds after a fault within which clients have noticed what it did."""
BROKEN: tuple[How, ...] = ("reset", "closed", "cut", "unconnected")
"""What it looks like when the other end of a connection is gone."""
MIGRATES = Path("/proc/sys/net/ipv4/tcp_migrate_req").read_text().strip() == "1"
"""Whether the kernel hands the handshakes of a listening socket that is closed to others of its port. Else it resets
them: of 35,500 connections 5, while a socket was replaced 66 times; of 32,200 none where it does."""
LOST = 3
"""Handshakes that a drain may lose at most where they are not handed over."""
LATENESS_SECONDS = 0.2
"""Seconds for which an answer, and the next request, may be on their way together."""
MEMORY = 8 << 10
"""KiB by which a process may grow in the calm: what is remembered of heads and answers, and pieces of bodies."""
GAIN_KIB_MAX = 94 << 10
"""KiB that a process may hold at any moment beyond an idle one of the same edge. An idle worker holds 34 MiB. A copy of
the fork server holds 126 MiB, because that server has imported all commands."""
DESCRIPTORS = 12
"""How many descriptors that are no connections all processes of a kind may have more at the end of the calm; while
one looks, connections come and go."""
SAMPLES = 10
"""Looks at a process without which nothing is said of it."""


def by_worker(fault: Fault, trouble: Trouble) -> bool:
    """A worker is lost with the connections that it held, and with no others."""
    return trouble.how in BROKEN and trouble.port in fault.ports


def by_endpoint(fault: Fault, trouble: Trouble) -> bool:
    """One of several endpoints is lost: with answers that it had begun, and with requests that are not sent twice."""
    if trouble.how == "status":
        return trouble.status == 502 and not KINDS[trouble.kind].repeatable
    return trouble.how == "cut" and trouble.endpoint in fault.endpoints


def by_outage(fault: Fault, trouble: Trouble) -> bool:
    """All endpoints are lost: nobody can be answered."""
    return by_endpoint(fault, trouble) or (trouble.how == "status" and trouble.status in (502, 503))


def by_drain(_: Fault, trouble: Trouble) -> bool:
    """Old workers leave: WebSockets are told, some kernels reset handshakes, a request that comes to an idle connection
    after its last moment meets its end, and nobody else notices."""
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
    """Nobody serves until another edge does."""
    return trouble.how in (*BROKEN, "refused")


def by_end(_: Fault, trouble: Trouble) -> bool:
    """Workers end what they have begun, tell WebSockets, and leave; then nobody listens until another edge does."""
    return trouble.how in ("told", "refused", "unconnected")


def by_nothing(_: Fault, __: Trouble) -> bool:
    """Nobody may notice anything."""
    return False


EXPLAINS: dict[Deed, Callable[[Fault, Trouble], bool]] = {
    **dict.fromkeys(Deed, by_nothing),
    Deed.KILL_WORKER: by_worker,
    Deed.HANG_WORKER: by_worker,
    Deed.KILL_SUPERVISOR: by_drain,
    Deed.KILL_STEP: by_drain,
    Deed.ROLL: by_drain,
    Deed.RESTART: by_endpoint,
    Deed.OUTAGE: by_outage,
    Deed.KILL_EDGE: by_death,
    Deed.TEAR: by_death,
    Deed.END: by_end,
    Deed.MOVE: by_end,
}


def explanation(trouble: Trouble, faults: list[Fault]) -> Fault | None:
    """The fault that was under way and can have caused this; None where there is none."""
    for fault in faults:
        if fault.began <= trouble.at <= fault.ended + GRACE and EXPLAINS[fault.deed](fault, trouble):
            return fault
    return None


@dataclass
class Outcome:
    """All that was written down, and what it is held against. Each check returns complaints; none is good."""

    seed: int
    seconds: float
    deeds: frozenset[Deed]
    """What had to be done."""
    faults: list[Fault]
    held: dict[str, Held]
    sums: list[Sums]
    """What everybody said whenever nothing was under way; the last one is of the end."""
    met: Counter[str]
    """What became of the edge's requests to the collector."""
    watch: Watch
    calm: Calm
    idle: int
    """KiB that the smallest process of the edge held before the load."""

    @property
    def account(self) -> Account:
        """Of all clients."""
        return self.sums[-1].account

    def complaints(self) -> list[str]:
        """Everything that is not as it must be."""
        sums = next((found for each in self.sums if (found := each.complaints())), [])
        return [*self.undone(), *self.unexplained(), *self.fallen(), *sums, *self.turns(), *self.growth()]

    def undone(self) -> list[str]:
        """Deeds that were not done, of which nothing is known therefore."""
        return [f"not done: {deed}" for deed in Deed if deed in self.deeds - {fault.deed for fault in self.faults}]

    def explained(self) -> Counter[tuple[str, str, str]]:
        """How often which deed explains which trouble: (deed, how, status or nothing)."""
        found: Counter[tuple[str, str, str]] = Counter()
        for trouble in self.account.troubles:
            fault = explanation(trouble, self.faults)
            if fault is not None:
                found[fault.deed, trouble.how, str(trouble.status) if trouble.how == "status" else ""] += 1
        return found

    def unexplained(self) -> list[str]:
        """Troubles that no fault explains, and drains that explain too many."""
        found, handshakes = [], Counter[int]()
        for trouble in self.account.troubles:
            fault = explanation(trouble, self.faults)
            if fault is None:
                found.append(f"no fault explains {trouble}")
            elif EXPLAINS[fault.deed] is by_drain and is_handshake(trouble):
                handshakes[self.faults.index(fault)] += 1
        several = [(self.faults[index], number) for index, number in handshakes.items() if number > LOST]
        return found + [f"{fault.deed} at {fault.began:.2f} lost {number} handshakes" for fault, number in several]

    def fallen(self) -> list[str]:
        """Counters that fell, and exemptions that are not needed."""
        needless = [f"{name} need not be exempt: it outlives its supervisor" for name in self.watch.needlessly_exempt]
        blind = [] if self.watch.readings >= self.seconds / 3 else [f"only {self.watch.readings} looks at the counters"]
        return self.watch.falls + needless + blind + [repr(failure) for failure in self.watch.failures]

    def turns(self) -> list[str]:
        """Customers and routes that come and go: served while they are there, refused while they are not."""
        found = []
        for name, several in self.account.seen.items():
            for seen in several:
                there = self.held[name].between(seen.began, seen.at)
                refused = not seen.served and seen.status == KINDS[name].refusal
                if (seen.served and there == {False}) or (refused and there == {True}):
                    found.append(f"{name} at {seen.at:.2f}: status {seen.status}, though that held: {there}")
        return found

    def in_calm(self) -> dict[int, list[Vitals]]:
        """What the processes held that lived throughout the calm; its beginning, in which they settle, left out."""
        begun = self.calm.began + (self.calm.ended - self.calm.began) / 5
        found = {
            pid: [held for held in several if begun <= held.at <= self.calm.ended]
            for pid, several in self.watch.vitals.items()
        }
        return {pid: several for pid, several in found.items() if len(several) >= SAMPLES}

    def beside(self, role: str) -> list[tuple[float, float]]:
        """How many descriptors they had together that are no connections, at each look in the calm."""
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
        """Processes that grow while nothing but reloads happens, or are too large at any time."""
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
