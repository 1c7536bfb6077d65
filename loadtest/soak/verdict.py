"""The judge: which trouble is explained by which fault, which sums must agree, and what must stay as it was."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from loadtest.soak.account import Account, How, Trouble
from loadtest.soak.course import Calm
from loadtest.soak.fault import Deed, Fault, Held
from loadtest.soak.kinds import KINDS, LIMITED
from loadtest.soak.tally import ODD
from loadtest.soak.watch import Vitals, Watch, trend

GRACE = 2.0
"""Seconds after a fault within which clients have noticed what it did."""
BROKEN: tuple[How, ...] = ("reset", "closed", "cut", "unconnected")
"""What it looks like when the other end of a connection is gone."""
MEMORY = 8 << 10
"""KiB by which a process may grow in the calm: what is remembered of heads and answers, and pieces of bodies."""
LARGEST = 128 << 10
"""KiB that a process may hold of its own at any moment."""
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
    """Old workers leave: WebSockets are told, and nobody else notices."""
    return trouble.how == "told"


def by_nothing(_: Fault, __: Trouble) -> bool:
    """Nobody may notice anything."""
    return False


EXPLAINS: dict[Deed, Callable[[Fault, Trouble], bool]] = {
    Deed.RELOAD: by_nothing,
    Deed.BAD_RELOAD: by_nothing,
    Deed.KILL_WORKER: by_worker,
    Deed.HANG_WORKER: by_worker,
    Deed.KILL_SUPERVISOR: by_drain,
    Deed.ROLL: by_drain,
    Deed.RESTART: by_endpoint,
    Deed.OUTAGE: by_outage,
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
    account: Account
    faults: list[Fault]
    held: dict[str, Held]
    counted: dict[str, int]
    """Requests in `/usage`, by customer."""
    metered: float
    """The same in `/metrics`, all together."""
    given: dict[str, int]
    """Answers of endpoints, by customer; `odd` for what no customer can have asked."""
    retries: float
    """Requests that the edge sent once more."""
    limited: float
    """Refusals by a limit in `/metrics`."""
    watch: Watch
    calm: Calm

    def complaints(self) -> list[str]:
        """Everything that is not as it must be."""
        return [*self.undone(), *self.unexplained(), *self.fallen(), *self.sums(), *self.turns(), *self.growth()]

    def undone(self) -> list[str]:
        """Deeds that were not done, of which nothing is known therefore."""
        return [f"not done: {deed}" for deed in Deed if deed not in {fault.deed for fault in self.faults}]

    def explained(self) -> Counter[tuple[str, str, str]]:
        """How often which deed explains which trouble: (deed, how, status or nothing)."""
        found: Counter[tuple[str, str, str]] = Counter()
        for trouble in self.account.troubles:
            fault = explanation(trouble, self.faults)
            if fault is not None:
                found[fault.deed, trouble.how, str(trouble.status) if trouble.how == "status" else ""] += 1
        return found

    def unexplained(self) -> list[str]:
        """Troubles that no fault explains."""
        return [
            f"no fault explains {trouble}"
            for trouble in self.account.troubles
            if explanation(trouble, self.faults) is None
        ]

    def fallen(self) -> list[str]:
        """Counters that fell, and exemptions that are not needed."""
        needless = [f"{name} need not be exempt: it outlives its supervisor" for name in self.watch.needlessly_exempt]
        blind = [] if self.watch.readings >= self.seconds / 3 else [f"only {self.watch.readings} looks at the counters"]
        return self.watch.falls + needless + blind + [repr(failure) for failure in self.watch.failures]

    def sums(self) -> list[str]:
        """For each kind of traffic, docs/design/counting.md#proof-obligations:

        answered <= counted <= answered + lost, and counted <= given <= counted + lost + retries. So where no request
        of a kind was lost, what clients got is what is counted; and where it cannot be sent twice, what was given.
        """
        found = []
        for name, kind in KINDS.items():
            answered, lost = self.account.answered[name], self.account.lost(name)
            counted, given = self.counted.get(name, 0), self.given[name]
            again = int(self.retries) if kind.repeatable else 0
            if not answered <= counted <= answered + lost:
                found.append(f"{name}: answered {answered}, lost {lost}, but counted {counted}")
            if not counted <= given <= counted + lost + again:
                found.append(f"{name}: counted {counted}, lost {lost}, sent again {again}, but given {given}")
            if not self.account.whole[name]:
                found.append(f"{name}: nothing arrived whole")
        if self.metered != sum(self.counted.values()):
            found.append(f"/metrics counts {self.metered:g} requests, /usage {sum(self.counted.values())}")
        refused = self.account.refused[LIMITED]
        if not 0 < refused <= self.limited <= refused + self.account.lost(LIMITED):
            found.append(f"{refused} were refused by a limit, /metrics counts {self.limited:g}")
        if self.given[ODD]:
            found.append(f"endpoints got {self.given[ODD]} requests that no client can have made")
        return found

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
            if largest > LARGEST:
                found.append(f"{self.watch.roles[pid]} {pid} held {largest} KiB")
        return found
