"""Price moves: the plan versions that subscribers move to, and the times of the moves. Pure.

A subscriber moves at the start of a period that it pays for, never within a month or year that is already paid. A move
applies to all earlier versions of the plan. Customers with a price of their own, `standard@1+acme`, move only to
another such price.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edgeproxy.config.collector.catalog import Plan, find_version_owner, get_plan_name, get_version_number


class PriceMove(NamedTuple):
    """A move that is not withdrawn."""

    change: str
    """The id of the price change."""
    plan: str
    """The plan in the form of `get_moving_plan`."""
    before: str
    """The version on sale before the change."""
    after: str
    at: int
    """`after` is sold from this Unix second on."""


def get_moving_plan(version: str) -> str:
    """Return the group of subscribers that move together: `standard` for `standard@3`, `standard+acme` for
    `standard@3+acme`."""
    owner = find_version_owner(version)
    return get_plan_name(version) if owner is None else f"{get_plan_name(version)}+{owner}"


def list_next_moves(version: str, customer: str, moves: Iterable[PriceMove]) -> list[PriceMove]:
    """Return the future moves of a customer, by name, with this version."""
    number, own = get_version_number(version), f"{get_plan_name(version)}+{customer}"
    plans = (get_moving_plan(version), own)
    return [move for move in moves if move.plan in plans and get_version_number(move.after) > number]


def find_moved_version(version: str, ahead: Iterable[PriceMove], start: int) -> str:
    """Return the version that a subscriber of `version` has in a period paid from `start` on.

    `ahead` are its future moves.
    """
    due = [move.after for move in ahead if move.at <= start]
    return max(due, key=order_version, default=version)


def order_version(version: str) -> tuple[int, bool]:
    """Return the sort key of a plan's versions for a customer: by number, with its own price last."""
    return get_version_number(version), find_version_owner(version) is not None


def select_plans_on_sale(
    plans: Mapping[str, Plan], moved: Mapping[str, Plan], moves: Iterable[PriceMove], now: float
) -> dict[str, Plan]:
    """Return the versions on sale at a Unix second.

    They are the configured `plans`, and the versions of begun moves of these plans, whose terms are in `moved`. A
    version whose move is in the future is not on sale before, even if it is configured. If `moved` lacks a version
    because it is unreadable, no earlier version is sold in its place.
    """
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
