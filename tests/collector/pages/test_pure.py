"""Computations of pages: availability, projections, languages, forms."""

import asyncio
import re
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import hypothesis.strategies as st
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.api.code_flow import derive_secret, is_derived
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.languages.currencies import DisplayCurrency
from edgeproxy.collector.languages.invisible import escape_invisible, format_line, is_visible
from edgeproxy.collector.languages.meter_display import find_display
from edgeproxy.collector.languages.reader import choose_reader, create_reader
from edgeproxy.collector.pages import charts, forms, rendering
from edgeproxy.collector.pages.availability import DAYS, compute_quantile, compute_regions
from edgeproxy.collector.pages.brand_files import NO_BRAND, BrandFiles
from edgeproxy.collector.pages.checks import RegionChecks
from edgeproxy.collector.pages.credit_worth import compute_worths
from edgeproxy.collector.pages.edges import find_lateness
from edgeproxy.collector.pages.fee_shares import find_fee_share
from edgeproxy.collector.pages.job_groups import group_jobs
from edgeproxy.collector.pages.money import read_amount
from edgeproxy.collector.pages.month import find_month, find_period
from edgeproxy.collector.pages.overview import compute_revenue
from edgeproxy.collector.pages.rendering import CHARTS, create_environment
from edgeproxy.collector.pages.sign_in import SignInPages, find_local_path
from edgeproxy.collector.pages.site import PageError, Site, Visit
from edgeproxy.collector.pages.status import StatusSnapshot, render_page
from edgeproxy.collector.pages.status_parts import compute_part_state
from edgeproxy.collector.pages.traffic import (
    TrafficRange,
    TrafficReportView,
    TrafficView,
    choose_range,
    compute_overview,
    find_failing,
)
from edgeproxy.collector.pages.usage import compute_meters, compute_splits, find_first_day
from edgeproxy.config.collector.brand import PNG, Brand
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.pages import Pages, StatusPage
from edgeproxy.config.meters import Meter

NOW = 1_800_000_000
PRICE = {"included": 7_200_000, "price": "0.001", "cap": None}
TODAY = NOW // DAY * DAY
REGION = StatusPage.model_validate({"regions": {"eu": {"url": "http://127.0.0.1:1/x", "latency": "100ms"}}})


def test_region_status_counts_only_measured_probes_of_90_days() -> None:
    counts = {
        ("eu", TODAY, "failed"): 1,
        ("eu", TODAY, "50"): 900,
        ("eu", TODAY, "200"): 99,
        ("eu", TODAY, "fast"): 900,
        ("eu", TODAY - 89 * DAY, "50"): 1000,
        ("eu", TODAY - 89 * DAY, "fast"): 1000,
        ("eu", TODAY - 90 * DAY, "failed"): 5000,  # Too long ago.
        ("us", TODAY, "failed"): 5000,  # No region of the settings.
    }
    (region,) = compute_regions(counts, REGION, {"eu": True}, NOW)
    assert (len(region.days), region.total, region.failed) == (DAYS, 2000, 1)
    assert region.available == pytest.approx(0.9995)
    assert region.budget_left == pytest.approx(0.5)  # 2 of 2000 may fail.
    assert region.fast_share == pytest.approx(1900 / 1999)
    assert [day.available for day in region.days[1:-1]] == [None] * 88
    (worse,) = compute_regions({**counts, ("eu", TODAY, "failed"): 4}, REGION, {}, NOW)
    assert worse.budget_left is not None
    assert worse.budget_left < 0
    assert worse.is_well is None
    (unknown,) = compute_regions({}, REGION, {}, NOW)
    assert (unknown.available, unknown.budget_left, unknown.p95_ms) == (None,) * 3


def test_regions_are_named_where_there_are_several() -> None:
    reader = choose_reader("en", None)
    incident: Any = {
        "id": "i",
        "title": "slow",
        "severity": "P2",
        "began_at": 0,
        "ended_at": None,
        "regions": [],
        "updates": [],
    }
    snapshot = StatusSnapshot({}, [incident], 100 * DAY)

    def shown(*names: str) -> str:
        watched = {name: {"url": "http://127.0.0.1:1/"} for name in names}
        settings = StatusPage.model_validate({"name": "Example API", "regions": watched})
        regions = compute_regions({}, settings, {}, 100 * DAY)
        return render_page(reader, settings, regions, snapshot, 100 * DAY)

    one, two, none = shown("local"), shown("local", "far"), shown()
    assert ("local" in one, "everything" in one, one.count("Example API</bdi>")) == (False, False, 4)
    assert ("local" in two, "everything" in two, two.count("Example API</bdi>")) == (True, True, 1)
    assert "everything" in none
    assert "P2" not in one, "how operators call a severity is not for the public"


def test_the_public_reads_since_when_a_region_fails_if_that_was_seen() -> None:
    seen = RegionChecks(cast(Any, None), REGION)
    settings, reader, snapshot = REGION, choose_reader("en", None), StatusSnapshot({}, [], NOW)

    def sentence() -> str:
        regions = compute_regions({}, settings, seen.last, NOW, seen.failing_since)
        page = " ".join(render_page(reader, settings, regions, snapshot, NOW).split())
        return page.partition('class="strong big-line">')[2].partition("</p>")[0]

    seen.note("eu", NOW - 60, None, 0.1)  # Since a time before the collector began.
    assert sentence() == "It does not answer our checks."
    for at, seconds in ((NOW - 50, 0.01), (NOW - 40, None), (NOW - 30, None)):
        seen.note("eu", at, seconds, 0.1)
    assert "has not answered our checks since" in sentence()
    assert 'title="Jan 15, 2027, 07:59:20 UTC"' in sentence()
    seen.note("eu", NOW - 20, 0.01, 0.1)
    assert not seen.failing_since


