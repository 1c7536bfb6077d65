"""The settings under `billing` of collector.yaml."""

import os
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from edgeproxy.collector.billing.reports.accounting import ACCOUNTS
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.credits import AccountName, format_meters, parse_meters
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.money import PRICE_SCALE
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.problems import ConfigError

TOKENS = [{"sha256": "a" * 64, "role": "edge"}]
PLANS = "plans: {basic@1: {fee: '9', meters: {calls: {included: 10, price: '0.01'}}}}\n"


def load(folder: Path, billing: dict[str, Any] | None, plans: str = PLANS, **more: Any) -> CollectorSettings:
    file = folder / "collector.yaml"
    (folder / "plans.yaml").write_text(plans)
    reported = {"tokens": TOKENS, **more}
    if billing is not None:
        reported["billing"] = {"plans": str(folder / "plans.yaml"), **billing}
    file.write_text(yaml.safe_dump(reported))
    return load_collector(file, os.environ)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("free", None),
        ("fre", "pages.sign_up.plan: fre is not the name of a plan, did you mean free?"),
        ("basic", "pages.sign_up.plan: basic has a fee, name a plan whose fee is 0, or leave it out"),
    ],
)
def test_sign_up_plan_must_have_no_fee(tmp_path: Path, plan: str, said: str | None) -> None:
    plans = f"{PLANS.rstrip()[:-1]}, free@1: {{fee: '0', meters: {{calls: {{included: 10, price: '0.01'}}}}}}}}\n"
    mail = {"server": "mail.example.com:587", "sender": "edge@example.com"}
    pages = {"url": "https://a.example", "mail": mail, "sign_up": {"tier": "basic", "plan": plan}}
    if said is None:
        assert load(tmp_path, {}, plans, pages=pages).pages is not None
    else:
        with pytest.raises(ConfigError, match=re.escape(said)):
            load(tmp_path, {}, plans, pages=pages)


def test_plans_come_from_the_named_file(tmp_path: Path) -> None:
    settings = load(tmp_path, {})
    assert settings.billing == Billing(plans=tmp_path / "plans.yaml")
    assert [plan.fee for plan in settings.plans.values()] == [900]
    assert load(tmp_path, None).plans == {}
    assert load(tmp_path, {}, PLANS.replace("9", "8")).sha256 != settings.sha256


def test_problem_of_plans_names_the_line_in_their_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plans.yaml:1: .*calls: has tiers that do not cover"):
        load(tmp_path, {}, PLANS.replace("included: 10, price: '0.01'", "tiers: [{up_to: 5, price: '1'}]"))
    with pytest.raises(ConfigError, match=r"nowhere.yaml cannot be read"):
        load(tmp_path, {"plans": "nowhere.yaml"})


def test_plan_with_an_unknown_tier_is_refused(tmp_path: Path) -> None:
    assert load(tmp_path, {}, tiers={"basic": {}}).plans
    with pytest.raises(ConfigError, match=r"collector.yaml:\d+: billing.plans: has basic@1, whose tier basic is not"):
        load(tmp_path, {}, tiers={"gold": {}})


def test_plans_with_unknown_or_unpriceable_meters_are_refused(tmp_path: Path) -> None:
    assert load(tmp_path, {}).plans, "plans without configured meters are accepted"
    for meters, wrong in (
        ({"call": {"count": "events"}}, r"has basic@1, whose meter calls is not there, did you mean call\?"),
        ({"calls": {"count": "holdings"}}, "has basic@1, with a price of calls, which are places that nobody adds up"),
    ):
        with pytest.raises(ConfigError, match=f"billing.plans: {wrong}"):
            load(tmp_path, {}, meters=meters)
    places = {"calls": {"count": "holdings", "aggregate": "average"}}
    assert load(tmp_path, {}, meters=places).meters["calls"].aggregate == "average"


