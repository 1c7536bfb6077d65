"""The roll-out: who is charged, and each gate, open, closed and without a figure."""

from dataclasses import replace

import pytest

from edgeproxy.collector.billing.mismatch import Drift
from edgeproxy.collector.billing.rollout.gates import (
    CONDITIONS,
    Stage,
    StageFigures,
    compute_place,
    evaluate_gates,
    get_stage,
    is_charged,
    settle_percent,
)

GOOD = StageFigures(
    seconds=14400,
    shadow_compared=3,
    shadow_different=0,
    calculation_errors=0,
    drift=Drift(10, 1_000_000, 99),
    purchases=20,
    purchases_succeeded=20,
    webhooks=10,
    webhook_median=44.9,
    requests=10_000,
    errors=9,
    refused=20.0,
    refused_usually=10.0,
    margin=4.01,
    paused=0,
    closed_runs=1,
)
STEPS: dict[Stage, tuple[int, int]] = {"shadow": (0, 5), "few": (5, 25), "many": (25, 100)}


def test_a_customer_s_place_never_changes() -> None:
    assert [compute_place(name) for name in ("acme", "bolt")] == [2074, 1998]


def test_raising_the_percentage_only_adds() -> None:
    names = [f"customer-{number}" for number in range(2000)]
    charged: set[str] = set()
    for percent in (0, 1, 5, 25, 60, 100):
        now = {name for name in names if is_charged(name, "live", percent, ())}
        assert charged <= now
        assert abs(len(now) - 20 * percent) < 100
        charged = now
    assert charged == set(names)


@pytest.mark.parametrize(
    ("mode", "percent", "is_so"), [("off", 100, False), ("shadow", 100, True), ("shadow", 0, True), ("live", 0, True)]
)
def test_allowed_customer_is_charged_unless_billing_is_off(mode: str, percent: int, is_so: bool) -> None:
    assert is_charged("acme", mode, percent, ["acme"]) is is_so  # type: ignore[arg-type]


def test_in_shadow_no_other_customer_is_charged() -> None:
    assert not is_charged("acme", "shadow", 100, ["bolt"])
    assert is_charged("acme", "live", 100, ["bolt"])


@pytest.mark.parametrize(
    ("stored", "mode", "file_percent", "expected"),
    [
        (None, "live", 100, 100),
        (None, "live", 5, 5),
        (None, "shadow", 100, 0),
        (100, "shadow", 100, 0),
        (0, "live", 100, 0),
        (25, "live", 5, 5),
        (5, "live", 25, 5),
    ],
)
def test_the_file_lowers_the_percentage_and_never_raises_it(
    stored: int | None, mode: str, file_percent: int, expected: int
) -> None:
    assert settle_percent(stored, mode, file_percent) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(("percent", "expected"), [(0, "shadow"), (1, "few"), (24, "few"), (25, "many"), (100, "many")])
def test_percentage_belongs_to_its_stage(percent: int, expected: str) -> None:
    assert get_stage(percent) == expected


@pytest.mark.parametrize("of", list(STEPS))
def test_good_figures_open_every_gate_and_none_leave_every_one_closed(of: Stage) -> None:
    now, then = STEPS[of]
    gates = evaluate_gates(now, then, GOOD)
    assert [gate.name for gate in gates] == [condition.name for condition in CONDITIONS[of]]
    assert [gate for gate in gates if not gate.is_open] == []
    assert [gate for gate in evaluate_gates(now, then, StageFigures(seconds=0)) if gate.is_open] == []
    assert evaluate_gates(then, now, StageFigures(seconds=0)) == []


@pytest.mark.parametrize(
    ("of", "name", "bad"),
    [
        ("shadow", "time at 0 %", replace(GOOD, seconds=14399)),
        ("shadow", "time at 0 %", replace(GOOD, shadow_for=14401)),
        ("few", "time in this stage", replace(GOOD, seconds=1799)),
        ("many", "time in this stage", replace(GOOD, seconds=3599)),
        ("shadow", "shadow and real invoices", replace(GOOD, shadow_different=1)),
        ("shadow", "shadow and real invoices", replace(GOOD, shadow_compared=0)),
        ("shadow", "errors of calculation", replace(GOOD, calculation_errors=1)),
        ("few", "errors of calculation", replace(GOOD, calculation_errors=None)),
        ("few", "variance to Stripe", replace(GOOD, drift=Drift(10, 1_000_000, 100))),
        ("shadow", "variance to Stripe", replace(GOOD, drift=Drift(0, 0, 0))),
        ("few", "purchases that succeed", replace(GOOD, purchases=19, purchases_succeeded=19)),
        ("few", "purchases that succeed", replace(GOOD, purchases_succeeded=19)),
        ("few", "purchases that succeed", replace(GOOD, purchases_succeeded=None)),
        ("few", "median from event to effect", replace(GOOD, webhook_median=45.0)),
        ("few", "median from event to effect", replace(GOOD, webhooks=0)),
        ("many", "error rate", replace(GOOD, errors=10)),
        ("many", "error rate", replace(GOOD, requests=0)),
        ("many", "customers paused with 402", replace(GOOD, refused=20.1)),
        ("many", "daily margin", replace(GOOD, margin=4.0)),
        ("many", "customers paused for their usage", replace(GOOD, paused=1)),
        ("shadow", "closed invoice runs", replace(GOOD, closed_runs=0)),
    ],
)
def test_bad_figure_closes_only_its_own_gate(of: Stage, name: str, bad: StageFigures) -> None:
    assert [gate.name for gate in evaluate_gates(*STEPS[of], bad) if not gate.is_open] == [name]


def test_gate_shows_the_figure_that_it_judged() -> None:
    figure_by_gate = {
        gate.name: gate.figure for gate in evaluate_gates(5, 25, replace(GOOD, purchases=3, purchases_succeeded=3))
    }
    assert figure_by_gate["purchases that succeed"] == "3 of 3, too few to say"
    assert figure_by_gate["variance to Stripe"] == "0.0099 % of 1000000 units"


def test_a_gate_is_written_with_its_condition() -> None:
    first = evaluate_gates(5, 25, GOOD)[0]
    assert first.to_response() == {
        "name": "time in this stage",
        "required": "at least 30 min",
        "figure": first.figure,
        "is_open": True,
    }
