"""Amounts of plans in a form, and the new versions of changed plans, as plans.yaml reads them."""

from typing import Any

from edgeproxy.collector.pages.price_form import (
    Amount,
    ChangedAmount,
    PriceRow,
    list_rows,
    read_term,
    select_sold,
    write_plans,
)
from edgeproxy.config.collector.catalog import serialize_plan
from edgeproxy.config.collector.load import load_plans_text
from edgeproxy.config.collector.plan_terms import write_terms

PLANS = """
plans:
  free@1: {fee: "0", meters: {calls: {included: 10, cap: hard}}}
  pro@2:
    fee: {usd: "99", eur: "90"}
    meters:
      calls: {tiers: [{up_to: 5, price: {usd: "0.1", eur: "0.1"}}, {up_to: none, price: {usd: "0.2", eur: "0.2"}}]}
      tokens:
        included: 1000
        price: {usd: "0.01/1000", eur: "0.01/1000"}
        by: {dimension: model, prices: {gpt-4.1: {usd: "0.03/1000", eur: "0.02/1000"}}}
  pro@2+acme: {fee: {usd: "50", eur: "45"}}
"""


def versions() -> list[dict[str, Any]]:
    plans = load_plans_text("plans", PLANS).plans
    former = {"version": "pro@7", "state": "scheduled", "fee": 1, "terms": {}}
    sold = [
        {"version": name, "state": "sold", "fee": plan.fee, "currency": "usd", "terms": write_terms(plan)}
        for name, plan in plans.items()
    ]
    return [former, *sold]


def test_price_form_has_a_field_for_each_amount_of_public_plans() -> None:
    rows = list_rows(select_sold(versions()))
    assert [row[:4] for row in rows] == [
        ("", "fee", "", ""),
        ("", "fee", "", "usd"),
        ("", "fee", "", "eur"),
        ("calls", "included", "", ""),
        *(("calls", "tier", tier, code) for tier in "12" for code in ("usd", "eur")),
        ("tokens", "included", "", ""),
        *(("tokens", "price", value, code) for value in ("", "gpt-4.1") for code in ("usd", "eur")),
    ]
    assert rows[0] == PriceRow("", "fee", "", "", [Amount("free@1/fee", "0"), None])


def test_changed_amount_makes_a_version_with_one_difference() -> None:
    before = versions()
    fields = {
        "pro@2/meters/tokens/by/prices/gpt-4.1/eur": " 0.025/1000 ",
        "pro@2/meters/calls/tiers/1/price/usd": "0.3",
        "free@1/fee": "0",
    }
    plans = load_plans_text("plans", write_plans(before, fields)).plans
    assert list(plans) == ["pro@8"]
    by_hand = PLANS.replace('eur: "0.02/1000"', 'eur: "0.025/1000"').replace('usd: "0.2"', 'usd: "0.3"')
    assert serialize_plan(plans["pro@8"]) == serialize_plan(load_plans_text("plans", by_hand).plans["pro@2"])
    assert before == versions(), "the plans on sale are unchanged"


def test_a_form_without_changes_changes_nothing() -> None:
    assert list(load_plans_text("plans", write_plans(versions(), {})).plans) == ["free@1", "pro@2"]


def test_price_term_parses_into_kind_field_and_meter() -> None:
    assert read_term("year_fee") == ChangedAmount("money", "year_fee")
    assert read_term("meters.tokens.included") == ChangedAmount("count", "included", "tokens")
    assert read_term("meters.tokens.by.prices.gpt-4.1") == ChangedAmount("unit", "price", "tokens", "gpt-4.1")
    assert [read_term(term) for term in ("meters.a.tiers.0.price", "eur.fee", "meters", "entitlements.fee")] == [
        None
    ] * 4
