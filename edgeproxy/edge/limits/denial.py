"""Denials: the limits that refuse a request, and the seconds until a retry."""

from collections.abc import Sequence

from edgeproxy.edge.limits.limit_set import Bound, ImpossibleCost, LimitSet
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.window import HUB_RETRY_SECONDS

Denial = tuple[tuple[Bound, ...], int]
"""A refusal: the limits without room, in their order, and the seconds until a retry. 0 if no retry can succeed, see
`find_impossible_costs`.
"""


def compute_gate_denial(limit_set: LimitSet, held: tuple[Policy, ...]) -> Denial:
    """Return the denial of a request that `find_blocking_gate` named a gate for and that could not wait, or waited in
    vain.

    Other hosts may release claims soon. If nothing passes without the hub while it is away, the retry must wait for the
    next attempt to reach it.
    """
    gates = (*limit_set.traits.sharing.gates, *limit_set.traits.sharing.reporting_gates.items())
    return held, (HUB_RETRY_SECONDS if any(gate.is_shut for policy, gate in gates if policy in held) else 1)


def is_certain(limit_set: LimitSet, now: float, violated: Sequence[Bound], held: tuple[Policy, ...]) -> bool:
    """Return whether this host knew all counts of the limits that refuse (see `compute_denial`).

    It knew them if the hub answered just now. It did not if the hub is away, if its last answer is too old, or if a
    request waited for claims in vain: those policies are `held`. A limit that no hub shares is counted here alone, and
    is certain.
    """
    sharing = limit_set.traits.sharing
    for policy, gate in (*sharing.gates, *sharing.paying, *sharing.reporting_gates.items()):
        if policy in held and (gate.is_away or not gate.is_asking_useless(now)):
            return False
        if policy in violated and not (policy in held or gate.is_certain(now)):
            return False
    return True


def compute_denial(limit_set: LimitSet, now: float, left: int | None = None) -> Denial:
    """Return the denial of a request that `admit` refused: all limits that refuse, and the longest of their waits.

    `left` is the rest of the set's only rate if it was read for this request. No wait helps if a request costs more
    than one of them ever passes.

    If no limit refuses any more, another worker has released a slot since, or two requests wanted it at once: then the
    denial names a slot. Without slots, as when a table has a row again, it names the first policy. The wait is a second
    then.
    """
    rate, slot = limit_set.rate, limit_set.slot
    violated: tuple[Bound, ...]
    # Mostly a lone rate refuses, and there are free slots.
    if rate is not None and left is None:
        left = rate.left(now)
    if rate is not None and left is not None and left < rate.cost and (slot is None or not slot.retry_after(now)):
        violated, longest = (rate,), rate.compute_wait(left, now, rate.cost)
    else:
        violated, longest = _list_violated(limit_set, now)
    if not violated:
        named: tuple[Bound, ...] = (*limit_set.slots, *limit_set.policies, *limit_set.bounds)
        return named[:1], 1
    never = limit_set.traits.impossible_costs
    if never is None:
        never = find_impossible_costs(limit_set)
    return violated, 0 if never else longest


def _list_violated(limit_set: LimitSet, now: float) -> Denial:
    """Return the limits that refuse, and the longest of their waits."""
    violated: list[Bound] = []
    longest = 0
    traits = limit_set.traits
    credits = traits.credits
    policies = limit_set.policies
    for policy in policies:
        wait = policy.retry_after(now, policy.cost)
        if wait and credits is not None and policy in policies[: traits.plan_policies]:
            # Whichever is sooner: the limit has room again, or there are enough credits.
            wait = min(wait, credits.retry_after(now, credits.cost))
        if wait:
            violated.append(policy)
            if wait > longest:
                longest = wait
    # Most sets have slots alone, which needs no call.
    for bound in limit_set.slots if traits.simple else limit_set.bounds:
        wait = bound.retry_after(now, 1)
        if wait:
            violated.append(bound)
            if wait > longest:
                longest = wait
    return tuple(violated), longest


def find_impossible_costs(limit_set: LimitSet) -> tuple[ImpossibleCost, ...]:
    """Return the limits of this set that never pass a request, because its cost exceeds them."""
    known = limit_set.traits.impossible_costs
    if known is None:
        # Computed once: every refusal asks, and the answer does not change.
        rates = (
            limit_set.policies
            if limit_set.traits.credits is None
            else limit_set.policies[limit_set.traits.plan_policies :]
        )
        limit_set.traits.impossible_costs = known = (
            *[ImpossibleCost(rate.name, rate.cost, rate.most) for rate in rates if rate.cost > rate.most],
            *[
                ImpossibleCost(quota.name, quota.needs, quota.limit)
                for quota in limit_set.traits.quotas
                if quota.hard and quota.needs > quota.limit
            ],
        )
    return known
