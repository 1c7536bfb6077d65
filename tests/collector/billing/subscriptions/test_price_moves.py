"""Price moves: the order of versions, and the version on sale at a time."""

import pytest

from edgeproxy.collector.billing.subscriptions.price_moves import (
    PriceMove,
    find_moved_version,
    get_moving_plan,
    list_next_moves,
    select_plans_on_sale,
)
from edgeproxy.config.collector.catalog import Plan

MOVES = [
    PriceMove("a", "team", "team@1", "team@2", 100),
    PriceMove("a", "team+acme", "team@1", "team@2+acme", 100),
    PriceMove("b", "team", "team@2", "team@3", 200),
    PriceMove("b", "solo", "solo@1", "solo@2", 200),
]


@pytest.mark.parametrize(
    ("version", "customer", "moved"),
    [
        ("team@1", "bolt", ["team@1", "team@2", "team@3"]),
        ("team@1", "acme", ["team@1", "team@2+acme", "team@3"]),
        ("team@1+acme", "acme", ["team@1+acme", "team@2+acme", "team@2+acme"]),
        ("team@3", "bolt", ["team@3", "team@3", "team@3"]),
        ("gold@1", "bolt", ["gold@1", "gold@1", "gold@1"]),
    ],
)
def test_a_subscriber_moves_to_the_newest_version_that_is_for_it(version: str, customer: str, moved: list[str]) -> None:
    ahead = list_next_moves(version, customer, MOVES)
    assert [find_moved_version(version, ahead, start) for start in (99, 100, 200)] == moved


def test_plans_on_sale_are_file_plans_and_started_price_moves() -> None:
    old, new = Plan(fee=1), Plan(fee=2)
    moved = dict.fromkeys((move.after for move in MOVES), new)
    written = {"team@1": old, "team@3": new}
    assert select_plans_on_sale(written, moved, MOVES, 99) == {"team@1": old}
    assert select_plans_on_sale(written, moved, MOVES, 100) == {"team@1": old, "team@2": new, "team@2+acme": new}
    assert select_plans_on_sale(written, moved, MOVES, 200).keys() == {"team@1", "team@2", "team@2+acme", "team@3"}
    assert get_moving_plan("team@2+acme") == "team+acme"


def test_unreadable_version_is_not_replaced_by_an_earlier_one() -> None:
    written = {"team@1": Plan(fee=1), "solo@1": Plan(fee=1)}
    moved = {"team@2+acme": Plan(fee=2), "solo@2": Plan(fee=2)}
    assert select_plans_on_sale(written, moved, MOVES, 100).keys() == {"solo@1", "team@2+acme"}
    later = moved | {"team@3": Plan(fee=3)}
    assert select_plans_on_sale(written, later, MOVES, 200).keys() == {"solo@1", "solo@2", "team@2+acme", "team@3"}
    without_own = {"team@2": Plan(fee=2)}
    assert select_plans_on_sale(written, without_own, MOVES, 100).keys() == {"team@1", "team@2", "solo@1"}