@pytest.mark.parametrize(("answered", "after", "is_counted"), [(False, 59, False), (False, 60, True), (True, 1, True)])
def test_region_that_starts_with_the_collector_has_no_failure(answered: bool, after: int, is_counted: bool) -> None:
    seen = RegionChecks(cast(Any, None), REGION, NOW)
    if answered:
        seen.note("eu", NOW, 0.01, 0.1)
    seen.note("eu", NOW + after, None, 0.1)
    (region,) = compute_regions({}, REGION, seen.last, NOW)
    assert region.is_well is (False if is_counted else None)


@pytest.mark.parametrize(
    ("is_well", "severities", "is_planned", "state"),
    [
        (True, [], False, "operational"),
        (True, ["P3"], False, "operational"),
        (None, [], False, "unknown"),
        (False, ["P2"], False, "major_outage"),
        (False, [], True, "maintenance"),
        (True, ["P2", "P1"], True, "partial_outage"),
        (True, ["P0", "P2"], False, "major_outage"),
    ],
)
def test_status_of_a_service_part_is_its_worst_measured_or_reported_state(
    is_well: bool | None, severities: list[str], is_planned: bool, state: str
) -> None:
    incidents: Any = [{"severity": severity, "ended_at": None, "regions": []} for severity in severities]
    incidents += [{"severity": "P0", "ended_at": "2027-01-15T08:00:00Z", "regions": []}]
    incidents += [{"severity": "P0", "ended_at": None, "regions": ["elsewhere"]}]
    maintenance: Any = [{"state": "in_progress", "regions": ["portal" if is_planned else "elsewhere"]}]
    assert compute_part_state("portal", is_well, incidents, maintenance) == state


def test_times_have_24_hours_in_each_language() -> None:
    at = "2027-01-15T16:49:17Z"
    assert choose_reader("en", "en-US").moment(at) == "Jan 15, 2027, 16:49:17 UTC"
    assert choose_reader("de", None).moment(at) == "15.01.2027, 16:49:17 UTC"


def test_metered_value_has_a_unit_unless_the_meter_name_states_it() -> None:
    meters = {
        "egress": Meter.model_validate({"count": "bytes_out"}),
        "output": Meter.model_validate({"count": "output_tokens"}),
        "requests": Meter.model_validate({"count": "requests"}),
    }
    written = [render_macros(f'm.measured("{name}", 343000000)', meters) for name in (*meters, "gone")]
    assert written == ["343 MB", "343,000,000 tokens", "343,000,000", "343,000,000"]
    assert render_macros('m.measured("cost", 500000)', {}) == "$0.50", "millicredits"
    price = render_macros('m.price_of({"included": 5000000000, "price": "0.000000001"}, "usd", "egress")', meters)
    assert price == "5 GB included; then $0.00001 per 1 MB"


def test_a_meter_is_read_by_its_label_unit_and_scale() -> None:
    meters = {
        "in": Meter.model_validate({"count": "events", "label": "Tokens read", "unit": "tokens", "scale": "1000"}),
        "build": Meter.model_validate({"count": "events", "label": "Build time", "unit": "seconds", "scale": "3600"}),
        "egress": Meter.model_validate({"count": "bytes_out", "scale": "1000000000"}),
    }
    prices = render_macros('m.prices_of({"in": price, "build": price, "egress": price})', meters, price=PRICE)
    assert [line.strip() for line in prices.splitlines() if line.strip()] == [
        "<p>Tokens read: 7,200,000 included; then $0.01 per 1,000 tokens</p>",
        "<p>Build time: 2,000 hr included; then $0.036 per 1 hr</p>",
        "<p>Egress: 7.2 MB included; then $10,000.00 per 1 GB</p>",
    ]
    assert render_macros('m.measured("egress", 20000000)', meters) == "0.02 GB"
    assert render_macros('m.exact_count("build", 5400)', meters) == "5,400 seconds (1.5 hr)"
    package = PRICE | {"package": 500, "price": "2000"}
    assert render_macros('m.beyond_of(price, "usd", "in")', meters, price=package) == "$20.00 per 500 tokens"


