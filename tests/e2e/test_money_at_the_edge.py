"""Billing decisions at the edge: spent credits, the caps of plans, and no refusals while billing charges no
customer.
"""

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.database.quota_tables import quota_passes
from edgeproxy.config.meters import OVER_CAP
from loadtest.testbed.collector import EDGE, SERVICE, sha256
from loadtest.testbed.customers import key_line, key_of
from loadtest.testbed.edge import StartEdge
from loadtest.testbed.http_client import Answer
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector
from tests.support.edge_fixtures import start_follower
from tests.support.service import Service
from tests.support.site import PagesStage
from tests.support.writing import changes

COST = 1000
"""Millicredits of a request."""
CENT = 10_000
TIERS: dict[str, Any] = {
    "basic": {},
    "capped": {"caps": {"day": 3 * COST}},
    "free": {},
    "standard": {},
}
METERS = {"cost": {"count": "cost"}, "tokens": {"count": "events"}, "runs": {"count": "events"}}
PLANS = {
    "plans": {
        "free@1": {
            "fee": "0",
            "grace": {"percent": "20%", "for": "1h"},
            "meters": {"tokens": {"included": 1000, "cap": "soft"}, "runs": {"included": 10, "cap": "hard"}},
        },
        "standard@1": {"fee": "99", "meters": {"tokens": {"included": 5000, "price": "0.01"}}},
    }
}


class Money:
    """An edge without a hub. It follows a collector that sells credits and plans."""

    def __init__(self, folder: Path, start_collector: StartCollector, start_edge: StartEdge) -> None:
        (folder / "plans.yaml").write_text(yaml.safe_dump(PLANS))
        billing = {"plans": str(folder / "plans.yaml"), "credits": {"meter": "cost"}}
        routes = [{"path": "/*", "upstream": "api", "cost": COST}]
        self.collector, self.edge = start_follower(
            folder, start_collector, start_edge, tiers=TIERS, meters=METERS, billing=billing, routes=routes
        )

    def adds(self, name: str, tier: str = "basic") -> str:
        """Create a customer with a key; return the id."""
        created = self.collector.send("POST", "/v1/customers", {"name": name, "tier": tier})
        assert created.status == 201, created
        key = {"sha256": sha256(key_of(name)), "name": "key"}
        assert self.collector.send("POST", f"/v1/customers/{name}/keys", key).status == 201
        until(lambda: self.asks(name).status == 200, "the customer is known")
        return str(created.json()["id"])

    def asks(self, name: str) -> Answer:
        return self.edge.ask(fields={"Authorization": f"Bearer {key_of(name)}"})

    def is_answered(self, name: str, status: int, what: str) -> None:
        until(lambda: {self.asks(name).status for _ in range(4)} == {status}, what)

    def buys(self, customer: str, session: str, cents: int) -> None:
        """Pay for credits, as Stripe reports it."""

        async def book(connection: AsyncConnection) -> None:
            await credits.book_purchase(connection, customer, Payment(session, f"pi_{session}", cents * CENT))

        changes(self.collector, book)

    def reports(self, name: str, meter: str, number: int, value: int) -> None:
        event = {"id": f"{name}-{number}", "source": "test", "customer": name, "meter": meter, "value": value}
        answer = self.collector.send("POST", "/v1/events", event, token=SERVICE)
        assert (answer.status, answer.json()["accepted"]) == (202, 1), answer

    def charges(self, charging: bool) -> None:
        said = {"charging": charging, "why": "a test"}
        assert self.collector.send("PUT", "/billing/rollout", said).status == 200

    def balance(self, name: str) -> int:
        answer = self.collector.get("/billing/balance", token="admin-token", customer=name)
        return int(answer.json()["available"])


