"""The interface of policies, and the terms they decide by; kinds.py lists the classes that implement it."""

from typing import Protocol

from edgeproxy.edge.limits.counts import Counts


class RuleTerms(Protocol):
    """The terms of a decision: a Rule (rule.py) without its subject and its storage."""

    @property
    def name(self) -> str:
        """The label of the limit."""

    @property
    def limit(self) -> int:
        """The limit, a count ≥ 1."""

    @property
    def scope(self) -> str:
        """The subject that is counted, one of SCOPES (rule.py)."""

    @property
    def of(self) -> str:
        """The meter whose units are counted; empty for requests and their costs."""

    @property
    def window(self) -> float:
        """The seconds of its window; 0 for concurrency."""

    @property
    def depth(self) -> int:
        """The depth of the bucket; 0 without one."""

    @property
    def prefix(self) -> bytes:
        """The RateLimit lines up to the number that is left."""


class Policy(Protocol):
    """One limit as it applies to one subject. `now` is edge time in seconds, a float; costs are counts ≥ 1."""

    @property
    def name(self) -> str:
        """The label of the limit, which refusals name."""

    @property
    def rule(self) -> RuleTerms:
        """The terms of its decisions."""

    @property
    def counts(self) -> Counts:
        """The counts of its row."""

    @property
    def cost(self) -> int:
        """The cost of a request."""

    @property
    def limit(self) -> int:
        """The charge allowed per window."""

    @property
    def most(self) -> int:
        """The highest cost that passes at once while nothing is used."""

    def left(self, now: float) -> int:
        """Return how much may still be charged; negative if the limit was lowered below its use.

        Always call it before `charge`, with no await between the two, and with a `now` read for this decision.
        """

    def charge(self, cost: int = 1) -> None:
        """Count `cost`, whatever is left, in the cell that `left` read."""

    def charge_late(self, cost: int) -> None:
        """Count a `cost` that was not known to the decision. Call `left` before, as before `charge`."""

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return the whole seconds until `cost` passes if no other request comes; 0 if it passes now.

        Never early, and late by at most a cell + 1 s.
        """

    def compute_wait(self, left: int, now: float, cost: int) -> int:
        """Return `retry_after` of a cost above `left`, the result of the last call of `left`."""

    def reset(self, now: float) -> int:
        """Return the whole seconds ≥ 1 until the oldest count has left the window: the `t` of the RateLimit field."""

    def tail(self, now: float) -> bytes:
        """Return the end of the RateLimit lines, `;t=12` and CRLF; computed once a second.

        The two field lines are `policy.rule.prefix + b"%d" % left + policy.tail(now)`, where `left` is not negative.
        """