def test_a_line_of_a_part_of_a_fee_says_of_how_many_days_it_is() -> None:
    def shown(kind: str, fee: int = 0) -> str:
        line = {"kind": kind, "plan": "pro@3", "meter": None, "quantity": 1, "unit_price": None, "amount": 1581}
        span = {"start": "2026-11-26T05:00:00Z", "end": "2026-12-01T00:00:00Z"}
        plans = {"pro@3": Plan.model_validate({"fee": str(fee // 100), "tier": "pro"})}
        share = partial(find_fee_share, plans)
        return render_macros("m.lines_of([line], 'usd')", {}, line=line | span, find_fee_share=share)

    assert "4.79 of 30 days of $99.00" in shown("proration", 9900)
    assert "share of the fee for 5 days" in shown("proration", 5000), "another fee than the one that was shared"
    assert re.findall("prorated|4.79 of 30 days of [$]99.00", shown("fee", 9900)) == [
        "prorated",
        "4.79 of 30 days of $99.00",
    ]
    assert (shown("fee").count("$15.81"), "prorated" in shown("fee")) == (2, False)


def test_included_units_have_no_unit_price() -> None:
    usage = {"kind": "usage", "meter": "tokens", "value": None, "quantity": 5, "package": 1, "plan": "crew@2"}
    span = {"start": "2026-12-01T00:00:00.000Z", "end": "2027-01-01T00:00:00.000Z"}
    for price, amount, shown in (("0", 0, "included"), ("0.5", 3, "$5.00 per 1,000")):
        line = usage | span | {"unit_price": price, "amount": amount, "text": ""}
        lines = render_macros("m.lines_of([line], 'usd')", {}, line=line, find_fee_share=lambda *_: None)
        assert re.findall('data-label="Unit price">([^<]*)', lines) == [shown]


@pytest.mark.parametrize(
    ("fee", "start", "end", "amount", "unit_price"),
    [
        ("20", "2026-12-01T00:00", "2027-01-01T00:00", 6000, "$20.00"),
        ("20", "2026-12-01T00:22", "2027-01-01T00:00", 5997, "30.985 of 31 days of $20.00"),
        ("9999", "2026-11-30T23:30", "2026-12-01T00:00", 2083, "0.021 of 30 days of $9,999.00"),
        ("20", "2026-11-30T23:00", "2026-12-01T00:00", 9, "0.042 of 30 days of $20.00"),
        ("20", "2027-02-28T22:00", "2027-03-01T00:00", 18, "0.083 of 28 days of $20.00"),
        ("1", "2026-12-14T12:00", "2026-12-15T12:00", 10, "1 of 30 days of $1.00"),
        ("1", "2027-04-29T12:00", "2027-04-30T12:00", 10, "share of the fee for 1 day"),
    ],
)
def test_the_unit_price_of_a_fee_is_that_of_one(fee: str, start: str, end: str, amount: int, unit_price: str) -> None:
    """A month less its first minutes is a part of it, and so are its last minutes."""
    line = {"kind": "fee", "plan": "crew@2", "meter": None, "quantity": 3, "unit_price": None, "amount": amount}
    span = {"start": f"{start}:00Z", "end": f"{end}:00Z"}
    share = partial(
        find_fee_share, {"crew@2": Plan.model_validate({"fee": fee, "tier": "pro", "quantity": {"max": 9}})}
    )
    lines = render_macros("m.lines_of([line], 'usd')", {}, line=line | span, find_fee_share=share)
    assert re.findall('data-label="Unit price">([^<]*)', lines) == [unit_price]


def test_a_range_with_equal_ends_is_one_value() -> None:
    def render(call: str, low: int, high: int) -> str:
        ahead = {"low": {"total": low, "requests": low}, "high": {"total": high, "requests": high}}
        return render_macros(call, {}, ahead=ahead)

    assert render('m.range_of(ahead, "usd")', 50_805, 50_833) == "$508.05 – $508.33"
    assert render('m.range_of(ahead, "usd")', 50_805, 50_805) == "$508.05"
    assert render('m.projected_total(ahead, "usd")', 0, 0) == "$0.00"
    assert render('m.projected_units({"low": 61, "high": 61}, "requests")', 0, 0) == "61"
    assert render('m.projected_units({"low": 61, "high": 70}, "requests")', 0, 0) == "61 – 70"


def test_all_prices_of_a_meter_are_for_the_same_number_of_units() -> None:
    by = {"dimension": "model", "prices": {"large": "0.003", "small": "0.0004"}}
    prices = render_macros("m.beyond_of(price)", {}, price={"price": "0.001", "by": by})
    assert re.sub("<[^>]*>", "", prices) == (
        "$10.00 per 1,000,000; large: $30.00 per 1,000,000; small: $4.00 per 1,000,000"
    )
    tiers = [{"up_to": 5, "price": "0.5"}, {"up_to": None, "price": "0.0005"}]
    prices = render_macros("m.beyond_of(price)", {}, price={"tiers": tiers})
    assert prices == "from $5,000.00 per 1,000,000 to $5.00 per 1,000,000"


def test_a_quota_has_one_name_and_the_grace_beside_it_another_one() -> None:
    quotas = [
        {"quota": "tokens-month", "kind": "plan", "meter": "tokens", "cap": "soft"},
        {"quota": "tokens-month", "kind": "plan", "meter": "tokens", "cap": "hard"},
        {"quota": "seats", "kind": "plan", "meter": "seats", "cap": "hard"},
        {"quota": "tokens-day", "kind": "quota", "meter": "tokens", "cap": "hard"},
        {"quota": "cost-day", "kind": "cap", "meter": "cost", "cap": "hard"},
    ]
    limits = [
        {**quota, "name": quota["quota"], "is_hard": quota["cap"] == "hard", "window_s": None} for quota in quotas
    ]
    names = ["Included tokens", "Included tokens, with the grace", "Included seats", "Quota: tokens", "Spending cap"]
    meters: dict[str, Meter] = {}
    for one, limit, name in zip(quotas, limits, names, strict=True):
        assert render_macros("m.held_quota_name(one, quotas)", meters, one=one, quotas=quotas).lower() == name.lower()
        call = '{% import "access.html" as reach with context %}{{ reach.access_name(one, limits)'
        assert render_macros(f'""}}}}{call}', meters, one=limit, limits=limits).lower() == name.lower()


@pytest.mark.parametrize(("available", "rest"), [(-5000, ["5", "-5"]), (0, []), (-4, ["0.004", "-0.004"])])
def test_grants_and_usage_beyond_them_add_up_to_the_balance(available: int, rest: list[str]) -> None:
    grant = {"kind": "gift", "granted": 20_000, "granted_at": "2026-11-30T15:15:52Z", "returned": 0, "used": 20_000}
    held = {"available": available, "grants": [{**grant, "millicredits": 0, "expires_at": None}]}
    shown = render_macros("m.grants_of(held)", {}, held=held)
    row = shown.partition("Used beyond these")[2]
    assert re.findall(r'data-label="(?:Used|Left)">([^<]*)', row) == rest


def test_credit_worth_is_computed_from_past_usage() -> None:
    meters = {
        "cost": Meter.model_validate({"count": "events"}),
        "in": Meter.model_validate({"count": "input_tokens", "label": "Tokens read"}),
        "requests": Meter.model_validate({"count": "requests"}),
        "refused": Meter.model_validate({"count": "refusals"}),
    }
    rows = [{"meter": name, "value": 10_000 * value} for name, value in zip(meters, (80, 10, 1, 5), strict=True)]
    worths = compute_worths(rows, meters, {"usd": "cost"}, "usd", 99_999_999)
    assert [(worth.display.label, worth.quantity, worth.is_alone) for worth in worths] == [
        ("Requests", 1_249_999, True),
        ("Tokens read", 12_499_999, True),
    ]
    more = {**meters, "out": Meter.model_validate({"count": "output_tokens"})}
    both = compute_worths([*rows, {"meter": "out", "value": 10}], more, {"usd": "cost"}, "usd", 99_999_999)
    assert [worth.is_alone for worth in both] == [True, False, False]
    assert not compute_worths(rows[1:], meters, {"usd": "cost"}, "usd", 1), "nothing is known of what it costs"
    reader = choose_reader("en", None)
    assert [reader.about(number) for number in (7, 12_499, 1_249_999)] == ["7", "12,400", "1.2 million"]
    assert choose_reader("de", None).about(12_499_999) == "12,4 Millionen"


def render_macros(call: str, meters: dict[str, Meter], **values: Any) -> str:
    """Return the rendered result of a call of the macros."""
    source = '{% import "macros.html" as m with context %}{{ ' + call + " }}"
    shared = {"reader": choose_reader("en", None), "find_display": partial(find_display, meters), "beside": None}
    shared["credit_meters"] = {"cost": "usd"}
    return create_environment("en").from_string(source).render(**shared, **values).strip()


def test_chart_axis_has_unique_labels_and_a_top_mark_label_below_it() -> None:
    empty = charts.draw_bars(["a"], [("", "1", [0])], format_axis=lambda value: "$0.00", unit="", label="")
    assert empty.count("<span>$0.00</span>") == 1
    marked = charts.draw_bars(["a"], [("", "1", [1])], mark=(4, "Target"), unit="", label="")
    assert 'dy="14" y="0%">Target' in marked


def test_a_quantile_lies_within_its_bucket() -> None:
    assert compute_quantile({50: 90, 100: 0, 200: 10}, 0.95) == 150
    assert compute_quantile({50: 10}, 0.5) == 25
    assert compute_quantile({50: 0}, 0.5) is None


def test_usage_is_added_up_by_the_days_of_the_month_so_far() -> None:
    month = find_month(1_782_864_000 + 15 * 86400)  # 2026-07-16
    assert (month.days, round(month.part, 3)) == (31, 0.484)
    rows = [{"meter": "requests", "day": f"2026-07-{day:02}T00:00:00Z", "value": 100} for day in (1, 15)]
    (meter,) = compute_meters(
        [*rows, {"meter": "requests", "day": "2026-07-16T00:00:00Z", "value": 1300}], month, 1_784_160_000, month.since
    )
    assert (meter.total, len(meter.days), meter.days[-1].quantity) == (1500, 16, 1300)


def test_bars_are_drawn_from_zero_to_an_even_step_and_stacked() -> None:
    drawn = charts.draw_bars(["<1>", "2"], [("a", "1", [10, None]), ("b", "2", [30, 90])], unit="u", label='"l"')
    bars = re.findall(r'<rect (class="f1"|fill="[^"]*") [^>]* y="([\d.]+)%" width="34%" height="([\d.]+)%"', drawn)
    assert bars == [('class="f1"', "90", "10"), ('fill="url(#p2)"', "60", "30"), ('fill="url(#p2)"', "10", "90")]
    assert charts.compute_steps(90) == [0, 25, 50, 75, 100]
    assert ("<1>" in drawn, "&lt;1&gt; · a 10 · b 30" in drawn, 'aria-label="&#34;l&#34;"' in drawn) == (
        False,
        True,
        True,
    )
    assert charts.draw_bars([], [], unit="u", label="l").count("<rect") == 0


def test_negative_values_are_below_the_axis() -> None:
    bars = charts.draw_bars(["1", "2"], [("a", "1", [60, -20]), ("b", "2", [-20, -20])], unit="", label="")
    drawn = re.findall(r'<rect (?:class="f1"|fill="[^"]*") [^>]* y="([\d.]+)%" width="34%" height="([\d.]+)%"', bars)
    assert drawn == [("12", "48"), ("60", "16"), ("60", "16"), ("76", "16")], "the axis is at 60 %"
    assert charts.compute_steps(60, -40) == [-50, -25, 0, 25, 50, 75]
    line = charts.draw_lines(["1", "2"], [("", "1", [-4, 0])], area=True, unit="", label="")
    assert re.findall(r'class="area" d="([^"]*)"', line) == ["M0 0L0 100L1000 0L1000 0Z"]


@given(numbers=st.lists(st.floats(-1e9, 1e9) | st.sampled_from([-0.004, 0, 1e9]), min_size=1))
def test_each_bar_of_any_values_is_inside_its_chart(numbers: list[float]) -> None:
    labels = [""] * len(numbers)
    drawn = charts.draw_bars(labels, [("", "1", numbers), ("", "2", numbers[::-1])], expected=[5], unit="", label="")
    for y, tall in re.findall(r'<rect (?:class="f1"|fill="[^"]*") [^>]* y="([^"]*)%" [^>]* height="([^"]*)%"', drawn):
        assert 0 <= float(y) <= float(y) + float(tall) <= 100.02


def test_values_with_links_can_be_followed_and_a_chart_without_is_a_picture() -> None:
    values, plain = [("", "1", [1, 2])], {"unit": "u", "label": "l"}
    for draw in (charts.draw_bars, charts.draw_lines):
        drawn = draw(["1", "2"], values, links=["?from=<1>&to=2", "?from=2"], **plain)
        assert drawn.count('<a class="pt" href="?from=&lt;1&gt;&amp;to=2"') == 1
        assert ('role="group"' in drawn, 'role="img"' in drawn) == (True, False)
        assert 'role="img"' in draw(["1", "2"], values, **plain)


def test_job_list_starts_with_failed_and_late_jobs_and_folds_others() -> None:
    now = 1_784_160_000.0

    def job(
        name: str, rest: float, ago: float, result: str = "succeeded", *, runs: bool = False, holds: bool = False
    ) -> Any:
        at = format_timestamp(int((now - ago) * 1000))
        running, ended = (at, None) if runs else (None, at)
        of = {"holds_jobs": holds}
        return {"name": name, "period_s": rest, "result": result, "ended_at": ended, "running_since": running, **of}

    jobs = [
        job("a", 30, 9000, "failed"),
        job("b", 30, 391),
        job("c", 30, 389, "standby"),
        job("d", 3600, 11_000),
        job("e", 300, 1201, runs=True),
        job("f", 300, 60, runs=True),
        {**job("g", 86400, 0), "ended_at": None},
        job("h", 5, 9000, runs=True, holds=True),
        job("i", 5, 9000, holds=True),
    ]
    groups = group_jobs(jobs, now)
    named = [(rest, [one["name"] for one in some]) for rest, some in groups.others]
    assert named == [("seconds", ["c", "h"]), ("minutes", ["f"]), ("hours", ["d", "g"])]
    assert [[one["name"] for one in some] for some in groups[:2]] == [["a"], ["b", "e", "i"]]


def test_a_line_is_interrupted_where_nothing_was_measured() -> None:
    drawn = charts.draw_lines(["1", "2", "3", "4"], [("a", "1", [5, None, 10, 10])], unit="u", label="l")
    assert 'd="M0 50L16 50M666.67 0L1000 0"' in drawn, "a lone value is a dash"
    last = charts.draw_lines(["1", "2", "3"], [("a", "1", [None, None, 10])], unit="u", label="l")
    assert 'd="M984 0L1000 0"' in last, "the dash has its whole width at the end of the plot too"
    assert charts.compute_steps(0.04) == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])
    assert charts.compute_steps(1912) == [0, 500, 1000, 1500, 2000]


@pytest.mark.parametrize(("count", "hidden"), [(0, 0), (1, 0), (2, 0), (3, 0), (4, 2), (400, 3)])
def test_a_narrow_chart_hides_labels_of_its_x_axis_only_if_there_are_many(count: int, hidden: int) -> None:
    labels = [str(number) for number in range(count)]
    drawn = charts.draw_bars(labels, [("", "1", [1] * count)], unit="u", label="l")
    assert drawn.count('<text class="alt"') == hidden


def test_a_month_has_the_days_that_a_tier_shows_and_the_total_of_all() -> None:
    rows = [{"meter": "requests", "day": "2026-07-16T00:00:00Z", "value": 1300}]
    now = 1_784_160_000 + 3600
    month = find_month(now)
    since = find_first_day(month, now, 7.0 * DAY)
    (meter, early) = compute_meters(rows, month, now, since, {"requests": 1500, "tokens": 7})
    assert (meter.total, len(meter.days), meter.days[0].begins) == (1500, 8, 1_784_160_000 - 7 * DAY)
    assert (early.total, sum(day.quantity for day in early.days)) == (7, 0)
    assert find_first_day(month, now, None) == find_first_day(month, now, 365.0 * DAY) == 1_782_864_000


def test_a_period_of_billing_has_the_days_that_it_touches() -> None:
    now = 1_784_160_000 + 3600
    period = find_period(1_784_160_000 - 2 * DAY + 7200, 1_784_160_000 + 2 * DAY + 60, now)
    assert (period.first_day, period.days, round(period.part, 3)) == (1_784_160_000 - 2 * DAY, 5, 0.5)
    rows = [{"meter": "requests", "day": "2026-07-14T00:00:00Z", "value": 3}]
    (meter,) = compute_meters(rows, period, now, period.since)
    assert [day.quantity for day in meter.days] == [3, 0, 0]


def test_usage_of_two_dimensions_is_summed_by_each() -> None:
    rows = [
        {"meter": "tokens", "model": model, "kind": kind, "value": value}
        for model, kind, value in (("large", "input", 3), ("large", "output", 4), ("small", "input", 1))
    ]
    rows.append({"meter": "requests", "model": "", "kind": "", "value": 9})
    (by_model,), (by_kind,) = (compute_splits(rows, dimension, {"tokens"}) for dimension in ("model", "kind"))
    assert by_model[:3] == ("tokens", "model", [("large", 7, 0.875), ("small", 1, 0.125)])
    assert by_kind[:3] == ("tokens", "kind", [("input", 4, 0.5), ("output", 4, 0.5)])


@pytest.mark.parametrize(
    ("chosen", "accepted", "language", "number", "money"),
    [
        (None, None, "en", "1,234.5", "$12.34"),
        (None, "de-CH,en;q=0.8", "de", "1’234.5", "$ 12.34"),
        (None, "fr, nl;q=0.5, de;q=0.9", "de", "1.234,5", "12,34 $"),
        ("nl", "de-DE", "nl", "1.234,5", "US$ 12,34"),
        ("nl", "de, nl-BE;q=0.1", "nl", "1.234,5", "US$ 12,34"),
        ("xx", "nonsense;q=x, */*, ;;,de-Nowhere-x", "de", "1.234,5", "12,34 $"),
    ],
)
def test_a_reader_has_the_language_and_the_figures_of_a_locale(
    chosen: str | None, accepted: str | None, language: str, number: str, money: str
) -> None:
    reader = choose_reader(chosen, accepted)
    assert reader.language == language
    assert reader.number(1234.5) == number
    assert reader.money(1234).replace("\xa0", " ") == money


def test_money_has_the_places_of_its_currency() -> None:
    reader = choose_reader("en", None)
    amounts = [reader.money(1230, currency) for currency in ("eur", "jpy", "kwd")]
    assert [amount.replace("\xa0", " ") for amount in amounts] == ["€12.30", "¥1,230", "KWD 1.230"]


@pytest.mark.parametrize("language", ["en", "de", "nl"])
def test_number_rounded_to_nothing_has_no_sign(language: str) -> None:
    reader = choose_reader(language, None)
    euro = DisplayCurrency("EUR", Decimal("0.4"), 0)
    for value in (-0.004, -0.0, 0.0):
        texts = [
            *(reader.money(round(value)), reader.whole_money(round(value * 100)), reader.amount(Decimal(value), "USD")),
            *(reader.approximate(value, euro), reader.exact(round(value)), reader.credits(round(value))),
            *(reader.number(value / 10), reader.rounded(value), reader.compact(value), reader.times(value)),
            *(reader.quantity(value, "seconds", 3600), reader.quantity(value)),
        ]
        assert [text for text in texts if "-" in text or re.search("[1-9]", text)] == []
    assert (reader.compact(-0.006), reader.amount(Decimal("-0.006"), "USD")) != ("0", reader.money(0))
    billion = re.compile(r"\D*1\D000\D000\D000(\D00)?\D*")
    assert all(billion.fullmatch(text) for text in (reader.money(10**11), reader.number(10**9), reader.credits(10**12)))


def test_percentages_are_rounded_but_never_to_all_or_nothing() -> None:
    assert choose_reader("en", None).share(0.8799999, 1) == "88.0%"
    assert choose_reader("en", None).share(0.865, 0) == "87%", "a half is rounded up, as readers do"
    assert choose_reader("en", None).share(0.006, 0) == "1%"
    assert choose_reader("en", None).share(-0.126, 0) == "-13%"
    assert choose_reader("en", None).share(-0.0, 0) == "0%"
    assert choose_reader("en", None).share(0.9997, 0) == "99%"
    assert choose_reader("en", None).share(1.096, 0) == "110%"
    assert choose_reader("en", None).share(0.99999) == "99.99%"
    assert choose_reader("de", None).share(0.9995, 3) == "99,950\xa0%"
    assert choose_reader("en", None).share(1.0, 0) == "100%"
    assert choose_reader("en", None).share(0.004, 0) == "<1%", "little is not nothing"
    assert choose_reader("de", None).share(0.0004, 1) == "<0,1\xa0%"
    assert choose_reader("en", None).share(0.0, 1) == "0.0%"
    assert choose_reader("en", None).share(-0.004, 0) == ">-1%"
    for value, shown in ((0.99946, "99.94%"), (0.9995, "99.95%"), (0.99951, "99.95%"), (0.99996, "99.99%")):
        assert choose_reader("en", None).share(value, promised=0.9995) == shown, "a missed promise never reads as kept"


def test_a_form_counts_only_from_a_page_of_this_site() -> None:
    ours = frozenset({"https://console.example.com"})
    assert forms.normalize_origin("https://console.example.com:443") == "https://console.example.com"
    assert forms.is_same_origin({"Origin": "https://console.example.com"}, ours)
    assert forms.is_same_origin({"Origin": "https://console.example.com", "Sec-Fetch-Site": "same-origin"}, ours)
    for fields in (
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "https://console.example.com", "Sec-Fetch-Site": "cross-site"},
    ):
        assert not forms.is_same_origin(fields, ours)


def test_sign_in_redirects_only_to_local_paths() -> None:
    assert find_local_path("/console?q=1") == "/console?q=1"
    strange = ("console", "/a\nb", "//[", "")
    for elsewhere in ("//evil.example.com", "/\\evil.example.com", "https://evil.example.com", *strange):
        assert find_local_path(elsewhere) == ""


def test_a_page_of_a_referer_that_is_no_url_is_none_of_ours() -> None:
    request = make_mocked_request("GET", "/", headers={"Referer": "http://[", "Host": "console.example.com"})
    site = Site(Any, Pages(), "https://console.example.com", Any, Any, Any)  # type: ignore[arg-type]
    assert Visit(site, request, choose_reader(None, None)).referring_page == ""


def test_an_amount_that_no_invoice_has_is_refused_with_one_that_may_be() -> None:
    with pytest.raises(PageError, match="is no amount in JPY, such as 1234"):
        read_amount("12.34", "jpy")
    assert read_amount(" 12.34 ", "usd") == 1234


def test_invisible_characters_are_escaped() -> None:
    assert escape_invisible("a\u202eb\x00c\nd") == "a\\u202eb\\x00c\nd"
    assert escape_invisible("x" * 65536) == "x" * 2000 + "…"


PERSIAN, FAMILY, JAPANESE = "می\u200cخواهم", "👨\u200d👩\u200d👧", "山田\u3000太郎"
HINDI, MALAYALAM, HEART = "क्\u200dष", "രാജന്\u200d", "\u2764\ufe0f\u200d🔥"
LATIN, CHINESE, ENDS, FILLER = "Việ\u200dt", "山\u200c田", "می\u200c", "\u3164"


@pytest.mark.parametrize("text", [PERSIAN, FAMILY, JAPANESE, HINDI, MALAYALAM, HEART, "2,00\xa0€", "12\u202f345"])
def test_names_and_amounts_of_all_languages_are_visible(text: str) -> None:
    assert is_visible(text)
    assert escape_invisible(text) == format_line(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "ad\u200dmin",
        "\u200cمی",
        "می\u200c\u200cخواهم",
        LATIN,
        CHINESE,
        ENDS,
        FILLER,
        "ل\u202eا",
        "a\nb",
        "\0",
        "\ud800",
    ],
)
def test_characters_that_deceive_readers_are_not_visible(text: str) -> None:
    assert not is_visible(text)
    assert format_line(text) != text