@pytest.fixture
def money(tmp_path: Path, start_collector: StartCollector, start_edge: StartEdge) -> Money:
    return Money(tmp_path, start_collector, start_edge)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_spent_credits_refuse_until_a_purchase(money: Money) -> None:
    number = money.adds("acme")
    money.adds("other")
    money.buys(number, "cs_1", 2)  # 20 requests
    until(lambda: "credits" in [limit["name"] for limit in money.edge.limits("acme")], "the edge knows")
    served = 0
    while (answer := money.asks("acme")).status == 200:
        served += 1
        assert served <= 21, "two workers may pass it by one each, less one"
    assert served >= 19, "the request before the purchase may be in its minute, from which on usage is paid by credits"
    problem = answer.json()
    assert (answer.status, problem["type"]) == (402, "https://edgeproxy.example/problems/credits-spent")
    assert problem["violated-policies"] == ["credits"]
    assert answer.all("retry-after") == []
    assert money.asks("other").status == 200, "a customer without credits is not limited by them"
    until(lambda: money.balance("acme") <= 0, "the ledger knows")
    overdraft = -money.balance("acme")
    print(f"served {served}, {overdraft} millicredits below zero")
    assert overdraft <= COST
    # Bought credits unblock the customer within seconds. Used credits do not return.
    began = time.monotonic()
    money.buys(number, "cs_2", 1)
    until(lambda: money.asks("acme").status == 200, "the requests are admitted")
    print(f"released after {time.monotonic() - began:.2f} s")
    money.is_answered("acme", 402, "they are spent too")
    until(lambda: money.balance("acme") <= 0, "the ledger knows")
    assert -money.balance("acme") <= 2 * COST
    # A new edge, or one that lost its counts, learns the balance from the ledger.
    money.edge.end()
    for file in Path(money.edge.settings["state"]).glob("*quotas*"):
        file.unlink()
    money.edge.start()
    money.is_answered("acme", 402, "the ledger knows what was spent")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_credits_and_money_caps_are_off_while_charging_is_off(money: Money) -> None:
    number = money.adds("acme")
    money.adds("capped", "capped")
    money.buys(number, "cs_1", 1)
    until(lambda: money.asks("acme").status == 402, "credits are spent")
    until(lambda: money.asks("capped").status == 429, "the cap of the day is reached")
    began = time.monotonic()
    money.charges(False)
    money.is_answered("acme", 200, "spent credits hold nobody")
    money.is_answered("capped", 200, "nor do caps in money")
    assert time.monotonic() - began < 5.0
    money.charges(True)
    money.is_answered("capped", 429, "caps hold again")
    money.is_answered("acme", 402, "there are no credits still")
    # Free usage spent no credits, neither at the edge nor at the collector.
    money.buys(number, "cs_2", 10)
    until(lambda: money.asks("acme").status == 200, "there are credits")
    assert money.balance("acme") > 0


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_the_caps_of_a_plan_hold_at_the_edge(money: Money) -> None:
    for name in ("hard", "soft", "slow"):
        money.adds(name)
        answer = money.collector.send("POST", f"/billing/subscription?customer={name}", {"plan": "free"})
        assert answer.status == 201, answer
    money.reports("hard", "runs", 1, 10)
    until(lambda: money.asks("hard").status == 429, "a hard cap refuses")
    answer = money.asks("hard")
    assert answer.json()["violated-policies"] == ["runs-month"]
    assert 0 < int(answer.all("retry-after")[0]) <= 31 * 86400 + 1, "the end of the period"
    # A soft cap marks, then the grace is used up.
    money.reports("soft", "tokens", 1, 1001)
    until(lambda: money.asks("soft").all("x-quota") == ['"tokens-month";over'], "a soft cap marks")
    assert money.asks("soft").status == 200
    money.reports("soft", "tokens", 2, 199)
    until(lambda: money.asks("soft").status == 429, "a fifth more, and it is as hard")
    assert "upgrade is required" in money.asks("soft").json()["detail"]
    # The other way: the grace time ends. The test moves the time of the passed cap back by an hour.
    money.reports("slow", "tokens", 1, 1001)
    until(lambda: money.asks("slow").all("x-quota") == ['"tokens-month";over'], "the answer marks the exceeded quota")

    async def put_back(connection: AsyncConnection) -> None:
        of = quota_passes.c
        earlier = {"at": of.at - 3600, "due": of.due - 3600}
        changed = await connection.execute(sa.update(quota_passes).where(of.customer == "slow").values(**earlier))
        assert changed.rowcount == 1

    changes(money.collector, put_back)
    until(lambda: money.asks("slow").status == 429, "the grace is over", seconds=30)
    assert "upgrade is required" in money.asks("slow").json()["detail"]
    # A customer who upgrades is served at once.
    answer = money.collector.send("PUT", "/billing/subscription?customer=slow", {"plan": "standard"})
    assert answer.status == 200, answer
    until(lambda: money.asks("slow").status == 200, "an upgrade releases")
    assert money.edge.limits("slow") == []


def test_answer_above_the_request_cap_counts_in_full_and_raises_alerts(tmp_path: Path, start_edge: StartEdge) -> None:
    fields = {"Authorization": f"Bearer {key_of('acme')}"}
    with Service() as service, closing(PagesStage(tmp_path / "pages")) as stage:
        edge = start_edge(
            port=service.port,
            usage={"collector": stage.site, "token": EDGE, "every": "200ms"},
            meters={"cost": {"count": "response_header", "header": "X-Cost"}},
            tiers={"pro": {"caps": {"request": 50_000}}},
            customers={"acme": {"tier": "pro"}},
            keys=[key_line("acme")],
            routes=[
                {"name": "dear", "path": "/dear", "upstream": "api", "cost": 50_001},
                {"name": "agents", "path": "/*", "upstream": "api", "cost": 20_000},
            ],
        )

        def costs(cost: int, path: str = "/quick") -> int:
            return edge.ask(path, fields={**fields, "X-Cost": str(cost)}).status

        def told(**query: str) -> list[dict[str, Any]]:
            answer = stage.collector.get("/v1/alerts", **query).json()
            return [alert for alert in answer["alerts"] if alert["kind"] == "request_cap_exceeded"]

        def is_counted(cost: int, above: int) -> bool:
            rows = stage.collector.usage(by="meter", customer="acme")["rows"]
            return {row["meter"]: row["value"] for row in rows} == {"cost": cost, OVER_CAP: above}

        assert [costs(50_000, "/dear"), costs(50_000), costs(62_000)] == [429, 200, 200]
        until(lambda: is_counted(112_000, 12_000), "both count in full, and what is above the cap beside them")
        (alert,) = told()
        assert (alert["severity"], alert["customer"]) == ("warn", "acme")
        assert alert["title"] == "answers to acme on agents have cost more than a request may, by 12000 millicredits"
        assert costs(50_001) == 200
        until(lambda: is_counted(162_001, 12_001), "another one counts")
        assert told() == [alert], "an alert is raised once a day"
        stage.operator.get("/console/alerts")
        said = "Answers to {} on agents have cost 12 credits more than a request may"
        assert said.format("acme") in stage.operator.read.text
        for name in ("acme", "bolt"):
            with stage.customer(name) as customer:
                customer.get("/account/alerts")
                assert (said.format("you") in customer.read.text) is (name == "acme")