@pytest.mark.parametrize(
    ("coupons", "wrong"),
    [
        ({"half": {"percent_off": "50%"}}, "'half' is not a code, 3 to 40 capital letters"),
        ({"OFF": {}}, "takes off neither a share nor an amount"),
        ({"OFF": {"percent_off": "50%", "amount_off": "1"}}, "takes off neither a share nor an amount, or both"),
        ({"OFF": {"percent_off": "0%"}}, "is nothing at all"),
        ({"OFF": {"amount_off": "0"}}, "takes off nothing"),
        ({"OFF": {"percent_off": "5%", "periods": 2}}, "has periods without duration: repeating"),
        ({"OFF": {"percent_off": "5%", "duration": "repeating"}}, "or that without periods"),
        (
            {"OFF": {"percent_off": "5%", "plans": ["basik"]}},
            r"OFF.plans.*basik is not the name of a plan, did you mean",
        ),
    ],
)
def test_coupon_without_a_discount_or_periods_is_refused(tmp_path: Path, coupons: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        load(tmp_path, {"coupons": coupons})


def test_a_coupon_is_of_one_period_or_several_or_all(tmp_path: Path) -> None:
    terms = {
        "ONE": {},
        "TWO": {"duration": "repeating", "periods": 2},
        "ALL": {"duration": "forever", "plans": ["basic"]},
    }
    billing = load(
        tmp_path, {"coupons": {code: {"amount_off": "10.50", **more} for code, more in terms.items()}}
    ).billing
    assert billing is not None
    assert [coupon.periods_off for coupon in (billing.coupons[code] for code in terms)] == [1, 2, None]
    assert billing.coupons["ONE"].amount_off == {"usd": 1050}
    one = billing.coupons["ONE"]
    assert type(one).model_validate(one.model_dump()) == one, "serialized settings load again"
    both = {"MANY": {"amount_off": {"usd": "10.50", "jpy": "1500"}}}
    assert load(tmp_path, {"coupons": both}).billing.coupons["MANY"].amount_off == {"usd": 1050, "jpy": 1500}
    for amounts, why in (
        ({}, "has no amount"),
        ({"jpy": "1.5"}, "has more than the 0 places"),
        ({"xxx": "1"}, "is no c"),
    ):
        with pytest.raises(ConfigError, match=rf"billing.coupons.MANY.amount_off: .*{why}"):
            load(tmp_path, {"coupons": {"MANY": {"amount_off": amounts}}})


BY_MODEL = "included: 10, price: '1', by: {dimension: model, prices: {m1: '2'}}"


@pytest.mark.parametrize("aggregate", ["sum", "average", "max", "unique"])
def test_prices_by_dimension_need_an_aggregate_that_adds_up(tmp_path: Path, aggregate: str) -> None:
    meters = {"calls": {"count": "events", "aggregate": aggregate, "dimensions": {"model": 10}}}
    plans = PLANS.replace("included: 10, price: '0.01'", BY_MODEL)
    if aggregate in ("sum", "average"):
        assert load(tmp_path, {}, plans, meters=meters).plans
        return
    with pytest.raises(ConfigError, match=f"prices of calls by model, whose {aggregate} does not add up"):
        load(tmp_path, {}, plans, meters=meters)


@pytest.mark.parametrize(
    ("count", "dimensions", "hint"),
    [
        ("requests", {}, "add model to meters.calls.dimensions"),
        ("requests", {"place": {"values": 4, "header": "X-Place"}}, "known here: place"),
        ("requests", {"models": {"values": 4, "header": "X-Model"}}, "did you mean models"),
        ("total_tokens", {"estimated": 2}, "known here: estimated"),
        ("events", {"modell": 4}, "did you mean modell"),
    ],
)
def test_price_by_an_unknown_dimension_is_refused_with_both_names(
    tmp_path: Path, count: str, dimensions: dict[str, Any], hint: str
) -> None:
    plans = PLANS.replace("included: 10, price: '0.01'", BY_MODEL)
    with pytest.raises(ConfigError, match=f"has basic@1, with prices of calls by model, a dimension .*{hint}"):
        load(tmp_path, {}, plans, meters={"calls": {"count": count, "dimensions": dimensions}})


def test_minutes_are_retained_until_invoices_are_closed(tmp_path: Path) -> None:
    for mode, days, is_taken in (("live", 33, True), ("live", 32, False), ("shadow", 20, False), ("off", 20, True)):
        if is_taken:
            load(tmp_path, {"mode": mode}, retention={"minutes": f"{days}day"})
        else:
            with pytest.raises(ConfigError, match=r"retention.minutes: is shorter than .*, keep minutes for 33day"):
                load(tmp_path, {"mode": mode}, retention={"minutes": f"{days}day"})


def test_minutes_are_retained_while_stripe_s_sums_are_compared_with_them(tmp_path: Path) -> None:
    reported = {"mode": "live", "collection": "meters"}
    load(tmp_path, reported, retention={"minutes": "62day"})
    with pytest.raises(ConfigError, match=r"retention.minutes: is shorter than .*, keep minutes for 62day"):
        load(tmp_path, reported, retention={"minutes": "61day"})


@pytest.mark.parametrize(
    ("stripe", "what"),
    [
        ({"base": "http://api.stripe.com"}, "in the clear"),
        ({"base": "ftp://127.0.0.1"}, "not the address of a server"),
        ({"base": "https://api.stripe.com/v1"}, "not the address of a server"),
        ({"base": "http://[::1"}, "not a URL"),
        ({"key": "sk_live_abcdefgh"}, "is a key itself"),
        ({"webhook_secrets": "whsec_abcdefgh"}, "is a key itself"),
    ],
)
def test_keys_go_to_no_outsider_and_are_in_no_configuration(tmp_path: Path, stripe: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, {"stripe": stripe})
    assert what in str(error.value)
    assert "abcdefgh" not in str(error.value)


def test_a_sandbox_and_files_of_keys_may_be_named(tmp_path: Path) -> None:
    stripe = {"base": "http://127.0.0.1:12111/", "key": "keys/stripe", "webhook_secrets": "keys/hooks", "live": "off"}
    result = load(tmp_path, {"stripe": stripe}).billing
    assert result is not None
    assert (result.stripe.base, result.stripe.key) == ("http://127.0.0.1:12111", Path("keys/stripe"))


MANY_PRICES = ", ".join(f"m{number}: '2'" for number in range(20))


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ("meters: {calls: {included: 5, price: '1'}}", None),
        ("meters: {calls: {tiers: [{up_to: 9, price: '1'}, {up_to: none, price: '0'}], tiers_mode: volume}}", None),
        ("meters: {calls: {price: '1', by: {dimension: model, prices: {m1: '2'}}}}", None),
        ("meters: {calls: {included: 5, cap: hard}}, threshold: '500'", None),
        ("meters: {calls: {price: {eur: '1', usd: '1'}}}", None),
        (
            f"meters: {{calls: {{price: '1', by: {{dimension: model, prices: {{{MANY_PRICES}}}}}}}}}",
            "21 prices of usage, and a subscription at Stripe has 20",
        ),
        ("meters: {calls: {price: '1', package: 9}}", "prices of calls by package"),
        ("meters: {calls: {price: '1'}}, threshold: '500'", "a threshold"),
        ("meters: {calls: {included: 5, price: '1'}}", "no prices in usd"),
    ],
)
def test_collection_by_meters_refuses_each_plan_that_stripes_prices_cannot_express(
    tmp_path: Path, terms: str, reason: str | None
) -> None:
    fee = "{eur: '9', usd: '9'}" if "usd" in terms else "'9'"
    base = "eur" if reason == "no prices in usd" else "usd"
    plans = f"currency: {base}\nplans: {{plain@1: {{fee: '9'}}, one@1: {{fee: {fee}, {terms}}}}}\n"
    meters = {"calls": {"count": "events", "dimensions": {"model": 10}}}
    breaker = {"breaker": {"enabled": False}}
    by_items = load(tmp_path, breaker, plans, meters=meters)
    assert by_items.plans["one@1"].find_items_reason() == reason
    assert by_items.plans["one@1"].fits_stripe_meters == (reason is None and "threshold" not in terms)
    if reason is None:
        by_meters = load(tmp_path, {"collection": "meters", **breaker}, plans, meters=meters)
        assert by_meters.plans == by_items.plans
        return
    with pytest.raises(ConfigError) as error:
        load(tmp_path, {"collection": "meters", **breaker}, plans, meters=meters)
    (problem,) = error.value.problems
    assert (problem.field, problem.what) == (
        "billing.plans",
        f"has one@1, with {reason}, which Stripe's meters cannot charge",
    )


