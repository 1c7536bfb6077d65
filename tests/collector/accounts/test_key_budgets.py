"""Budgets of keys: their written form, the comparison of two budgets, and their alerts."""

import re
from typing import NoReturn
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from edgeproxy.base.calendar import period_of
from edgeproxy.collector.accounts.key_budgets import (
    KeyBudgetRequest,
    StoredBudget,
    dump_budget,
    parse_budget,
    parse_written,
)
from edgeproxy.collector.billing.reports.key_budget_alerts import make_budget_alerts
from edgeproxy.collector.billing.reports.key_spend import BudgetedKey, BudgetUse, sum_usage
from edgeproxy.config.dimensions import OTHER

TOKENS = StoredBudget("1", 100, "day", "tokens", None)


@pytest.mark.parametrize(
    ("written", "body"),
    [
        ("$50/month", {"amount": 5000, "per": "month", "currency": "usd"}),
        (" 49.90 EUR / day", {"amount": 4990, "per": "day", "currency": "eur"}),
        ("£5gbp/day", {"amount": 500, "per": "day", "currency": "gbp"}),
        ("1500 jpy/month", {"amount": 1500, "per": "month", "currency": "jpy"}),
        ("1000000 input_tokens/day", {"amount": 1_000_000, "per": "day", "meter": "input_tokens"}),
    ],
)
def test_written_budget_is_parsed(written: str, body: dict[str, object]) -> None:
    assert parse_written(written) == body


@pytest.mark.parametrize(
    "written",
    [
        *("", "50/month", "$50", "$50/week", "$50 tokens/month", "$50 eur/month", "-5 usd/month"),
        *("0 usd/month", "1.5 jpy/month", "1.5 tokens/month"),
    ],
)
def test_error_quotes_an_invalid_budget(written: str) -> None:
    with pytest.raises(ValidationError, match=f"{re.escape(repr(written))} is no budget"):
        KeyBudgetRequest.model_validate(written)


@pytest.mark.parametrize(
    ("other", "is_within"),
    [
        (TOKENS._replace(id="2", amount=99), True),
        (TOKENS._replace(amount=101), False),
        (TOKENS._replace(per="month"), False),
        (TOKENS._replace(meter="calls"), False),
        (TOKENS._replace(meter=None, currency="usd"), False),
    ],
)
def test_key_budget_fits_only_within_a_larger_budget_of_its_kind(other: StoredBudget, is_within: bool) -> None:
    assert other.is_within(TOKENS) is is_within


def test_new_amount_keeps_the_count_and_a_new_kind_starts_at_zero() -> None:
    def change(before: StoredBudget | None, **fields: object) -> StoredBudget | None:
        requested = KeyBudgetRequest.model_validate({"amount": 5, "per": "day", "meter": "tokens", **fields})
        return parse_budget(dump_budget(requested, before))

    first = change(None)
    assert first is not None
    assert change(first, amount=7) == first._replace(amount=7)
    for fields in ({"per": "month"}, {"meter": "calls"}, {"meter": None, "currency": "usd"}):
        other = change(first, **fields)
        assert other is not None
        assert other.id != first.id


def test_spent_budget_of_ended_keys_raises_no_alert() -> None:
    key = BudgetedKey("1", "acme", "00", "edge_v1_a", "ci", TOKENS, has_ended=True)
    replaced = BudgetUse(key, 100, period_of(0, "day", ZoneInfo("UTC")), has_ended=False)
    raised = [alert.severity for alert in make_budget_alerts(replaced, [80, 100], 0)]
    assert raised == ["info", "warn"], "a key that still works has the budget, too"
    assert list(make_budget_alerts(replaced._replace(has_ended=True), [80, 100], 0)) == []


def test_usage_of_a_key_is_not_searched_among_thousands() -> None:
    """A customer has a budget for each of its keys, so a search would take the square of their number."""

    class Unsearched(dict[str, int]):
        def __iter__(self) -> NoReturn:
            raise AssertionError

        items = values = __iter__  # type: ignore[assignment]

    assert sum_usage(Unsearched({"a": 1, "b": 2, "c": 4, OTHER: 8}), {"a", "c", "unused"}) == 13
