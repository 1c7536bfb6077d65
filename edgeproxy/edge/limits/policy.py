"""What a policy answers, and what it goes by; kinds.py has the classes that do."""

from typing import Protocol


class RuleTerms(Protocol):
    """What is decided by: a Rule (rule.py) without the subject that it is applied to, or how it is stored."""

    @property
    def name(self) -> str:
        """The label of the limit."""

    @property
    def limit(self) -> int:
        """At most so many, ≥ 1."""

    @property
    def window(self) -> float:
        """In so many seconds; 0: at once."""

    @property
    def depth(self) -> int:
        """What the bucket holds; 0 where there is none."""

    @property
    def prefix(self) -> bytes:
        """The RateLimit lines up to the number that is left."""


class Policy(Protocol):
    """One limit as it applies to one subject. `now` is edge time in seconds, a float; costs are counts ≥ 1."""

    @property
    def name(self) -> str:
        """The label of the limit: what a refusal names."""

    @property
    def cost(self) -> int:
        """What a request counts for."""

    @property
    def limit(self) -> int:
        """What may be charged in a window."""

    @property
    def most(self) -> int:
        """What passes at once where nothing is used: a cost above it never does."""

    @property
    def prefix(self) -> bytes:
        """The RateLimit lines up to the number that is left."""

    def left(self, now: float) -> int:
        """How much may still be charged; negative where the limit was lowered below what is used.

        Always call it before `charge`, with no await between the two, and with a `now` read for this decision.
        """

    def charge(self, cost: int = 1) -> None:
        """Count `cost`, whatever is left, in the cell that `left` looked at."""

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Whole seconds until `cost` passes if nothing else comes: never early, late by ≤ a cell + 1 s. 0: now."""

    def reset(self, now: float) -> int:
        """Whole seconds ≥ 1 until the oldest that is counted no longer is: the `t` of the RateLimit field."""

    def tail(self, now: float) -> bytes:
        """What follows the number in the RateLimit lines, `;t=12` and CRLF; made once a second.

        The two field lines are `policy.prefix + b"%d" % left + policy.tail(now)`, where `left` is not negative.
        """
