"""Hard caps of gauges: a report above the cap is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeproxy.collector.ledger.aggregates import Reading
from edgeproxy.collector.quotas.gauge_caps import find_excess
from loadtest.testbed.collector import ADMIN, SERVICE, Collector
from tests.support.collector_fixtures import StartCollector


@pytest.mark.parametrize(
    ("latest", "new", "excess"),
    [
        ([], [(5, "", 10)], {}),
        ([], [(5, "", 11)], {0: 11}),
        (
            [(1, "", 20)],
            [(5, "", 19), (6, "", 20)],
            {1: 20},
        ),  # The level is above a smaller plan's cap: it may only fall.
        ([(1, "", 20)], [(6, "", 20), (5, "", 9)], {0: 20}),  # Readings apply in the order of their times.
        ([(1, "a", 6)], [(5, "b", 4), (6, "c", 1), (7, "a", 5), (8, "c", 1)], {1: 11}),  # The sum of its series.
        ([(7, "", 10)], [(8, "", 11), (6, "", 90)], {0: 11}),  # An older reading does not change the current level.
        ([(9, "a", 6)], [(5, "b", 5)], {0: 11}),  # A new series adds to the level, whatever its time.
    ],
)
def test_gauge_reading_above_its_cap_is_found(latest: list[Any], new: list[Any], excess: dict[int, int]) -> None:
    assert find_excess([Reading(*one) for one in latest], [Reading(*one) for one in new], 10) == excess


def plans(folder: Path) -> str:
    free = {"fee": "0", "meters": {"storage_gb": {"included": 10, "cap": "hard"}}}
    standard = {"fee": "9", "meters": {"storage_gb": {"included": 100, "price": "0.50"}}}
    (folder / "plans.yaml").write_text(yaml.safe_dump({"plans": {"free@1": free, "standard@1": standard}}))
    return str(folder / "plans.yaml")


@pytest.mark.parametrize(("aggregate", "split"), [("average", {}), ("last", {"dimensions": {"disk": 5}})])
def test_reading_above_a_hard_cap_is_rejected(
    start_collector: StartCollector, tmp_path: Path, aggregate: str, split: dict[str, Any]
) -> None:
    held = {"quotas": [{"meter": "storage_gb", "included": 7, "cap": "hard"}]}
    collector: Collector = start_collector(
        tiers={"basic": {}, "free": {}, "standard": {}, "held": held},
        meters={"storage_gb": {"count": "events", "aggregate": aggregate, **split}},
        billing={"plans": plans(tmp_path)},
    )

    def report(number: int, value: int, customer: str = "acme") -> tuple[int, int, list[str]]:
        event = {"id": f"{customer}-{number}", "source": "s", "customer": customer, "meter": "storage_gb"}
        answer = collector.send("POST", "/v1/events", {**event, "value": value}, token=SERVICE)
        assert answer.status == 202, answer
        body = answer.json()
        return body["accepted"], body["duplicates"], [one["error"] for one in body["rejected"]]

    def status(customer: str = "acme") -> list[tuple[int, int, str, None]]:
        quotas = collector.get(f"/v1/customers/{customer}/quotas", token=ADMIN).json()["quotas"]
        return [(quota["used"], quota["limit"], quota["cap"], quota["per"]) for quota in quotas]

    why = "value: makes {} of storage_gb, and the plan has a hard cap of 10"
    assert report(1, 500) == (1, 0, []), "without a plan there is no cap"
    # The collector's settings file also defines `acme`. The cap of its plan applies nevertheless.
    for name in ("acme", "dora"):
        collector.send("POST", "/v1/customers", {"name": name, "tier": "basic"})
        answer = collector.send("POST", f"/billing/subscription?customer={name}", {"plan": "free"})
        assert answer.status == 201, answer
    assert status() == [(500, 10, "hard", None)]
    assert report(2, 501) == (0, 0, [why.format(501)])
    assert report(1, 500) == (0, 1, []), "a counted event is a duplicate"
    assert report(3, 400) == (1, 0, [])
    assert report(1, 10, "dora") == (1, 0, [])
    assert report(2, 11, "dora") == (0, 0, [why.format(11)])
    assert status("dora") == [(10, 10, "hard", None)]
    assert collector.get("/v1/dead-letters", token=ADMIN).json()["dead_letters"] == [], (
        "a refused reading is not a dead letter"
    )
    answer = collector.send("PUT", "/billing/subscription?customer=dora", {"plan": "standard"})
    assert answer.status == 200, answer
    collector.send("POST", "/v1/customers", {"name": "tied", "tier": "held"})
    assert report(1, 8, "tied") == (0, 0, ["value: makes 8 of storage_gb, and the plan has a hard cap of 7"])
    assert report(3, 500, "dora") == (1, 0, [])
    assert status("dora") == []