def test_sign_in_cookie_has_the_host_prefix_over_tls() -> None:
    """Otherwise an attacker could sign a visitor in to another account without notice."""

    class There:
        async def begin(self, secret: str, back: str, *, again: bool) -> str:
            return "https://login.example.com/"

    for url, prefix in (("https://edge.example.com", "__Host-"), ("http://127.0.0.1:9100", "")):
        site: Any = Site(None, Pages(), url, None, None, None)  # type: ignore[arg-type]
        visit = Visit(site, make_mocked_request("GET", "/sign-in/operator"), choose_reader(None, None))
        answer = asyncio.run(SignInPages(site, There()).to_issuer(visit))  # type: ignore[arg-type]
        (cookie,) = answer.cookies.values()
        assert cookie.key == f"{prefix}edgeproxy-sign-in"
        assert (cookie["path"], cookie["domain"], bool(cookie["secure"])) == ("/", "", bool(prefix))


@pytest.mark.parametrize("nonce", ["", "None", "\ud800", "\0", "é", derive_secret("secret", "state")])
def test_token_of_another_sign_in_is_refused_for_any_nonce(nonce: str) -> None:
    assert not is_derived(nonce, "secret", "nonce")
    assert is_derived(derive_secret("secret", "nonce"), "secret", "nonce")