def test_threshold_that_cannot_be_charged_is_refused(tmp_path: Path) -> None:
    for usd, gbp in (("0.49", "1"), ("0.5", "0.29"), ("1000000", "1")):
        terms = f"{{fee: {{usd: '9', gbp: '8'}}, threshold: {{usd: '{usd}', gbp: '{gbp}'}}}}"
        with pytest.raises(ConfigError, match=r"has small@1, whose threshold of .* cannot be charged"):
            load(tmp_path, {"mode": "off"}, f"plans: {{small@1: {terms}}}")


def test_each_currency_of_the_plans_needs_a_breaker_minimum(tmp_path: Path) -> None:
    plans, keys = "plans: {basic@1: {fee: {usd: '9', eur: '8'}}, free@1: {fee: '0'}}\n", {"mode": "shadow"}
    lacking = r"billing.plans: has basic@1, with prices in eur, in which billing.breaker.least has no"
    with pytest.raises(ConfigError, match=lacking):
        load(tmp_path, keys, plans)
    with pytest.raises(ConfigError, match=lacking):
        load(tmp_path, keys, "currency: eur\nplans: {basic@1: {fee: '9'}}\n")
    both = {"breaker": {"least": {"usd": "5", "eur": "4.50"}}}
    assert load(tmp_path, {**keys, **both}, plans).billing.breaker.least == {"usd": 500, "eur": 450}
    assert load(tmp_path, {**keys, "breaker": {"enabled": False}}, plans).plans
    assert load(tmp_path, keys, "currency: eur\nplans: {free@1: {fee: '0'}}\n").plans
    with pytest.raises(ConfigError, match=r"billing.currency"):
        load(tmp_path, {"currency": "eur"})
    assert load(tmp_path, {"breaker": {"least": "2"}}).billing.breaker.least == {"usd": 200}


