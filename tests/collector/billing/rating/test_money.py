"""Amounts: rounded once, and as people write them."""

from edgeproxy.collector.billing.rating.money import compute_millicredits, format_usd
from edgeproxy.config.collector.catalog import PRICE_SCALE


def test_millicredits_are_a_ten_thousandth_of_a_cent() -> None:
    assert compute_millicredits(1, PRICE_SCALE) == 10_000
    assert compute_millicredits(3, PRICE_SCALE // 20_000) == 2, "1.5"
    assert compute_millicredits(-3, PRICE_SCALE // 20_000) == -2


def test_amounts_have_a_sign_and_two_places() -> None:
    assert [format_usd(cents) for cents in (0, 5, -5, 123456789)] == ["$0.00", "$0.05", "-$0.05", "$1,234,567.89"]