def test_a_brand_is_two_files_of_the_pages_own(tmp_path: Path) -> None:
    logo = tmp_path / "logo.png"
    logo.write_bytes(PNG + (64).to_bytes(4, "big") * 2)
    brand = BrandFiles(Brand.model_validate({"logo": str(logo), "light": "#0B6B5C", "dark": "#7fe0cf"}))
    files = {path: (content, media) for path, content, media in brand.list_files()}
    assert files.keys() == {brand.logo, brand.sheet}
    assert files[brand.logo] == (logo.read_bytes(), "image/png")
    assert b"--accent: light-dark(#0b6b5c, #7fe0cf)" in files[brand.sheet][0]
    snapshot = StatusSnapshot({}, [], NOW)
    page, plain = (render_page(create_reader("en"), StatusPage(), [], snapshot, NOW, one) for one in (brand, NO_BRAND))
    for part in (f'src="{brand.logo}"', f'href="{brand.sheet}"'):
        assert (part in page, part in plain) == (True, False)
    assert page.index("style.css") < page.index("brand.css")


def test_traffic_is_held_against_the_time_before_and_a_step_without_reports_is_a_gap() -> None:
    def counts(requests: int, start: int | None = None, **names: str) -> TrafficView:
        made = {"requests": requests, "rate_limited": requests // 10, "server_errors": 0, "p50_ms": 3.0, "p95_ms": 4.0}
        return cast(TrafficView, made | names | ({} if start is None else {"start": format_timestamp(start * 1000)}))

    def answer(*rows: TrafficView, missing: int | None = 0) -> TrafficReportView:
        total = counts(sum(row["requests"] for row in rows))
        groups = [counts(row["requests"], region="eu") for row in rows[:1]]
        return {"total": total, "groups": groups, "rows": list(rows), "edges": [{"missing": missing}]}

    since = TODAY
    total = answer(counts(600, since), counts(300, since + 3540), missing=58)
    regions = answer(counts(600, since, region="eu"))
    before = answer(counts(1200, since - 3600, region="eu"))
    overview = compute_overview(TrafficRange("1", since, since + 3600, 60, 3600), total, regions, before)
    assert overview.rates == (7.5, 0.1, 0.0, 3.0, 4.0), "the mean of the steps below"
    assert overview.change == pytest.approx(-0.625)
    assert overview.steps[0] == (10.0, 0.1, 0.0, 3.0, 4.0)
    assert [place for place, step in enumerate(overview.steps) if step is not None] == [0, 59]
    assert (overview.earlier[0], overview.earlier[1]) == (20.0, 0.0)
    assert overview.regions[0].change == -0.75
    assert (overview.missing, overview.silent) == (58, 0)
    nothing = compute_overview(overview.range, answer(missing=None), answer(), answer())
    assert (nothing.rates.limited, nothing.change, nothing.earlier, nothing.silent) == (None, None, [], 1)


def test_custom_time_range_aligns_to_stored_steps_before_now() -> None:
    now, kept = TODAY + 10 * 3600 + 30, 3 * DAY

    def choose(since: str, until: str) -> tuple[str, int, int, int, int]:
        hours, begin, end, step, span = choose_range({"from": since, "to": until, "hours": "6"}, now, kept)
        return hours, begin - TODAY, end - TODAY, step, span

    at = [format_timestamp((TODAY + second) * 1000)[:16] for second in (0, 5400, 86400, -30 * DAY, -2 * DAY, -90 * DAY)]
    assert choose(at[0], at[1]) == ("own", 0, 5400, 60, 5400)
    assert choose(at[1], at[2]) == ("own", 5400, 36000, 600, 30600), "not after now"
    assert choose(at[4], at[0]) == ("own", -2 * DAY, 0, 3600, 2 * DAY), "minutes of the time before are gone"
    assert choose(at[3], at[1]) == ("own", -30 * DAY, 5400, 12 * 3600, 30 * DAY + 12 * 3600)
    for since, until in ((at[1], at[0]), ("", ""), ("x", "\ud800"), (at[0], at[0]), ("9999-12-31T23:59", at[0])):
        assert choose(since, until) == ("6", 14400, 36000, 600, 21600)
    assert choose("1970-01-01T00:01", at[0])[0] == "6", "longer than there are steps"


def test_a_region_fails_from_the_step_on_since_when_many_requests_do() -> None:
    def steps(*failed: int) -> list[TrafficView]:
        return [
            cast(
                TrafficView, {"requests": 100, "server_errors": count, "start": format_timestamp((NOW + 60 * n) * 1000)}
            )
            for n, count in enumerate(failed)
        ]

    assert find_failing(steps(9, 1, 5, 15)) == (NOW + 120, 0.1)
    assert find_failing(steps(9, 9, 4)) == find_failing([]) == (None, None)
    quiet = cast(TrafficView, {"requests": 0, "server_errors": 0, "start": format_timestamp((NOW + 120) * 1000)})
    assert find_failing([*steps(1, 10), quiet]) == (NOW + 60, 0.1), "a step without requests says nothing"
    assert find_failing([quiet]) == (None, None)


@pytest.mark.parametrize(
    ("lag", "received", "why"), [(None, 0, "unread"), (60, 5, None), (500, 400, "silent"), (500, 5, "behind")]
)
def test_an_edge_is_late_for_a_reason(lag: int | None, received: int, why: str | None) -> None:
    edge: Any = {"lag_s": lag, "last": {"received": format_timestamp((NOW - received) * 1000)}}
    assert find_lateness(edge, NOW) == why


def draw_chart(name: str, count: int) -> str:
    """Return a chart of this many values by the function of this name, as templates call it."""
    labels, values = [str(number) for number in range(count)], [float(number % 7 + 1) for number in range(count)]
    match name:
        case "draw_sparkline":
            return charts.draw_sparkline(values)
        case "draw_days":
            return charts.draw_days([("o", label) for label in labels], "")
        case _:
            draw = getattr(charts, name)
            return str(draw(labels, [("", "1", values)], unit="", label=""))


@pytest.mark.parametrize("count", [0, 1, 2, 400])
@pytest.mark.parametrize("name", CHARTS)
def test_each_chart_of_the_templates_draws_any_number_of_values(name: str, count: int) -> None:
    drawn = draw_chart(name, count)
    ElementTree.fromstring(f"<x>{drawn}</x>")
    if name in ("draw_lines", "draw_sparkline"):
        path = re.findall(r'class="l l1" d="([^"]*)"', drawn)
        lines = sum(one.count("L") for one in path)
        assert lines == (1 if count == 1 else max(count - 1, 0)), "a lone value is drawn, too"
    else:
        assert len(re.findall(r'<rect class="f[1o]"', drawn)) == count
    if name in ("draw_lines", "draw_bars"):
        assert drawn.count('class="pt"') == count
    assert "nan" not in drawn.lower()


def test_each_chart_of_a_template_is_one_of_the_tested() -> None:
    drawing = {name for name in vars(charts) if name.startswith("draw_")}
    called = {
        name
        for file in Path(rendering.__file__).with_name("templates").iterdir()
        for name in re.findall(r"\bdraw_\w+(?=\()", file.read_text())
    }
    assert drawing == called == set(CHARTS)


def test_sparkline_has_a_gap_where_nothing_was_measured() -> None:
    drawn = charts.draw_sparkline([1.0, 3.0, None, 2.0])
    assert re.findall(r' d="([^"]*)"', drawn) == ["M0 95L333.33 5M984 50L1000 50"]
    assert charts.draw_sparkline([None, None]) == ""


def test_chart_area_has_the_gaps_of_its_line() -> None:
    drawn = charts.draw_lines(list("abcde"), [("", "1", [1, 1, None, 1, 1])], area=True, unit="", label="")
    assert re.findall(r'class="area" d="([^"]*)"', drawn) == [
        "M0 100L0 0L250 0L250 100ZM750 100L750 0L1000 0L1000 100Z"
    ]


@pytest.mark.parametrize(("as_of", "compared"), [("2027-03-03", (20, 10)), ("2027-03-04", (5, 20))])
def test_revenue_compares_only_whole_days(as_of: str, compared: tuple[int, int]) -> None:
    days = [{"day": f"2027-03-{day:02}", "revenue": revenue} for day, revenue in ((1, 10), (2, 20), (3, 5))]
    revenue = compute_revenue({"as_of": f"{as_of}T00:10:00.000Z", "days": days, "currency": "jpy"})
    assert revenue == (35, *compared, "jpy")
