"""Admission of a request under all limits that apply to it: all are checked, then all are charged, or none is."""

from collections.abc import Sequence
from typing import NamedTuple

from edgeproxy.edge.limits.concurrency import ConcurrencyLimit
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.quota import Quota
from edgeproxy.edge.limits.unit_limit import BudgetReservation, UnitLimit


class AdmissionNotes(NamedTuple):
    """Further results of an admission."""

    shadows: tuple[Policy, ...] = ()
    """Shadow policies that would have refused."""
    over: tuple[Quota, ...] = ()
    """Soft quotas that are used up."""
    paid: tuple[Policy, ...] = ()
    """Policies that had no room and were not charged, as credits paid."""


Admission = tuple[bool, Policy | None, int, AdmissionNotes | None]
"""True if the request is refused, the policy closest to refusal, the rest of that policy, and further results."""


def admit(limit_set: LimitSet, now: float, shut: tuple[Policy, ...] = ()) -> Admission:
    """Decide synchronously at edge time `now` whether a request passes, and charge it.

    `shut` are policies as of `find_blocking_gate`, given only if credits pay. The policy in the result is the first one
    with the least left, or None without rates. Its rest is the amount left after this request, or left now if the
    request is refused. It is never negative.
    """
    shown = None
    least = has = 0
    charged = limit_set.policies
    paid = shut
    if shut:
        charged = tuple([policy for policy in charged if policy not in shut])
        shown, least = shut[0], -shut[0].cost
    for policy in charged:
        left = policy.left(now)
        after = left - policy.cost
        if after < 0:
            if policy not in limit_set.policies[: limit_set.traits.plan_policies]:
                return True, policy, max(0, left), None
            charged = tuple([each for each in charged if each is not policy])
            paid = (*paid, policy)
        if shown is None or after < least:
            shown, least, has = policy, after, left
    for policy in limit_set.traits.other_rates.reported:
        # The later charge is not known yet, so the request passes while anything is left.
        left = policy.left(now)
        if left < 1:
            return True, policy, max(0, left), None
        if shown is None or left - 1 < least:
            shown, least, has = policy, left - 1, left
    for units in limit_set.traits.other_rates.units:
        left = units.policy.left(now)
        after = left - units.reserve
        if after < 0:
            return True, units.policy, max(0, left), None
        if shown is None or after < least:
            shown, least, has = units.policy, after, left
    has = max(0, has)
    buyer = limit_set.traits.credits if paid else None
    if buyer is not None and buyer.left(now) < buyer.cost:
        return True, shown, has, None
    over = []
    for quota in limit_set.traits.quotas:
        if quota.left(now) < quota.needs:
            if quota.hard:
                return True, shown, has, None
            over.append(quota)
    if limit_set.slots and not _acquire_slots(limit_set.slots, now):
        return True, shown, has, None
    for policy in charged:
        policy.charge(policy.cost)
        if policy is shown:
            has -= policy.cost
    for units in limit_set.traits.other_rates.units:
        if units.policy is shown:
            has -= units.reserve
    if buyer is not None:
        buyer.charge(buyer.cost)
    for quota in limit_set.traits.quotas:
        if quota.cost:
            quota.charge(quota.cost)
    hit = []
    for shadow in limit_set.traits.other_rates.shadows:
        if shadow.left(now) < shadow.cost:
            hit.append(shadow)
        else:
            shadow.charge(shadow.cost)
    hit += [trial for trial in limit_set.traits.other_rates.trials if trial.left(now) < 1]
    if hit or over or buyer is not None:
        return False, shown, has, AdmissionNotes(tuple(hit), tuple(over), paid)
    return False, shown, has, None


