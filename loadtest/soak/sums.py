"""What everybody says of what was sent, and how these must agree: docs/design/counting.md#proof-obligations."""

from dataclasses import dataclass

from loadtest.soak.account import Account
from loadtest.soak.kinds import KINDS, LIMITED
from loadtest.soak.tally import ODD


@dataclass
class Sums:
    """All of it, by customer, at a moment at which nothing is under way and everything has arrived."""

    account: Account
    """Of all clients until then."""
    counted: dict[str, int]
    """Requests in `/usage`."""
    sealed: dict[str, int]
    """The same in the edge's batches."""
    ledger: dict[str, int]
    """The same in the collector."""
    metered: float
    """The same in `/metrics`, all together."""
    given: dict[str, int]
    """Billable answers of endpoints; `odd` for what no customer can have asked."""
    retries: float
    """Requests that the edge sent once more."""
    limited: float
    """Refusals by a limit in `/metrics`."""
    verdicts: dict[str, tuple[int, str]]
    """What commands said that look at all of it: exit code and output."""

    def complaints(self) -> list[str]:
        """Whatever does not agree; none is good."""
        return [*self._edge(), *self._way()]

    def _edge(self) -> list[str]:
        """For each kind of traffic: answered <= counted <= answered + lost, and counted <= given.

        And given <= answered + lost + retries. So where no request of a kind was lost, what clients got is what is
        counted; and where it cannot be sent twice, what was given.
        """
        found = []
        for name, kind in KINDS.items():
            answered, lost = self.account.answered[name], self.account.lost(name)
            counted, given = self.counted.get(name, 0), self.given[name]
            again = int(self.retries) if kind.repeatable else 0
            if not answered <= counted <= answered + lost:
                found.append(f"{name}: answered {answered}, lost {lost}, but counted {counted}")
            if not counted <= given <= answered + lost + again:
                found.append(
                    f"{name}: counted {counted}, answered {answered}, lost {lost}, sent again {again}, "
                    f"but given {given}"
                )
            if not self.account.whole[name]:
                found.append(f"{name}: nothing arrived whole")
        refused = self.account.refused[LIMITED]
        if not 0 < refused <= self.limited <= refused + self.account.lost(LIMITED):
            found.append(f"{refused} were refused by a limit, /metrics counts {self.limited:g}")
        if self.given[ODD]:
            found.append(f"endpoints got {self.given[ODD]} requests that no client can have made")
        return found

    def _way(self) -> list[str]:
        """What the edge counted is in its batches and in the ledger, once."""
        found = []
        if self.metered != sum(self.counted.values()):
            found.append(f"/metrics counts {self.metered:g} requests, /usage {sum(self.counted.values())}")
        for what, has in (("the batches have", self.sealed), ("the ledger has", self.ledger)):
            for name in sorted({*self.counted, *has}):
                counted, there = self.counted.get(name, 0), has.get(name, 0)
                if counted != there:
                    found.append(f"{name}: counted {counted}, but {what} {there}")
        return found + [f"{command}: {said.strip()}" for command, (code, said) in self.verdicts.items() if code]
