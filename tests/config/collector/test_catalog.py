"""plans.yaml: accepted files, and the message for each mistake."""

from pathlib import Path

import pytest

from edgeproxy.config.collector.catalog import (
    PlansFile,
    find_newest_versions,
    get_default_currency,
    get_plan_tier,
    parse_plan,
    serialize_plan,
)
from edgeproxy.config.collector.load import load_plans, load_plans_text
from edgeproxy.config.collector.money import PRICE_SCALE
from edgeproxy.config.file_kinds import check_file
from edgeproxy.config.problems import ConfigError

ROOT = Path(__file__).parents[3]


def read(tmp_path: Path, text: str) -> PlansFile:
    file = tmp_path / "plans.yaml"
    file.write_text(text)
    return load_plans(file, {})


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return [str(problem).partition("plans.yaml:")[2] for problem in caught.value.problems]


def of_meter(reported: str) -> str:
    return f'plans:\n  a@1: {{fee: "1", meters: {{m: {reported}}}}}\n'


def in_both(reported: str) -> str:
    """A plan with its fee in two currencies."""
    return f'plans:\n  a@1: {{fee: {{usd: "1", jpy: "150"}}, meters: {{m: {{{reported}}}}}}}\n'


def test_a_price_has_the_currencies_that_it_is_written_in(tmp_path: Path) -> None:
    prices = 'price: {usd: "0.01/1000", jpy: "1.5/1000"}, by: {dimension: d, prices: {x: "0"}}'
    plan = read(tmp_path, in_both(prices)).plans["a@1"]
    assert plan.currencies == ("usd", "jpy")
    assert plan.in_currency("usd") is plan
    yen = plan.in_currency("jpy")
    assert (yen.currency, yen.fee, yen.meters["m"].price) == ("jpy", 150, PRICE_SCALE * 15 // 10_000)
    with pytest.raises(ValueError, match="eur"):
        plan.in_currency("eur")
    assert parse_plan(serialize_plan(plan)) == plan


def test_models_are_priced_by_the_names_that_they_have_and_by_the_million(tmp_path: Path) -> None:
    models = 'gpt-4.1: "2/1M", meta-llama/Llama-3.3-70B: "1.25/1M", "llama3:8b": "0.5/10M"'
    price = read(tmp_path, of_meter(f'{{price: "10/1M", by: {{dimension: model, prices: {{{models}}}}}}}'))
    meter = price.plans["a@1"].meters["m"]
    assert meter.price == PRICE_SCALE // 1000, "a tenth of a cent for a hundred"
    assert meter.by is not None
    millionths = {model: cost * 10**6 // PRICE_SCALE for model, cost in meter.by.prices.items()}
    assert millionths == {"gpt-4.1": 200, "meta-llama/Llama-3.3-70B": 125, "llama3:8b": 5}


def test_prices_without_a_currency_are_in_that_of_the_file(tmp_path: Path) -> None:
    plans = read(tmp_path, 'currency: kwd\nplans: {a@1: {fee: "1.25", annual: {discount: 1%}}, b@1: {fee: "0"}}').plans
    assert (plans["a@1"].currency, plans["a@1"].fee, plans["a@1"].year_fee) == ("kwd", 1250, 14850)
    own = plans["b@1"].currency
    assert plans["b@1"].in_currency("jpy").currency == "jpy", "what costs nothing costs nothing in all"
    assert (own, plans["b@1"].currency) == ("kwd", "kwd"), "the other one is a copy"
    for plan in plans.values():
        assert parse_plan(serialize_plan(plan)).fee == plan.fee
    assert parse_plan(serialize_plan(plans["a@1"])) == plans["a@1"]


def test_the_plans_that_are_shipped_pass() -> None:
    assert isinstance(check_file(ROOT / "config/plans.yaml", {}), PlansFile)


def test_prices_are_exact_in_parts_of_a_cent() -> None:
    meters = load_plans(ROOT / "config/plans.yaml", {}).plans["standard@1"].meters
    assert meters["llm_tokens"].price == PRICE_SCALE // 1000, "0.001 cents"
    assert meters["seats"].price == 500 * PRICE_SCALE
    enterprise = load_plans(ROOT / "config/plans.yaml", {}).plans["enterprise@1"].meters
    assert enterprise["seats"].included is None


def test_plain_values_are_read_as_they_are(tmp_path: Path) -> None:
    reported = 'tiers: [{up_to: 5, price: "1"}, {up_to: none, price: "0.5"}]'
    created = read(tmp_path, of_meter(f"{{{reported}}}") + '  a@1+acme: {fee: "0.5", minimum: "2", tier: b}\n')
    assert PlansFile.model_validate(created.model_dump(by_alias=True)) == created
    assert created.plans["a@1+acme"].fee == 50
    packed = read(tmp_path, of_meter('{price: "1", package: 1000}'))
    assert PlansFile.model_validate(packed.model_dump(by_alias=True)) == packed


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ('plans: {a: {fee: "1"}}', ["1: plans.a: 'a' is not the name of a version, PLAN@VERSION"]),
        ('plans: {a@1+acme: {fee: "1"}}', ["is a price of a@1, which is not there, write a@1 too"]),
        ("plans: {a@1: {fee: 1.999}}", ["plans.'a@1'.fee: '1.999' has parts of a cent"]),
        ("plans: {a@1: {fee: 1e3}}", ["'1e3' is not an amount"]),
        ('plans: {a@1: {fee: "9999999999999"}}', ["is not an amount"]),
        ('plans: {a@1: {fee: "9999999999.99"}}', []),
        ("plans: {a@1: {fee: [1]}}", ["is not a single value"]),
        ("plans: []", ["is not a mapping"]),
        ("plans: {a@1: {}}", ["fee: is missing"]),
        ("currency: eur\nplans: {}", []),
        ("plans: {a@1: 5}", ["plans.'a@1': is not a mapping"]),
        ("currency: xyz\nplans: {}", ["currency: 'xyz' is no currency in which prices can be"]),
        ('plans: {a@1: {fee: {eur: "1"}}}', ["plans.'a@1'.fee: has no price in usd, the currency of the file"]),
        (in_both('price: "1"'), ["2: plans.'a@1'.meters.m.price: has no price in jpy, in which other prices of the"]),
        (
            in_both('price: {usd: "1", jpy: "1"}, by: {dimension: d, prices: {x: "1"}}'),
            ["by.prices.x: has no price"],
        ),
        (in_both('tiers: [{up_to: 1, price: "0"}, {up_to: none, price: "1"}]'), ["tiers.1.price: has no price in jpy"]),
        (in_both('price: {usd: "1", jpy: "1", eur: "1"}'), ["fee: has no price in eur"]),
        ('plans: {a@1: {fee: {usd: "1", jpy: "1.5"}}}', ["'1.5' has more than the 0 places that payments in jpy can"]),
        ('plans: {a@1: {fee: {usd: "1", kwd: "1.005"}}}', ["'1.005' has more than the 2 places that payments in kwd"]),
        ('plans: {a@1: {fee: {usd: "1", kwx: "1.005"}}}', ["'kwx' is no currency"]),
        ("plans: {a@1: {fee: {}}}", ["has no price in usd"]),
        (of_meter('{price: "1/3"}'), ["has more than 12 places in cents a unit"]),
        (of_meter('{price: "-1"}'), ["'-1' is not a price"]),
        (of_meter('{price: "1/M"}'), ["'1/M' is not a price"]),
        (
            of_meter('{price: "1", by: {dimension: model, prices: {~other: "1"}}}'),
            ["'~other' is not a value of a dimension"],
        ),
        (of_meter('{price: "9999999999.1"}'), []),
        (of_meter('{included: many, price: "1"}'), ["'many' is not a number from 0 to"]),
        (of_meter('{included: 9999999999999999, price: "1"}'), ["is not a number from 0 to"]),
        (of_meter("{included: 5}"), ["does not say what happens above what is included"]),
        (of_meter('{included: 5, price: "1", cap: hard}'), ["has a price above a hard cap"]),
        (of_meter('{included: unlimited, price: "1"}'), ["for what is unlimited"]),
        (of_meter("{included: unlimited, cap: soft}"), ["for what is unlimited"]),
        (of_meter('{by: {dimension: model, prices: {m1: "1"}}, cap: soft}'), ["none for other values"]),
        (of_meter('{included: 5, tiers: [{up_to: none, price: "1"}]}'), ["has tiers and beside them included"]),
        (of_meter('{price: "1", tiers: [{up_to: none, price: "1"}]}'), ["has tiers and beside them included"]),
        (of_meter('{included: 5, price: "1", tiers_mode: volume}'), ["has a mode of tiers and no tiers"]),
        (of_meter("{included: 5, cap: hard, package: 10}"), ["has a package without one price for it"]),
        (of_meter('{price: "1", package: 1}'), ["1 is no package, a whole number of units from 2 on"]),
        (of_meter('{price: "1", package: 1000}'), []),
        (of_meter('{tiers: [{up_to: 5, price: "1"}]}'), ["do not cover every unit"]),
        (of_meter('{tiers: [{up_to: none, price: "1"}, {up_to: none, price: "2"}]}'), ["do not cover every unit"]),
        (of_meter('{tiers: [{up_to: x, price: "1"}]}'), ["'x' is not a number from 0 to"]),
        (
            of_meter('{tiers: [{up_to: 9, price: "1"}, {up_to: 9, price: "2"}, {up_to: none, price: "1"}]}'),
            ["has tiers that overlap, give each tier an up_to above"],
        ),
        ('plans: {a@1: {fee: "1", grace: {percent: 20%}}}', ["grace.for: is missing"]),
        ('plans: {a@1: {fee: "5", minimum: "5"}}', ["has a minimum that the fee reaches by itself"]),
        ('plans: {a@1: {fee: "5", threshold: "0"}}', ["has a threshold of nothing"]),
        ('plans: {a@1: {fee: "0", trial: {days: 5}}}', ["has a trial of what costs nothing"]),
        ('plans: {a@1: {fee: "5", trial: {days: 0}}}', ["0 is out of range, a whole number from 1 to 730"]),
        ('plans: {a@1: {fee: "1", meter: {}}}', ["unknown field, did you mean meters?"]),
    ],
)
def test_each_mistake_is_reported_with_its_place(tmp_path: Path, text: str, reported: list[str]) -> None:
    if not reported:
        assert read(tmp_path, text)
        return
    result = problems(tmp_path, text)
    assert len(result) == len(reported)
    for one, message in zip(reported, result, strict=True):
        assert one in message