def admit_fast(limit_set: LimitSet, now: float) -> Admission | None:
    """Decide at edge time `now` on a request whose gates are open, and charge it. For others return None and charge
    nothing.

    Most requests are decided here. It does the work of `find_blocking_gate`, `admit` and `notify_hosts`, and needs a
    set that is `simple`. The rest of a lone rate that refuses may be negative.
    """
    shown = limit_set.rate
    if shown is not None:
        left = shown.left(now)
        if left < shown.cost:
            return True, shown, left, None
        if limit_set.slot is not None and not limit_set.slot.acquire(now):
            return True, shown, left, None
        shown.charge(shown.cost)
        return False, shown, left - shown.cost, None
    shares, least = limit_set.traits.shares, 0
    policies, slots = limit_set.several
    for policy in policies:
        left = policy.left(now) - policy.cost
        if left < 0:
            if shares:
                notify_hosts(limit_set, now, True)
            return True, policy, max(0, left + policy.cost), None
        if shown is None or left < least:
            shown, least = policy, left
    if shares:
        for policy, gate in limit_set.traits.sharing.gates:
            if not gate.is_open(now, policy.cost):
                return None
    # As `_acquire_slots`: its call would add 530 instructions to the 82,600 of a small request.
    for slot in slots:
        if not slot.acquire(now):
            for taken in slots[: slots.index(slot)]:
                taken.release()
            return None if shares else (True, shown, least if shown is None else least + shown.cost, None)
    for policy in policies:
        policy.charge(policy.cost)
    if shares:
        notify_totals(limit_set, now)
    return False, shown, least, None


def find_blocking_gate(limit_set: LimitSet, now: float, shut: tuple[Policy, ...] = ()) -> tuple[Policy, Gate] | None:
    """Find the first gate that must ask, or refuses, for a request that every limit has room for.

    `shut` are policies whose gates were asked in vain; they count as full. The gate of credits comes last, and only for
    requests that credits pay for. A rate that is charged later refuses only while the hub is away.
    """
    for policy, gate in limit_set.traits.sharing.gates:
        left = policy.left(now)
        if left < policy.cost:
            if limit_set.traits.credits is None:
                return None
            break
        if gate.must_ask(now, policy.cost, left):
            break
    else:
        if not shut:
            return _find_withholding_gate(limit_set, now) if limit_set.traits.sharing.reporting_gates else None
    short = list_exhausted(limit_set, now, shut)
    if short and not can_credits_cover(limit_set, now, short):
        return None  # Claims are useless to a request that another limit refuses.
    for policy, gate in limit_set.traits.sharing.gates:
        if policy not in short and gate.must_ask(now, policy.cost, policy.left(now)):
            return policy, gate
    for credits, gate in limit_set.traits.sharing.paying:
        if short and gate.must_ask(now, credits.cost, credits.left(now)):
            return credits, gate
    return _find_withholding_gate(limit_set, now) if limit_set.traits.sharing.reporting_gates else None


def _find_withholding_gate(limit_set: LimitSet, now: float) -> tuple[Policy, Gate] | None:
    """Find the gate of the first rate charged later that gives this host nothing now."""
    for policy in _list_later(limit_set):
        left = policy.left(now)
        if left >= 1 and limit_set.traits.sharing.reporting_gates[policy].is_withheld(now, left):
            return policy, limit_set.traits.sharing.reporting_gates[policy]
    return None


def _list_later(limit_set: LimitSet) -> tuple[Policy, ...]:
    """Return the rates that refuse, and are charged once there is an answer."""
    return (*limit_set.traits.other_rates.reported, *[units.policy for units in limit_set.traits.other_rates.units])


def list_exhausted(limit_set: LimitSet, now: float, shut: tuple[Policy, ...] = ()) -> tuple[Policy, ...]:
    """Return the rates without room for a request, including the rates in `shut`."""
    return tuple([policy for policy in limit_set.policies if policy in shut or policy.left(now) < policy.cost])


def can_credits_cover(limit_set: LimitSet, now: float, short: tuple[Policy, ...]) -> bool:
    """Return whether credits pay for these policies without room: all belong to the plan, and the credits suffice."""
    credits = limit_set.traits.credits
    if credits is None or credits.left(now) < credits.cost:
        return False
    plan = limit_set.policies[: limit_set.traits.plan_policies]
    return all(policy in plan for policy in short)


def notify_hosts(limit_set: LimitSet, now: float, refused: bool, notes: AdmissionNotes | None = None) -> None:
    """Report to other hosts after `admit`: the charges, or the reason of a refusal."""
    if refused:
        _notify_of_refusal(limit_set, now)
        return
    gates = (
        limit_set.traits.sharing.gates
        if limit_set.traits.simple
        else _notify_reporting_gates(limit_set, now, notes or AdmissionNotes())
    )
    for policy, gate in gates:
        gate.record_charge(now, policy.cost)
    notify_totals(limit_set, now)


