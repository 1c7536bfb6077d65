"""A customer's refusal has one answer on the wire, in the API, on pages and by command: each kind of limit in turn."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.config.collector.currency_units import format_millicredits
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.testbed.collector import ADMIN, EDGE, sha256
from loadtest.testbed.customers import key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import Answer
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.site import PagesStage

COST = 1000
"""Millicredits of a request to the priced route."""
FACTS = ("kind", "used", "allowed", "remedy")
METERS: dict[str, Any] = {
    "requests": {"count": "requests"},
    "calls": {"count": "requests", "dimensions": {"key": 9}},
    "cost": {"count": "cost"},
}
TIERS: dict[str, Any] = {"pro": {}, "plan": {}}


class World(NamedTuple):
    """A site with pages, and an edge that follows its collector."""

    stage: PagesStage
    edge: Edge

    def change(self, name: str, **fields: object) -> None:
        assert self.stage.collector.send("PATCH", f"/v1/customers/{name}", fields).status == 200

    def key(self, name: str) -> dict[str, Any]:
        keys = self.stage.collector.get(f"/v1/customers/{name}/keys", token=ADMIN).json()["keys"]
        return dict(keys[0])

    def ask(self, name: str) -> Answer:
        return self.edge.ask(
            "/priced" if name == "prepaid" else "/", fields={"Authorization": f"Bearer {key_of(name)}"}
        )

    def describe(self, name: str) -> dict[str, Any]:
        answer = self.stage.collector.get(f"/v1/customers/{name}/access")
        assert answer.status == 200, answer
        return dict(answer.json())


def subscribe(world: World, name: str) -> None:
    answer = world.stage.collector.send("POST", f"/billing/subscription?customer={name}", {"plan": "plan"})
    assert answer.status == 201, answer


def grant(world: World, name: str) -> None:
    gift = {"customer": name, "millicredits": 3 * COST, "why": "welcome"}
    assert world.stage.collector.send("POST", "/billing/credits/adjust", gift).status == 201


def give_budget(world: World, name: str) -> None:
    budget = {"amount": 3, "per": "month", "meter": "calls"}
    answer = world.stage.collector.send("PATCH", f"/v1/keys/{world.key(name)['id']}", {"budget": budget})
    assert answer.status == 200, answer


def pause(status: str) -> Callable[[World, str], None]:
    return lambda world, name: world.change(name, paused={"why": "three invoices", "status": status})


def give_quota(world: World, name: str) -> None:
    world.change(name, quotas=[{"meter": "requests", "per": "month", "included": 3, "cap": "hard"}])


def give_rate(world: World, name: str) -> None:
    world.change(name, limits=[{"rate": "3/h"}])


def revoke(world: World, name: str) -> None:
    assert world.stage.collector.send("DELETE", f"/v1/keys/{world.key(name)['id']}").status in (200, 204)


def expire(world: World, name: str) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    answer = world.stage.collector.send("PATCH", f"/v1/keys/{world.key(name)['id']}", {"expires_at": soon})
    assert answer.status == 200, answer


class Row(NamedTuple):
    """A state: how it comes about, and the answer that all places give."""

    bring_about: Callable[[World, str], None]
    kind: str
    status: int
    remedy: str
    words: str
    """The words of pages for the remedy."""
    used: tuple[str, ...] = ()
    """The words of pages for the use."""


ROWS = {
    "rated": Row(give_rate, "rate", 429, "wait", "Spread requests evenly", ("3 of 3",)),
    "full": Row(give_quota, "quota", 429, "wait", "Wait until", ("3 of 3",)),
    "planned": Row(subscribe, "plan", 429, "upgrade", "Choose a larger plan, or wait until", ("3 of 3",)),
    "prepaid": Row(grant, "credits", 402, "top_up", "Buy credits: until then requests get 402.", ("3 of 3",)),
    "budgeted": Row(give_budget, "budget", 429, "wait", "Wait until", ("3 requests of 3 requests",)),
    "suspended": Row(pause("402"), "account", 402, "pay", "Pay the open invoices"),
    "paused": Row(pause("403"), "account", 403, "contact", "An operator must resume"),
    "revoked": Row(revoke, "key", 401, "create_key", "Create a key."),
    "expired": Row(expire, "key", 401, "create_key", "Create a key."),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("answer")
    directory_signatures.create_key_file(folder / "directory.key")
    plan = {"fee": "0", "meters": {"requests": {"included": 3, "cap": "hard"}}}
    (folder / "plans.yaml").write_text(yaml.safe_dump({"plans": {"plan@1": plan}}))
    settings = {
        "directory": {"key": str(folder / "directory.key")},
        "billing": {"plans": str(folder / "plans.yaml"), "credits": {"meter": "cost"}},
        "tiers": TIERS,
        "meters": METERS,
    }
    with ExitStack() as ends:
        stage = ends.enter_context(closing(PagesStage(folder / "site", collector=settings)))
        edge = Edge(
            folder / "edge",
            upstream.port,
            workers=1,
            usage={"collector": stage.site, "token": EDGE, "every": "200ms"},
            directory={"from": "collector", "trust": Signer.load(folder / "directory.key").public_key},
            tiers=TIERS,
            meters=METERS,
            customers={},
            keys=[],
            routes=[{"path": "/priced", "upstream": "api", "cost": COST}, {"path": "/*", "upstream": "api"}],
        )
        world = World(stage, ends.enter_context(closing(edge)).start())
        for name in ROWS:
            stage.join(name)
            key = {"sha256": sha256(key_of(name)), "name": "only"}
            assert stage.collector.send("POST", f"/v1/customers/{name}/keys", key).status == 201
        for name, row in ROWS.items():
            row.bring_about(world, name)
        yield world


def run_limits(world: World, name: str) -> str:
    environ = {"EDGEPROXY_COLLECTOR": world.stage.site, "EDGEPROXY_TOKEN": ADMIN}
    result = CliRunner(env=environ).invoke(cli.app, ["limits", name, "--admin", f"127.0.0.1:{world.edge.admin}"])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", ROWS)
def test_a_refusal_has_one_answer_everywhere(world: World, name: str) -> None:
    row = ROWS[name]
    until(lambda: world.ask(name).status == row.status, "the edge refuses", seconds=20)
    answer = world.ask(name)
    wire = answer.json()
    is_whole = row.kind in ("account", "key", "credits")
    until(
        lambda: world.describe(name)["may_call"] == ("no" if is_whole else "partly"),
        "the collector knows it",
        seconds=25,
    )
    (api, *_) = world.describe(name)["limits"]
    assert (api["kind"], api["state"], api["status"], api["remedy"]) == (row.kind, "reached", row.status, row.remedy)
    if stated := wire.get("limit"):
        of_key = row.kind == "budget"  # Its name is the start of the key, which only the key's owners see.
        assert stated["name"] == ("key-budget" if of_key else api["name"])
        assert [stated[each] for each in FACTS] == [api[each] for each in FACTS]
        end = api["ends_at"] or ""  # Only the edge knows the cells of a window, and so when a rate has room again.
        assert row.kind == "rate" or re.sub(r"\.\d+", "", end) == stated.get("ends_at", "")
    else:
        assert (row.kind in ("account", "key"), api["allowed"]) == (True, None)
        assert api["why"] in (None, wire["detail"])
    use = "" if api["allowed"] is None else f" {api['used']} of {api['allowed']}"
    if row.kind == "credits":
        use = " {} of {} USD".format(*(format_millicredits(api[name]) for name in ("used", "allowed")))
    (line,) = [one for one in run_limits(world, name).splitlines() if one.startswith(f"  {row.kind} ")]
    assert line.startswith(f"  {row.kind} {api['name']}: reached{use}"), line
    assert f", {row.status}" in line
    assert line.endswith(f": {row.remedy}"), line
    refused = "Every request is refused now." if is_whole else "Some requests are refused now."
    with world.stage.customer(name) as visitor:
        pages = {path: visitor.get(path).text for path in ("/account", "/account/limits")}
    pages["/console"] = world.stage.operator.get(f"/console/customers/{name}").text
    for path, text in pages.items():
        facts = (refused, row.words, f"refuses with {row.status}", *row.used)
        assert [fact for fact in facts if fact not in text] == [], path


def test_used_up_budget_of_an_ended_key_refuses_no_request(world: World) -> None:
    name, second = "budgeted", "second-of-budgeted"
    until(lambda: world.ask(name).status == 429, "the edge refuses", seconds=20)
    until(lambda: world.describe(name)["may_call"] == "partly", "the collector knows it", seconds=25)
    revoke(world, name)
    key = {"sha256": sha256(key_of(second)), "name": "second"}
    assert world.stage.collector.send("POST", f"/v1/customers/{name}/keys", key).status == 201
    until(lambda: world.ask(second).status == 200, "the edge knows the second key", seconds=20)
    assert world.describe(name)["may_call"] == "yes"
    assert "may call now: yes" in run_limits(world, name)
    with world.stage.customer(name) as visitor:
        assert all("refused now" not in visitor.get(path).text for path in ("/account", "/account/limits"))


def test_pause_of_a_customer_without_credits_is_named_first(world: World) -> None:
    """Buying credits would not help while the customer is paused, and the edge says so."""
    name = "prepaid"
    until(lambda: world.ask(name).status == 402, "the edge refuses", seconds=20)
    until(lambda: world.describe(name)["may_call"] == "no", "the collector knows it", seconds=25)
    world.change(name, paused={"why": "an audit", "status": "403"})
    until(lambda: world.ask(name).status == 403, "the edge knows the pause", seconds=20)
    limits = world.describe(name)["limits"]
    assert [(one["kind"], one["status"]) for one in limits if one["state"] == "reached"] == [
        ("account", 403),
        ("credits", 402),
    ]
    lines = [line for line in run_limits(world, name).splitlines() if "reached" in line]
    assert [line.split()[0] for line in lines] == ["account", "credits"]
    with world.stage.customer(name) as visitor:
        text = visitor.get("/account").text
    assert text.index("An operator must resume") < text.index("Buy credits: until then requests get 402.")