def test_credits_in_other_currencies_have_their_own_meters(tmp_path: Path) -> None:
    euros = {"currency": "eur", "meter": "cost_eur", "packages": ["5", "12.50"]}
    yen = {"currency": "jpy", "meter": "cost_jpy", "packages": ["1500", "500"]}
    credits = load(tmp_path, {"credits": {"others": [euros, yen]}}).billing.credits
    assert credits.meters == {"usd": "cost", "eur": "cost_eur", "jpy": "cost_jpy"}
    assert parse_meters(format_meters(credits.meters)) == credits.meters
    assert parse_meters("cost") == {"usd": "cost"}, "as versions before wrote it"
    assert (credits.list_packages("eur"), credits.list_packages("gbp")) == ((500, 1250), ())
    assert credits.list_packages("usd") == credits.packages
    assert (credits.find_bounds("jpy"), credits.find_bounds("usd")) == ((500, 1500), (500, 1_000_000))
    for others, wrong in (
        ([euros, euros], "has a currency twice"),
        ([{**euros, "currency": "usd"}], "has a currency twice"),
        ([{**yen, "packages": ["1.5"]}], "has more than the 0 places that payments in jpy can have"),
        ([{**yen, "packages": ["49"]}], "is no amount that Stripe charges"),
        ([{**euros, "packages": ["1000000"]}], "is no amount that Stripe charges"),
        ([{**yen, "currency": "xyz"}], "is no currency"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            load(tmp_path, {"credits": {"others": others}})
    meters = {"calls": {"count": "events"}, "cost_eu": {"count": "events"}}
    with pytest.raises(ConfigError, match=r"others.0.meter: cost_eur is not the name of a meter, did you mean cost_eu"):
        load(tmp_path, {"credits": {"others": [euros]}}, meters=meters)


def test_credit_costs_and_account_names_load(tmp_path: Path) -> None:
    assert load(tmp_path, {}).billing.credits is None
    sold = load(tmp_path, {"credits": {"cogs": {"tokens": "0.002/1000"}}, "accounts": {"cash": "090"}}).billing
    assert (sold.credits.meter, sold.accounts) == ("cost", {"cash": "090"})
    assert sold.credits.cogs == {"tokens": {"usd": 200_000_000}}
    both = {"tokens": {"usd": "0.002/1000", "jpy": "0.3/1000"}, "calls": {"eur": "1"}}
    costs = load(tmp_path, {"credits": {"cogs": both}}).billing.credits
    assert costs.list_costs() == {"tokens": 200_000_000}
    assert (costs.list_costs("jpy"), costs.list_costs("eur")) == ({"tokens": 300_000_000}, {"calls": 100 * PRICE_SCALE})
    for wrong, why in (({}, "has no price"), ({"xxx": "1"}, "is no currency"), ({"usd": "x"}, "is not a price")):
        with pytest.raises(ConfigError, match=rf"billing.credits.cogs.tokens: .*{why}"):
            load(tmp_path, {"credits": {"cogs": {"tokens": wrong}}})
    assert set(get_args(AccountName)) == set(ACCOUNTS)
    assert load(tmp_path, {"credits": {"packages": ["5", "12.50"]}}).billing.credits.packages == (500, 1250)
    for package in ("4.99", "10000.01"):
        with pytest.raises(ConfigError, match=rf"packages.0: '{package}' is not sold in one purchase, US dollars from"):
            load(tmp_path, {"credits": {"packages": [package]}})
    for name, reported in (("cash", ""), ("cash", " x"), ("cash", "a\tb"), ("cash", "x" * 101)):
        with pytest.raises(ConfigError, match=r"billing.accounts.cash: .*is no name of an account"):
            load(tmp_path, {"accounts": {name: reported}})
    with pytest.raises(ConfigError, match="accounts"):
        load(tmp_path, {"accounts": {"wages": "1"}})