def _notify_reporting_gates(limit_set: LimitSet, now: float, notes: AdmissionNotes) -> tuple[tuple[Policy, Gate], ...]:
    """Report to the gates of other rates. Return the gates of the charged policies."""
    if limit_set.traits.sharing.reporting_gates:
        for policy in limit_set.traits.other_rates.shadows:
            if policy not in notes.shadows:
                limit_set.traits.sharing.reporting_gates[policy].record_late_charge(now)
        for policy in (
            *_list_later(limit_set),
            *limit_set.traits.other_rates.spending,
            *limit_set.traits.other_rates.trials,
        ):
            limit_set.traits.sharing.reporting_gates[policy].request_count(now)
    if notes.paid:
        return (
            *[each for each in limit_set.traits.sharing.gates if each[0] not in notes.paid],
            *limit_set.traits.sharing.paying,
        )
    return limit_set.traits.sharing.gates


def _notify_of_refusal(limit_set: LimitSet, now: float) -> None:
    """Make the supervisor ask other hosts after a refusal: they may use less by now."""
    for policy, gate in limit_set.traits.sharing.gates:
        if policy.left(now) < policy.cost:
            gate.record_refusal(now)
            for credits, door in limit_set.traits.sharing.paying:
                if credits.left(now) < credits.cost:
                    door.record_refusal(now)
    if limit_set.traits.sharing.reporting_gates:
        for policy in _list_later(limit_set):
            if policy.left(now) < 1:
                limit_set.traits.sharing.reporting_gates[policy].record_refusal(now)
    if limit_set.traits.sharing.totals and (
        not (short := list_exhausted(limit_set, now)) or can_credits_cover(limit_set, now, short)
    ):
        notify_totals(limit_set, now)


def notify_totals(limit_set: LimitSet, now: float) -> None:
    """Report quotas and concurrency to other hosts, and refresh theirs."""
    for total in limit_set.traits.sharing.totals:
        total.used(now)


def _acquire_slots(slots: tuple[ConcurrencyLimit | UnitLimit | BudgetReservation, ...], now: float) -> bool:
    """Acquire a slot of each, or of none."""
    for slot in slots:
        if not slot.acquire(now):
            for taken in slots[: slots.index(slot)]:
                taken.release()
            return False
    return True


def charge_reported_costs(limit_set: LimitSet, now: float, costs: Sequence[int | None]) -> dict[Policy, int]:
    """Charge the costs that the upstream reports, whatever is left. Return the rest of each policy.

    `costs` belong to `reported`, then `spending`, then `trials`; None if the answer has none. A trial with nothing left
    is not charged, because it would not have passed the request.
    """
    left, other = {}, limit_set.traits.other_rates
    for policy, reported_cost in zip((*other.reported, *other.spending, *other.trials), costs, strict=True):
        cost = policy.cost if reported_cost is None else reported_cost
        before = policy.left(now)
        if policy in other.reported:
            left[policy] = max(0, before - cost)
        elif before < 1 and policy in other.trials:
            continue
        if cost:
            policy.charge_late(cost)
            if limit_set.traits.sharing.reporting_gates:
                limit_set.traits.sharing.reporting_gates[policy].record_late_charge(now)
    return left


def can_afford(limit_set: LimitSet, now: float, *, alone: bool = False) -> bool:
    """Return whether credits suffice to pass while the edge sheds load.

    If a plan has limits, credits pay only for requests beyond these. An edge that sheds load lets no request wait, so
    credits that need a question to the hub do not count. `alone`: the hub cannot be asked.
    """
    credits = limit_set.traits.credits
    if credits is None or limit_set.traits.plan_policies or credits.left(now) < credits.cost:
        return False
    return not any(
        gate.must_ask(now, credits.cost, credits.left(now))
        for _, gate in limit_set.traits.sharing.paying
        if not alone or gate.mode == "strict" or gate.is_away
    )


def spend_credits(limit_set: LimitSet, now: float, *, alone: bool = False) -> bool:
    """Spend credits to pass while the edge sheds load. Return False, spending none, if they do not suffice."""
    credits = limit_set.traits.credits
    if credits is None or not can_afford(limit_set, now, alone=alone):
        return False
    credits.charge(credits.cost)
    for _, gate in limit_set.traits.sharing.paying:
        gate.record_charge(now, credits.cost)
    return True