def test_plans_from_text_read_no_files_or_environment_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEE", "5")
    (tmp_path / "more.yaml").write_text("plans: {free@1: {fee: '0'}}")
    assert load_plans_text("plans", "plans: {free@1: {fee: '${FEE:-7}'}}").plans["free@1"].fee == 700
    for text, fault in (
        ("plans:\n  free@1: {fee: '${FEE}'}", "plans:2: plans.'free@1'.fee: the environment has no variable FEE"),
        (f"include: [{tmp_path}/more.yaml]\nplans: {{}}", "plans:1: include: names files"),
        ("plans: [", "plans:1: yaml: is not YAML"),
    ):
        with pytest.raises(ConfigError) as error:
            load_plans_text("plans", text)
        assert str(error.value).startswith(fault), error.value


def test_customer_is_sold_the_newest_version_at_its_own_price(tmp_path: Path) -> None:
    versions = ("a@1", "a@10", "a@9", "a@10+acme", "c@1")
    plans = read(tmp_path, "plans:\n" + "".join(f'  {name}: {{fee: "1"}}\n' for name in versions)).plans
    assert find_newest_versions(plans) == {"a": "a@10", "c": "c@1"}
    assert find_newest_versions(plans, "acme") == {"a": "a@10+acme", "c": "c@1"}
    assert get_plan_tier("a@10+acme", plans["a@10+acme"]) == "a"


