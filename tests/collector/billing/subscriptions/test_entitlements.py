"""The effect of a plan's caps on quotas, and its time."""

import pytest

from edgeproxy.collector.billing.subscriptions.entitlements import (
    UPGRADE,
    build_quotas,
    get_quota_period,
    period_number,
)
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.limits import Entitlement
from edgeproxy.config.meters import Meter

METERS = {
    "tokens": Meter(count="events"),
    "seats": Meter(count="holdings"),
    "gigabytes": Meter(count="events", aggregate="average"),
}
SOFT, HARD = {"included": 1000, "cap": "soft"}, {"included": 10, "cap": "hard"}
GRACE = {"percent": "20%", "for": "3day"}
DAYS = 3 * 86400


def made(meters: dict[str, object], *, passed: int | None = None, now: float = 0.0, **more: object) -> list[str]:
    plan = Plan.model_validate({"fee": "0", "meters": meters, **more})
    quotas = build_quotas(plan, None, METERS, {} if passed is None else {"tokens": passed}, now)
    return [
        f"{quota.name} {quota.cap} {quota.included}{'' if quota.why is None else '!'}"
        + (f" {quota.grace}" if quota.grace else "")
        for quota in quotas
    ]


@pytest.mark.parametrize(
    ("meters", "more", "expected"),
    [
        ({"tokens": HARD}, {"grace": GRACE}, ["tokens-month hard 10"]),
        ({"tokens": SOFT}, {}, ["tokens-month soft 1000"]),
        ({"tokens": SOFT}, {"grace": GRACE}, [f"tokens-month soft 1000 {DAYS}", "tokens-month hard 1200!"]),
        ({"tokens": {**SOFT, "price": "0.01"}}, {"grace": GRACE}, ["tokens-month soft 1000"]),
        ({"tokens": {"included": 5, "price": "0.01"}}, {"grace": GRACE}, []),
        ({"tokens": {"included": "unlimited"}}, {}, []),
        ({"seats": HARD}, {}, ["seats hard 10"]),
        ({"gigabytes": HARD, "unknown": HARD}, {}, ["gigabytes hard 10"]),
        ({"gigabytes": SOFT}, {"grace": GRACE}, ["gigabytes soft 1000"]),
    ],
)
def test_plan_cap_becomes_a_quota_only_for_boundable_meters(
    meters: dict[str, object], more: dict[str, object], expected: list[str]
) -> None:
    assert made(meters, **more) == expected


def test_a_grace_is_over_after_its_time() -> None:
    for now, expected in (
        (100 + DAYS - 1, [f"tokens-month soft 1000 {DAYS}", "tokens-month hard 1200!"]),
        (100 + DAYS, ["tokens-month hard 1000!"]),
    ):
        assert made({"tokens": SOFT}, grace=GRACE, passed=100, now=now) == expected
    (hard,) = build_quotas(
        Plan.model_validate({"fee": "0", "meters": {"tokens": SOFT}, "grace": GRACE}), None, METERS, {"tokens": 0}, DAYS
    )
    assert hard.why == UPGRADE


def test_periods_of_signups_are_counted_from_them() -> None:
    anchor = 1_798_761_600  # 2027-01-01T00:00:00Z
    assert (get_quota_period(None), get_quota_period(anchor)) == ("month", f"month@{anchor}")
    assert [period_number(anchor, anchor + days * 86400) for days in (0, 30, 31, 58, 59)] == [1, 1, 2, 2, 3]
    assert Entitlement(meter="tokens", per=get_quota_period(anchor), included=1).name == "tokens-month"
    assert Entitlement(meter="cost", per="ever@2", included=1).name == "credits"
