"""Over HTTP: usage by dimension, what gauges come to, and how far back customers see detail."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from loadtest.testbed.collector import OWN, SERVICE, Collector

METERS = {
    "tokens": {"count": "events", "dimensions": {"model": 50}},
    "seats": {"count": "events", "aggregate": "max", "dimensions": {"team": 5}},
    "users": {"count": "events", "aggregate": "unique"},
}
DAY = 86400
TODAY = int(time.time()) // DAY * DAY


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector whose customers see three days of detail."""
    folder = tmp_path_factory.mktemp("detail")
    tiers = {"basic": {"analytics": "3day"}}
    with closing(Collector(folder / "c", f"sqlite:///{folder}/ledger.db", meters=METERS, tiers=tiers)) as made:
        made.start()
        sent = [
            event("tokens", 5, 40, {"model": "m1"}),
            event("tokens", 3, 1, {"model": "m2"}),
            event("tokens", 2, 1),
            event("seats", 4, 40, {"team": "x"}),
            event("seats", 9, 2, {"team": "y"}),
            event("seats", 1, 1, {"team": "y"}),
            *(event("users", value, 1) for value in ("u1", "u2", "u1", 7)),
        ]
        answer = made.send("POST", "/v1/events", sent, token=SERVICE)
        assert answer.json() == {"accepted": len(sent), "duplicates": 0, "rejected": []}
        yield made


def event(meter: str, value: int | str, days_ago: int, dimensions: dict[str, str] | None = None) -> dict[str, Any]:
    event.number += 1  # type: ignore[attr-defined]
    said: dict[str, Any] = {"id": f"e{event.number}", "source": "s", "customer": "bound", "meter": meter}  # type: ignore[attr-defined]
    return {**said, "value": value, "time": written(TODAY - days_ago * DAY), "dimensions": dimensions}


event.number = 0  # type: ignore[attr-defined]


def written(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def test_usage_is_grouped_by_dimension(collector: Collector) -> None:
    usage = collector.usage(by="model", meter="tokens")
    rows = [{"model": "", "value": 2}, {"model": "m1", "value": 5}, {"model": "m2", "value": 3}]
    assert usage == {"total": 10, "rows": rows}
    page = collector.usage(by="model", meter="tokens", limit="1")
    assert collector.usage(by="model", meter="tokens", cursor=page["next"])["rows"] == rows[1:]
    csv = collector.get("/v1/usage", by="model,customer", format="csv", **{"from": "1970-01-01"}).body.decode()
    assert csv.splitlines() == ["model,customer,value", ",bound,2", "m1,bound,5", "m2,bound,3"]
    assert collector.usage(meter="tokens", where="model:m1")["total"] == 5
    assert collector.usage(by="model", meter="tokens", where="model:") == {"total": 2, "rows": rows[:1]}
    assert collector.usage(by="route", meter="tokens", where="model:m2")["total"] == 3
    assert collector.usage(by="route,model", meter="tokens", where="model:m2")["total"] == 3
    refused = collector.get("/v1/usage", meter="seats", customer="bound", where="team:x")
    assert (refused.status, refused.json()["detail"].startswith("where: seats has no filter")) == (400, True)
    assert collector.get("/v1/usage", by="modell").json()["detail"].startswith("by: 'modell' is not known")


def test_gauge_usage_reports_levels_by_day(collector: Collector) -> None:
    span = {"from": written(TODAY - 3 * DAY), "to": written(TODAY + DAY)}
    rows = collector.usage(meter="seats", by="day", customer="bound", **span)["rows"]
    days = {row["day"]: row["value"] for row in rows}
    assert days == {written(TODAY - ago * DAY): seats for ago, seats in ((3, 4), (2, 13), (1, 5), (0, 5))}
    assert collector.usage(meter="seats", customer="bound")["total"] == 13
    teams = collector.usage(meter="seats", by="customer,team")["rows"]
    assert [(row["team"], row["value"]) for row in teams] == [("x", 4), ("y", 9)]
    first = collector.usage(meter="seats", by="customer,team", limit="1")
    assert collector.usage(meter="seats", by="customer,team", cursor=first["next"])["rows"] == teams[1:]
    assert collector.usage(meter="users", customer="bound")["total"] == 3
    assert "name one" in collector.get("/v1/usage", meter="seats", by="day").json()["detail"]
    always = {"customer": "bound", "by": "customer", "from": "1970-01-01"}
    csv = collector.get("/v1/usage", meter="users", format="csv", **always)
    assert csv.body.decode().splitlines() == ["customer,value", "bound,3"]


def test_customers_see_so_many_days_of_detail(collector: Collector) -> None:
    old, new = ({"from": written(TODAY - days * DAY)} for days in (4, 3))
    assert collector.get("/v1/usage", by="day", **old).status == 200
    assert collector.get("/v1/usage", token=OWN, by="day", **new).status == 200
    for question in (
        {"by": "day"},
        {"where": "route:v1"},
        {"by": "day", "format": "csv"},
        {"meter": "seats", "by": "hour"},
    ):
        answer = collector.get("/v1/usage", token=OWN, **question, **old)
        assert (answer.status, "detail is shown for 3 days" in answer.json()["detail"]) == (400, True)
    days = collector.get("/v1/usage", token=OWN, by="day", meter="tokens").json()["rows"]
    used = 5 if time.gmtime(TODAY).tm_mday > 1 else 0  # Yesterday.
    assert sum(row["value"] for row in days) == used, "a query without `from` covers what is shown of this month"
    months = collector.usage(token=OWN, by="model", meter="tokens", **{"from": "2020-01-01"})
    assert months["total"] == 10
