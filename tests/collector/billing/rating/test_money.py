"""Amounts: rounded once, and as people write them."""

import pytest
from babel.numbers import get_currency_precision

from edgeproxy.collector.billing.rating.money import compute_millicredits, format_amount
from edgeproxy.config.collector.currency_units import DECIMALS, parse_amount
from edgeproxy.config.collector.money import PRICE_SCALE


def test_millicredits_are_a_ten_thousandth_of_a_cent() -> None:
    assert compute_millicredits(1, PRICE_SCALE) == 10_000
    assert compute_millicredits(3, PRICE_SCALE // 20_000) == 2, "1.5"
    assert compute_millicredits(-3, PRICE_SCALE // 20_000) == -2


def test_amounts_have_the_sign_and_the_places_of_their_currency() -> None:
    assert [format_amount(cents, "usd") for cents in (0, 5, -123456789)] == ["$0.00", "$0.05", "-$1,234,567.89"]
    amounts = [("eur", 1250), ("jpy", 1250), ("kwd", 1250)]
    assert [format_amount(amount, currency) for currency, amount in amounts] == ["€12.50", "¥1,250", "KWD\xa01.250"]


def test_amount_parses_with_the_decimal_places_of_its_currency() -> None:
    amounts = [("12.34", "usd"), ("1234", "jpy"), ("12.34", "kwd"), (" 1.50 ", "eur"), ("1e2", "gbp")]
    assert [parse_amount(*amount) for amount in amounts] == [1234, 1234, 12340, 150, 10000]


@pytest.mark.parametrize(
    ("written", "currency"),
    [
        *((written, "usd") for written in ("", "x", "nan", "inf", "0", "-1", "12.345", "1e14")),
        *((written, "usd") for written in ("1e900000", "1e-900000", "1e9999999999999999999")),
        *(("0.5", "jpy"), ("12.345", "kwd")),
    ],
)
def test_an_amount_that_cannot_be_paid_is_refused(written: str, currency: str) -> None:
    with pytest.raises(ValueError, match=f"is no amount in {currency.upper()}"):
        parse_amount(written, currency)


def test_babel_writes_as_many_places_as_amounts_have() -> None:
    assert {code: get_currency_precision(code.upper()) for code in DECIMALS} == DECIMALS
