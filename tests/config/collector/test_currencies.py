"""Rates of other currencies: `billing.currencies` of collector.yaml."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.currency_units import (
    choose_price_units,
    format_millicredits,
    format_millicredits_with_code,
)


def read(**rates: object) -> Billing:
    return Billing.model_validate({"plans": "plans.yaml", "currencies": rates}, context={})


def test_a_rate_is_read_exactly_and_passes_as_it_was_dumped() -> None:
    rate = read(EUR={"rate": "0.123456789012", "date": "2026-11-20"}).currencies["EUR"]
    assert (rate.rate, rate.date) == (Decimal("0.123456789012"), 1_795_132_800.0)
    assert read(EUR=rate.model_dump()).currencies["EUR"] == rate


@pytest.mark.parametrize(
    ("code", "reported", "expected"),
    [
        ("eur", {"rate": "1", "date": "2026-11-20"}, "'eur' is no such code"),
        ("USD", {"rate": "1", "date": "2026-11-20"}, "'USD' is no such code"),
        ("EUR", {"rate": "0.000", "date": "2026-11-20"}, "'0.000' is no rate"),
        ("EUR", {"rate": "-1", "date": "2026-11-20"}, "'-1' is no rate"),
        ("EUR", {"rate": "1"}, "date"),
    ],
)
def test_invalid_currency_rate_is_refused(code: str, reported: object, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        read(**{code: reported})


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (0, "usd", "0.00"),
        (1234, "usd", "0.001234"),
        (-1_500_000, "usd", "-1.50"),
        (1_000_000, "jpy", "100"),
        (1_234_500, "kwd", "0.12345"),
    ],
)
def test_millicredits_have_all_decimal_places(amount: int, currency: str, text: str) -> None:
    assert format_millicredits(amount, currency) == text
    assert format_millicredits_with_code(amount, currency) == f"{text} {currency.upper()}"


@pytest.mark.parametrize(
    ("price", "units"), [("0", 1), ("1", 1), ("0.5", 1000), ("0.001", 1000), ("0.0009", 1_000_000), ("1e-9", 1_000_000)]
)
def test_price_is_written_for_the_first_count_that_costs_a_smallest_unit(price: str, units: int) -> None:
    assert choose_price_units(Decimal(price)) == units
