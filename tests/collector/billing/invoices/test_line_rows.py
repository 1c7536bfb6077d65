"""The text of an invoice line: words for people, and prices in the currency that is paid."""

import pytest

from edgeproxy.collector.billing.invoices.line_rows import describe_line, format_price, parse_unit_price
from edgeproxy.collector.billing.rating.rater import LineKind, RatedLine, Span
from tests.support.invoiced import FEBRUARY, JANUARY

MONTH = Span(JANUARY, FEBRUARY)


@pytest.mark.parametrize(
    ("price", "currency", "said"),
    [
        ("0.001", "usd", "$0.01 per 1,000"),
        ("12", "usd", "$0.12 each"),
        ("1.25", "usd", "$0.0125 each"),
        ("0.001", "eur", "€0.01 per 1,000"),
        ("9.5", "gbp", "£0.095 each"),
        ("15.5", "jpy", "¥15.5 each"),
        ("1200", "jpy", "¥1,200 each"),
        ("31", "kwd", "KWD\xa00.031 each"),
        ("0.000000000001", "eur", "€0.00000001 per 1,000,000"),
    ],
)
def test_unit_price_is_formatted_in_its_currency_for_a_readable_quantity(price: str, currency: str, said: str) -> None:
    assert format_price(parse_unit_price(price), currency) == said


@pytest.mark.parametrize(
    ("kind", "meter", "value", "quantity", "price", "text"),
    [
        ("fee", "", "", 1, None, "Standard, 2027-01-01 to 2027-02-01"),
        ("fee", "", "", 3, None, "3 × Standard, 2027-01-01 to 2027-02-01"),
        ("usage", "llm_tokens", "", 1000, "0", "LLM tokens: 1,000 included, 2027-01-01 to 2027-02-01"),
        (
            "late",
            "llm_tokens",
            "large",
            27_982_292,
            "0.001",
            "LLM tokens, large: 27,982,292 at $0.01 per 1,000, 2027-01-01 to 2027-02-01, reported late",
        ),
    ],
)
def test_a_line_is_in_words(
    kind: LineKind, meter: str, value: str, quantity: int, price: str | None, text: str
) -> None:
    unit_price = None if price is None else parse_unit_price(price)
    line = RatedLine(kind, "standard@3+acme", MONTH, meter, value, 1, quantity, unit_price, 0, MONTH)
    assert describe_line(line, "usd") == text
