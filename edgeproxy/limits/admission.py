"""Admission under several policies: all are checked, then all are charged, or none is."""

from collections.abc import Sequence
from typing import NamedTuple

from edgeproxy.limits.policies import Policy


class Denied(NamedTuple):
    """Why a request is refused: the policies without room for it, in their order, and when to come back (seconds)."""

    violated: tuple[Policy, ...]
    retry_after: int


def admit(policies: Sequence[Policy], now: float, cost: int = 1) -> tuple[Policy | None, Policy | None, int]:
    """One synchronous decision at edge time `now`: `(refusing, shown, left)`.

    `refusing` is None where all were charged. `shown` is the policy closest to refusal (None without policies):
    of those with the least left the first; `left` is what it has left after this request. Where a policy refuses
    nobody is charged, `shown` is that policy, and `left` what it has left now; never negative.
    """
    shown = None
    least = 0
    for policy in policies:
        left = policy.left(now) - cost
        if left < 0:
            return policy, policy, max(0, left + cost)
        if shown is None or left < least:
            shown, least = policy, left
    for policy in policies:
        policy.charge(cost)
    return None, shown, least


def denied(policies: Sequence[Policy], now: float, cost: int = 1) -> Denied:
    """What to tell the client whom `admit` refused: every policy that refuses, and the longest of their waits.

    Where none refuses any more, as when a table just had a row again, it is the first of them, for a second.
    """
    if len(policies) == 1:
        # The usual case, and a flood of refusals should cost little.
        return Denied(tuple(policies), policies[0].retry_after(now, cost) or 1)
    waits = [(policy, wait) for policy in policies if (wait := policy.retry_after(now, cost))]
    if not waits:
        return Denied(tuple(policies[:1]), 1)
    return Denied(tuple([policy for policy, _ in waits]), max([wait for _, wait in waits]))
