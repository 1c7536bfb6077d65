"""Price moves: the versions of a plan to which its subscribers move, and from when on. Pure.

A subscriber moves when a period begins for which it pays anew: never within a month, or a year, that is paid for. A
move is for all earlier versions of the plan; customers with a price of their own, `standard@1+acme`, move to such a
one alone.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edgeproxy.config.collector.catalog import Plan, find_version_owner, get_plan_name, get_version_number


class PriceMove(NamedTuple):
    """A move that is not withdrawn."""

    change: str
    """The id of the price change."""
    plan: str
    """The plan, as `get_moving_plan` returns it."""
    before: str
    """The version that is sold until then."""
    after: str
    at: int
    """The Unix second from which `after` is sold."""


def get_moving_plan(version: str) -> str:
    """Return the plan whose subscribers move together: of `standard@3`, `standard`; of `standard@3+acme`,
    `standard+acme`."""
    owner = find_version_owner(version)
    return get_plan_name(version) if owner is None else f"{get_plan_name(version)}+{owner}"


def list_next_moves(version: str, customer: str, moves: Iterable[PriceMove]) -> list[PriceMove]:
    """Return the moves that are ahead of a customer, by name, who has a version."""
    number, own = get_version_number(version), f"{get_plan_name(version)}+{customer}"
    plans = (get_moving_plan(version), own)
    return [move for move in moves if move.plan in plans and get_version_number(move.after) > number]


def find_moved_version(version: str, ahead: Iterable[PriceMove], start: int) -> str:
    """Return the version that a subscriber of `version` has in a period that is paid for from `start` on; `ahead` are
    the moves that are ahead of it."""
    due = [move.after for move in ahead if move.at <= start]
    return max(due, key=order_version, default=version)


def order_version(version: str) -> tuple[int, bool]:
    """Return the key by which versions of a plan are sorted as a customer is sold them: its own price last."""
    return get_version_number(version), find_version_owner(version) is not None


def select_plans_on_sale(
    plans: Mapping[str, Plan], moved: Mapping[str, Plan], moves: Iterable[PriceMove], now: float
) -> dict[str, Plan]:
    """Return the versions that are sold at a Unix second: those of the configuration, `plans`, and of plans that it
    sells those of moves that have begun, of which `moved` has the terms. A version whose move is ahead is not sold
    before, whatever the configuration says. Where `moved` lacks a version, which is unreadable then, no earlier one is
    sold in its place."""
    ahead = {move.after for move in moves if move.at > now}
    sold = {version: plan for version, plan in plans.items() if version not in ahead}
    names = {get_plan_name(version) for version in sold}
    begun = [move.after for move in moves if move.at <= now and get_plan_name(move.after) in names]
    sold |= {version: moved[version] for version in begun if version in moved}
    lacking = {get_moving_plan(one): order_version(one) for one in sorted(begun, key=order_version) if one not in moved}
    return {
        version: plan
        for version, plan in sold.items()
        if (latest := lacking.get(get_moving_plan(version))) is None or order_version(version) > latest
    }