def test_prices_without_a_currency_are_in_that_of_their_file_or_dollars(tmp_path: Path) -> None:
    assert get_default_currency({}) == "usd"
    plans = read(tmp_path, 'currency: eur\nplans: {basic@1: {fee: "9"}}\n').plans
    assert get_default_currency(plans) == "eur"


def test_routes_without_a_cap_are_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, of_meter("{included: 5, routes: [chat]}"))
    assert problem.endswith("names the requests of a cap that is not there, write cap: hard or soft, or leave it out")


@pytest.mark.parametrize(
    ("meter", "has_prices"),
    [
        ('{included: 5, price: "1"}', True),
        ('{price: "0", by: {dimension: d, prices: {x: "0", y: "1"}}}', True),
        ('{price: "0", by: {dimension: d, prices: {x: "0"}}}', False),
        ('{tiers: [{up_to: 5, price: "0"}, {up_to: none, price: "1"}]}', True),
        ('{tiers: [{up_to: none, price: "0"}]}', False),
    ],
)
def test_plan_has_prices_if_a_price_of_a_meter_is_not_zero(tmp_path: Path, meter: str, has_prices: bool) -> None:
    plan = read(tmp_path, f'plans: {{a@1: {{fee: "0", meters: {{m: {meter}}}}}}}').plans["a@1"]
    assert plan.has_prices is has_prices
