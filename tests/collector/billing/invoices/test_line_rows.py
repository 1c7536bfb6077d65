"""The text of an invoice line: prices are said in the currency that is paid."""

import pytest

from edgeproxy.collector.billing.invoices.line_rows import format_price, parse_unit_price


@pytest.mark.parametrize(
    ("price", "currency", "said"),
    [
        ("0.001", "usd", "0.001 cents"),
        ("12", "usd", "12 cents"),
        ("0.001", "eur", "0.00001 EUR"),
        ("9.5", "gbp", "0.095 GBP"),
        ("15.5", "jpy", "15.5 JPY"),
        ("200", "jpy", "200 JPY"),
        ("31", "kwd", "0.031 KWD"),
        ("0.000000000001", "eur", "0.00000000000001 EUR"),
    ],
)
def test_a_unit_price_is_said_in_its_currency(price: str, currency: str, said: str) -> None:
    assert format_price(parse_unit_price(price), currency) == said
