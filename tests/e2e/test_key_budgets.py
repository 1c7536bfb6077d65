"""Budgets of keys, in money and in units: a spent key is refused by its name, the customer's other keys still work."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtest.testbed.collector import sha256
from loadtest.testbed.customers import key_of
from loadtest.testbed.edge import StartEdge
from loadtest.testbed.http_client import Answer
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector, only_sqlite
from tests.support.edge_fixtures import start_follower

TIERS: dict[str, Any] = {"basic": {}, "standard": {}}
METERS = {
    "calls": {"count": "requests", "dimensions": {"key": 3}},
    "seen": {"count": "requests"},
    "peak": {"count": "events", "aggregate": "max", "dimensions": {"key": 3}},
}
PLANS = {"plans": {"standard@1": {"fee": "99", "meters": {"calls": {"included": 20, "price": "0.10"}}}}}


class Keys:
    """An edge that follows a collector, and a customer whose calls cost ten cents each."""

    def __init__(self, folder: Path, start_collector: StartCollector, start_edge: StartEdge) -> None:
        (folder / "plans.yaml").write_text(yaml.safe_dump(PLANS))
        billing = {"plans": str(folder / "plans.yaml")}
        self.collector, self.edge = start_follower(
            folder, start_collector, start_edge, tiers=TIERS, meters=METERS, billing=billing
        )
        created = self.collector.send("POST", "/v1/customers", {"name": "acme", "tier": "basic"})
        assert created.status == 201, created

    def subscribe(self) -> None:
        answer = self.collector.send("POST", "/billing/subscription?customer=acme", {"plan": "standard"})
        assert answer.status == 201, answer

    def send_key(self, name: str, **fields: Any) -> Answer:
        body = {"sha256": sha256(key_of(name)), "name": name, **fields}
        return self.collector.send("POST", "/v1/customers/acme/keys", body)

    def add_key(self, name: str, **fields: Any) -> dict[str, Any]:
        created = self.send_key(name, **fields)
        assert created.status == 201, created
        until(lambda: self.ask(name).status == 200, "the key is known")
        return dict(created.json())

    def change_key(self, key: dict[str, Any], budget: dict[str, Any] | None) -> None:
        answer = self.collector.send("PATCH", f"/v1/keys/{key['id']}", {"budget": budget})
        assert answer.status == 200, answer

    def ask(self, secret: str) -> Answer:
        key = secret if secret.startswith("edge_") else key_of(secret)
        return self.edge.ask(fields={"Authorization": f"Bearer {key}"})

    def spend(self, secret: str, most: int) -> int:
        """Send requests until the key is refused, at most `most`; return how many were served."""
        for served in range(most):
            if self.ask(secret).status != 200:
                return served
        raise AssertionError(f"{secret} was served {most} times")

    def list_budgets(self) -> dict[str, dict[str, Any]]:
        body = self.collector.get("/v1/customers/acme/key-budgets", token="admin-token").json()
        return {budget["name"]: budget for budget in body["budgets"]}


@pytest.fixture
def keys(tmp_path: Path, start_collector: StartCollector, start_edge: StartEdge) -> Keys:
    return Keys(tmp_path, start_collector, start_edge)


@only_sqlite("database")
def test_key_with_a_spent_money_budget_is_refused_and_others_pass(keys: Keys) -> None:
    money = {"amount": 100, "per": "month", "currency": "usd"}
    refused = keys.send_key("early", budget=money)
    assert (refused.status, refused.json()["detail"]) == (
        409,
        "the customer has no plan, and so no prices: give a meter",
    )
    keys.subscribe()
    wrong = keys.send_key("early", budget={**money, "currency": "eur"})
    assert wrong.status == 422
    assert "has its prices in usd" in str(wrong.json())
    key = keys.add_key("ci", budget={"amount": 100, "per": "month"})
    assert key["budget"] == {"amount": 100, "per": "month", "meter": None, "currency": "usd"}
    keys.add_key("web")
    until(lambda: keys.ask("ci").status == 429, "ten calls cost a dollar, though twenty are included")
    problem = keys.ask("ci")
    assert problem.json()["violated-policies"] == ["key-budget"]
    assert problem.json()["detail"].startswith(f"The budget of the API key {key['start']} for the month is used up")
    assert 0 < int(problem.all("retry-after")[0]) <= 31 * 86400 + 1, "the end of the month"
    assert keys.ask("web").status == 200
    until(lambda: keys.list_budgets()["ci"]["percent"] >= 100, "the ledger knows")
    told = keys.collector.get("/v1/alerts", kind="key_budget_reached").json()["alerts"]
    assert [alert["details"]["key"] for alert in told if alert["severity"] == "warn"] == [key["id"]]
    # A key that replaces it goes on from there; more money releases both.
    rotated = keys.collector.send("POST", f"/v1/keys/{key['id']}/rotate", {"overlap": "1h"}).json()
    until(lambda: keys.ask(rotated["secret"]).status == 429, "the new key has the spent budget")
    keys.change_key(rotated, {"amount": 10_000, "per": "month"})
    until(lambda: keys.ask(rotated["secret"]).status == 200, "a hundred dollars are not spent")
    # If the new budget is below the spending, the key is refused after its next usage.
    keys.change_key(rotated, {"amount": 50, "per": "month"})
    until(lambda: keys.ask(rotated["secret"]).status == 429, "the budget is spent")
    # A new edge, or one that lost its counts, learns the spending from the ledger.
    keys.edge.end()
    for file in Path(keys.edge.settings["state"]).glob("*quotas*"):
        file.unlink()
    keys.edge.start()
    until(lambda: keys.ask(rotated["secret"]).status == 429, "the ledger knows what was spent")
    # While billing charges no customer, no budget is spent.
    answer = keys.collector.send("PUT", "/billing/rollout", {"charging": False, "why": "a test"})
    assert answer.status == 200, answer
    until(lambda: keys.ask(rotated["secret"]).status == 200, "the budget refuses no request")


@only_sqlite("database")
def test_unit_budget_applies_at_once_and_new_keys_do_not_evade_it(keys: Keys) -> None:
    for meter in ("seen", "peak", "nothing"):
        refused = keys.send_key("early", budget={"amount": 5, "per": "day", "meter": meter})
        assert refused.status == 422
        assert "is not counted by key" in str(refused.json())
    both = keys.send_key("early", budget={"amount": 5, "per": "day", "meter": "calls", "currency": "usd"})
    assert both.status == 422, both
    keys.add_key("ci", budget={"amount": 20, "per": "day", "meter": "calls"})
    served = 1 + keys.spend("ci", 25)
    assert 19 <= served <= 21, "two workers may pass it by one"
    until(lambda: keys.list_budgets()["ci"]["used"] == served, "the ledger agrees")
    # The meter tells three keys apart; what further ones use may be of any key, and counts for each budget.
    for name in ("web", "app", "late"):
        keys.add_key(name)
    until(lambda: keys.list_budgets()["ci"]["used"] > served, "the fourth key counts as ~other")
