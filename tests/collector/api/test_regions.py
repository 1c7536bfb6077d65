"""Routing by latency at a real collector: who may report and ask, and what decides."""

import signal
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from loadtest.testbed.collector import ADMIN, EDGE, OWN, READ, SERVICE, Collector, sha256
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.waiting import until

BEACON = "beacon-token"


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One that chooses between three regions."""
    folder = tmp_path_factory.mktemp("regions")
    customers = {
        "acme": {"tier": "basic", "regions": {"prefer": "ap"}},
        "bolt": {"tier": "basic", "regions": {"allow": ["us", "ap"]}},
        "plain": {"tier": "basic"},
    }
    settings = {"regions": {"names": ["eu", "us", "ap"], "default": "us"}, "customers": customers}
    with closing(Collector(folder / "collector", f"sqlite:///{folder}/ledger.db", **settings)) as made:
        made.settings["tokens"].append({"name": "beacon-eu", "sha256": sha256(BEACON), "role": "beacon"})
        yield made.start()


def post(collector: Collector, reports: list[dict[str, Any]], token: str = BEACON) -> Answer:
    """Send reports."""
    fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = orjson.dumps({"reports": reports})
    return ask(collector.port, "/v1/regions/reports", method="POST", fields=fields, body=body)


def best(collector: Collector, token: str = BEACON, **query: str) -> Answer:
    """Ask for the best region."""
    path = "/v1/regions/best?" + urlencode(query)
    return ask(collector.port, path, fields={"Authorization": f"Bearer {token}"})


def reports(network: str, country: str | None = None, **measured: float) -> list[dict[str, Any]]:
    """Return reports of three voters."""
    about = {"network": network, "measured": measured} | ({"country": country} if country else {})
    return [about | {"voter": f"{voter}"} for voter in range(3)]


def test_the_best_region_is_by_wish_by_network_by_country_or_the_default(collector: Collector) -> None:
    taken = reports("192.0.2.0/24", eu=12.0, us=90.0, moon=1.0) + reports("203.0.113.0/24", moon=1.0)
    for number in range(3):
        taken += reports(f"198.51.{number}.0/24", "JP", eu=200.0, us=150.0, ap=30.0)
    assert post(collector, taken).json() == {"taken": 12}, "a report of an unknown region is dropped"
    assert collector.metric("collector_region_networks") == 4
    assert collector.metric("collector_region_reports_total", result="ignored") == 3

    body = best(collector, address="192.0.2.77").json()
    assert body == {
        "region": "eu",
        "because": "network",
        "order": ["eu", "us", "ap"],
        "measured": {"eu": 12.0, "us": 90.0},
        "network": "192.0.2.0/24",
    }
    assert best(collector, address="192.0.2.0/28").json() == body, "a DNS server knows a network"
    chosen = {
        (found["region"], found["because"])
        for found in (
            best(collector, address="2001:db8::1", country="JP").json(),
            best(collector, address="192.0.2.77", customer="acme").json(),
            best(collector, address="192.0.2.77", customer="bolt").json(),
            best(collector, address="203.0.113.1").json(),
        )
    }
    assert chosen == {("ap", "country"), ("ap", "prefer"), ("us", "default")}
    assert best(collector, address="192.0.2.77", customer="plain").json()["because"] == "network"
    assert best(collector, customer="nobody").status == 404
    made = {"name": "in-the-database", "tier": "basic", "regions": {"prefer": "us"}}
    assert collector.send("POST", "/v1/customers", made).status == 201
    body = best(collector, address="192.0.2.77", customer="in-the-database").json()
    assert (body["region"], body["because"]) == ("us", "prefer")


def test_only_beacon_tokens_report_latency_and_have_no_other_right(collector: Collector) -> None:
    some = reports("192.0.9.0/24", eu=12.0, us=90.0)
    for token in (EDGE, READ, ADMIN, SERVICE, OWN):
        assert post(collector, some, token).status == 403
    for token, status in ((EDGE, 200), (READ, 200), (ADMIN, 200), (SERVICE, 403), (OWN, 403), ("unknown", 401)):
        assert best(collector, token, address="192.0.2.1").status == status
    for path in ("/v1/usage", "/v1/edges", "/v1/audit", "/v1/quarantine"):
        assert ask(collector.port, path, fields={"Authorization": f"Bearer {BEACON}"}).status == 403
    assert best(collector, address="192.0.9.1").json()["because"] == "default"


def test_invalid_latency_report_is_refused_as_a_whole(collector: Collector) -> None:
    (good, *_) = reports("192.0.2.0/24", eu=12.0)
    for wrong in (
        {"measured": {"eu": 0}},
        {"measured": {"eu": 1e9}},
        {"measured": {"eu": "12"}},
        {"measured": {"eu": True}},
        {"measured": {"eu": None}},
        {"measured": {}},
        {"measured": {f"r{number}": 1.0 for number in range(17)}},
        {"network": "x" * 65},
        {"voter": "a\nb"},
        {"country": "Germany"},
        {"country": "de"},
        {"more": 1},
    ):
        assert post(collector, [good, good | wrong]).status == 422, wrong
    assert post(collector, [good] * 501).status == 422
    for address in ("", "eu", "192.0.2.1/33", "192.0.2", "x" * 65):
        assert best(collector, address=address).status == 400, address
    assert best(collector, country="de").json()["detail"].endswith(", see GET /v1/openapi.json")


def test_latency_reports_survive_a_reload_that_keeps_the_regions(collector: Collector) -> None:
    def reloaded(**settings: Any) -> None:
        collector.settings.update(settings)
        collector.write()
        assert collector.process is not None
        collector.process.send_signal(signal.SIGHUP)

    post(collector, reports("192.0.7.0/24", eu=12.0, us=90.0))
    reloaded(customers={"acme": {"tier": "basic", "regions": {"prefer": "eu"}}})
    until(lambda: best(collector, customer="acme").json()["region"] == "eu", "the wish is another one")
    assert best(collector, address="192.0.7.77").json()["because"] == "network"
    reloaded(regions={"names": ["eu", "us"]})
    until(lambda: best(collector, address="192.0.7.77").json()["because"] == "default", "nothing is known")
    del collector.settings["regions"]
    reloaded()
    until(lambda: best(collector).status == 404, "the collector has no regions")
    assert "regions are not configured" in best(collector).json()["detail"]
