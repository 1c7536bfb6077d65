"""Nothing lost, nothing counted twice: what clients got, what the ledger has, what the upstream answered. Pure."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Accounts(NamedTuple):
    """Requests by customer. `unanswered`: sent, and never answered, as clients saw it."""

    answered: Mapping[str, int]
    unanswered: Mapping[str, int]
    ledger: Mapping[str, int]
    upstream: Mapping[str, int]


class Row(NamedTuple):
    """A customer of whom the three differ by more than they may: `why` says how."""

    customer: str
    answered: int
    ledger: int
    upstream: int
    why: str


def breaches(accounts: Accounts) -> Iterator[Row]:
    """Customers by whom answered ≤ ledger ≤ upstream does not hold, or not as closely as it should.

    They are equal where every request was answered; else apart by no more requests than were not.
    """
    for customer in sorted({*accounts.answered, *accounts.ledger, *accounts.upstream}):
        answered = accounts.answered.get(customer, 0)
        ledger = accounts.ledger.get(customer, 0)
        upstream = accounts.upstream.get(customer, 0)
        unanswered = accounts.unanswered.get(customer, 0)
        why = ""
        if ledger < answered:
            why = f"{answered - ledger} answered and not in the ledger"
        elif ledger > upstream:
            why = f"{ledger - upstream} in the ledger that the upstream never answered"
        elif ledger - answered > unanswered:
            why = f"{ledger - answered} in the ledger beyond what was answered, {unanswered} were under way"
        elif upstream - ledger > unanswered:
            why = f"{upstream - ledger} answered by the upstream and not in the ledger, {unanswered} were under way"
        if why:
            yield Row(customer, answered, ledger, upstream, why)


def totals(accounts: Accounts) -> tuple[int, int, int]:
    """Answered, in the ledger, answered by the upstream: over all customers."""
    return sum(accounts.answered.values()), sum(accounts.ledger.values()), sum(accounts.upstream.values())
