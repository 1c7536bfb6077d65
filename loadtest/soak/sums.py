"""The counts of all parties, and the rules for how they must agree: docs/design/counting.md#proof-obligations."""

from dataclasses import dataclass

from loadtest.soak.account import Account
from loadtest.soak.kinds import KINDS, LIMITED
from loadtest.soak.tally import ODD


@dataclass
class Sums:
    """All counts by customer, at a moment without requests under way, after all batches have arrived."""

    account: Account
    """The account of all clients until then."""
    counted: dict[str, int]
    """Requests in `/usage`."""
    sealed: dict[str, int]
    """Requests in the edge's batches."""
    ledger: dict[str, int]
    """Requests in the collector."""
    metered: float
    """Requests in `/metrics`, all together."""
    given: dict[str, int]
    """Billable answers of endpoints; `odd` for requests that no customer can have sent."""
    retries: float
    """Requests that the edge retried."""
    limited: float
    """Refusals by a limit in `/metrics`."""
    verdicts: dict[str, tuple[int, str]]
    """Results of the commands that check all data: exit code and output."""

    def complaints(self) -> list[str]:
        """Return all disagreements; an empty list is a pass."""
        return [*self._edge(), *self._way()]

    def _edge(self) -> list[str]:
        """Check each kind of traffic: answered <= counted <= answered + lost, and counted <= given.

        Also given <= answered + lost + retries. So if no request of a kind was lost, the clients' answers are the
        counts. If a kind cannot be retried, the counts are also the endpoints' answers.
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
        """Check that the edge's counts are in its batches and in the ledger, once."""
        found = []
        if self.metered != sum(self.counted.values()):
            found.append(f"/metrics counts {self.metered:g} requests, /usage {sum(self.counted.values())}")
        for what, has in (("the batches have", self.sealed), ("the ledger has", self.ledger)):
            for name in sorted({*self.counted, *has}):
                counted, there = self.counted.get(name, 0), has.get(name, 0)
                if counted != there:
                    found.append(f"{name}: counted {counted}, but {what} {there}")
        return found + [f"{command}: {said.strip()}" for command, (code, said) in self.verdicts.items() if code]
