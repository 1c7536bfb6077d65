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
PRICED = ("prepaid", "routed")
"""The customers who call the priced route."""
FACTS = ("kind", "used", "allowed", "remedy")
METERS: dict[str, Any] = {
    "requests": {"count": "requests"},
    "calls": {"count": "requests", "dimensions": {"key": 9}},
    "cost": {"count": "cost"},
    "egress": {"count": "bytes_out", "dimensions": {"key": 9}},
    "refused": {"count": "refusals"},
    "priced_calls": {"count": "requests", "routes": ["priced"]},
}
TIERS: dict[str, Any] = {"pro": {}, "plan": {}}


class World(NamedTuple):
    """A site with pages, and two edges in different regions that follow its collector."""

    stage: PagesStage
    edge: Edge
    far: Edge

    def change(self, name: str, **fields: object) -> None:
        assert self.stage.collector.send("PATCH", f"/v1/customers/{name}", fields).status == 200

    def key(self, name: str) -> dict[str, Any]:
        keys = self.stage.collector.get(f"/v1/customers/{name}/keys", token=ADMIN).json()["keys"]
        return dict(keys[0])

    def ask(self, name: str, edge: Edge | None = None) -> Answer:
        path = "/priced" if name in PRICED else "/"
        return (edge or self.edge).ask(path, fields={"Authorization": f"Bearer {key_of(name)}"})

    def create_key(self, name: str, key: str) -> None:
        body = {"sha256": sha256(key), "name": "only"}
        assert self.stage.collector.send("POST", f"/v1/customers/{name}/keys", body).status == 201

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


def give_budget(meter: str) -> Callable[[World, str], None]:
    def give(world: World, name: str) -> None:
        budget = {"amount": 3, "per": "month", "meter": meter}
        answer = world.stage.collector.send("PATCH", f"/v1/keys/{world.key(name)['id']}", {"budget": budget})
        assert answer.status == 200, answer

    return give


def pause(status: str) -> Callable[[World, str], None]:
    return lambda world, name: world.change(name, paused={"why": "three invoices", "status": status})


def suspend_and_pause(world: World, name: str) -> None:
    """An operator pauses a customer who is suspended for unpaid invoices."""
    pause("402")(world, name)
    pause("403")(world, name)


def give_quota(meter: str) -> Callable[[World, str], None]:
    quota = {"meter": meter, "per": "month", "included": 3, "cap": "hard"}
    return lambda world, name: world.change(name, quotas=[quota])


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
    "full": Row(give_quota("requests"), "quota", 429, "wait", "Wait until", ("3 of 3",)),
    "routed": Row(give_quota("priced_calls"), "quota", 429, "wait", "Wait until", ("3 requests of 3 requests",)),
    "planned": Row(subscribe, "plan", 429, "upgrade", "Choose a larger plan, or wait until", ("3 of 3",)),
    "prepaid": Row(grant, "credits", 402, "top_up", "Buy credits: until then requests get 402.", ("3 of 3",)),
    "budgeted": Row(give_budget("calls"), "budget", 429, "wait", "Wait until", ("3 requests of 3 requests",)),
    # The first call passes, and its answer has more bytes than the budget.
    "overrun": Row(give_budget("egress"), "budget", 429, "wait", "Wait until", ("of 3 B",)),
    "suspended": Row(pause("402"), "account", 402, "pay", "Pay the open invoices"),
    "paused": Row(pause("403"), "account", 403, "contact", "An operator must resume"),
    "audited": Row(suspend_and_pause, "account", 403, "contact", "An operator must resume"),
    "revoked": Row(revoke, "key", 401, "create_key", "Create a key."),
    "expired": Row(expire, "key", 401, "create_key", "Create a key."),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("answer")
    directory_signatures.create_key_file(folder / "directory.key")
    plan = {
        "fee": "0",
        "meters": {"requests": {"included": 3, "cap": "hard"}, "egress": {"included": 10**9, "cap": "hard"}},
    }
    (folder / "plans.yaml").write_text(yaml.safe_dump({"plans": {"plan@1": plan}}))
    settings = {
        "directory": {"key": str(folder / "directory.key")},
        "billing": {"plans": str(folder / "plans.yaml"), "credits": {"meter": "cost"}},
        "tiers": TIERS,
        "meters": METERS,
    }
    with ExitStack() as ends:
        stage = ends.enter_context(closing(PagesStage(folder / "site", collector=settings)))

        def start_edge(region: str) -> Edge:
            edge = Edge(
                folder / region,
                upstream.port,
                region=region,
                workers=1,
                usage={"collector": stage.site, "token": EDGE, "every": "200ms"},
                directory={"from": "collector", "trust": Signer.load(folder / "directory.key").public_key},
                tiers=TIERS,
                meters=METERS,
                customers={},
                keys=[],
                routes=[
                    {"name": "priced", "path": "/priced", "upstream": "api", "cost": COST},
                    {"name": "all", "path": "/*", "upstream": "api"},
                ],
            )
            return ends.enter_context(closing(edge)).start()

        world = World(stage, start_edge("eu-west"), start_edge("us-east"))
        for name in ROWS:
            stage.join(name)
            world.create_key(name, key_of(name))
        for name, row in ROWS.items():
            row.bring_about(world, name)
        yield world


def run_limits(world: World, name: str, edge: Edge | None = None) -> str:
    environ = {"EDGEPROXY_COLLECTOR": world.stage.site, "EDGEPROXY_TOKEN": ADMIN}
    result = CliRunner(env=environ).invoke(
        cli.app, ["limits", name, "--admin", f"127.0.0.1:{(edge or world.edge).admin}"]
    )
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
    if stated := wire.get("limit"):
        # A rate counts from the moment when the edge learns it. The ledger also has the calls before, and the
        # collector reads the ledger until the edge reports its counts.
        until(lambda: world.describe(name)["limits"][0]["used"] == stated["used"], "the edge reports its counts")
    (api, *_) = world.describe(name)["limits"]
    assert (api["kind"], api["state"], api["status"], api["remedy"]) == (row.kind, "reached", row.status, row.remedy)
    if stated:
        of_key = row.kind == "budget"  # Its name is the start of the key, which only the key's owners see.
        assert stated["name"] == ("key-budget" if of_key else api["name"])
        assert [stated[fact] for fact in FACTS] == [api[fact] for fact in FACTS]
        end = api["ends_at"] or ""  # Only the edge knows the cells of a window, and so when a rate has room again.
        assert row.kind == "rate" or re.sub(r"\.\d+", "", end) == stated.get("ends_at", "")
    else:
        assert (row.kind in ("account", "key"), api["allowed"]) == (True, None)
        assert api["why"] in (None, wire["detail"])
    use = "" if api["allowed"] is None else f" {api['used']} of {api['allowed']}"
    if row.kind == "credits":
        use = " {} of {} USD".format(*(format_millicredits(api[name]) for name in ("used", "allowed")))
    (line,) = [line for line in run_limits(world, name).splitlines() if line.startswith(f"  {row.kind} ")]
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
    world.create_key(name, key_of(second))
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
    with world.stage.customer(name) as visitor:

        def find_refused() -> str:
            return visitor.get("/account/limits").text.partition("of them in the last five minutes")[2]

        until(lambda: bool(find_refused()), "the refusal is counted", seconds=20)
        counted = find_refused()
    assert ("Buy credits: until then requests get 402." in counted, "Retry-After" in counted) == (True, False), counted
    world.change(name, paused={"why": "an audit", "status": "403"})
    until(lambda: world.ask(name).status == 403, "the edge knows the pause", seconds=20)
    limits = world.describe(name)["limits"]
    assert [(limit["kind"], limit["status"]) for limit in limits if limit["state"] == "reached"] == [
        ("account", 403),
        ("credits", 402),
    ]
    lines = [line for line in run_limits(world, name).splitlines() if "reached" in line]
    assert [line.split()[0] for line in lines] == ["account", "credits"]
    with world.stage.customer(name) as visitor:
        text = visitor.get("/account").text
    assert text.index("An operator must resume") < text.index("Buy credits: until then requests get 402.")


def test_plan_names_the_meter_that_is_used_up_and_the_one_with_room(world: World) -> None:
    name = "planned"
    until(lambda: world.ask(name).status == 429, "the edge refuses", seconds=20)
    until(lambda: world.describe(name)["may_call"] == "partly", "the collector knows it", seconds=25)
    states = {limit["meter"]: limit["state"] for limit in world.describe(name)["limits"] if limit["kind"] == "plan"}
    assert states == {"requests": "reached", "egress": "free"}
    assert [
        line for line in run_limits(world, name).splitlines() if line.startswith("  plan ") and "egress" in line
    ] == []
    with world.stage.customer(name) as visitor:
        banner = visitor.get("/account").text.partition("Some requests are refused now.")[2][:300]
    assert ("Included Requests" in banner, "Included Data" in banner) == (True, False), banner


def test_used_up_quota_of_a_route_leaves_the_others(world: World) -> None:
    name = "routed"
    until(lambda: world.ask(name).status == 429, "the edge refuses", seconds=20)
    until(lambda: world.describe(name)["may_call"] == "partly", "the collector knows it", seconds=25)
    assert world.edge.ask("/", fields={"Authorization": f"Bearer {key_of(name)}"}).status == 200
    assert world.describe(name)["limits"][0]["routes"] == ["priced"]
    with world.stage.customer(name) as visitor:
        for path in ("/account", "/account/limits"):
            assert "priced" in visitor.get(path).text.partition("Some requests are refused now.")[2][:300], path
    assert "priced" in world.stage.operator.get(f"/console/customers/{name}").text
    assert "priced" in run_limits(world, name).partition("reached")[2].partition("\n")[0]


def test_quota_used_up_in_one_region_is_used_up_in_the_other(world: World) -> None:
    name = "full"
    until(lambda: world.ask(name).status == 429, "the edge refuses", seconds=20)
    until(lambda: world.ask(name, world.far).status == 429, "the other region refuses", seconds=20)
    assert world.ask(name, world.far).json()["limit"] == world.ask(name).json()["limit"]
    until(lambda: world.describe(name)["may_call"] == "partly", "the collector knows it", seconds=25)
    near, far = (run_limits(world, name, edge).splitlines()[:2] for edge in (world.edge, world.far))
    assert near == far


def test_both_keys_of_a_rotation_may_call_until_the_old_one_ends(world: World) -> None:
    name = "rotated"
    world.stage.join(name)
    world.create_key(name, key_of(name))
    until(lambda: world.ask(name).status == 200, "the edge knows the key", seconds=20)
    rotation = world.stage.collector.send("POST", f"/v1/keys/{world.key(name)['id']}/rotate", {"overlap": "20s"})
    assert rotation.status == 201, rotation

    def ask_new() -> Answer:
        return world.edge.ask("/", fields={"Authorization": f"Bearer {rotation.json()['secret']}"})

    until(lambda: ask_new().status == 200, "the edge knows the new key", seconds=15)
    assert world.ask(name).status == 200
    for used in (2, 1):
        wait_for_keys(world, name, used)
        assert "may call now: yes" in run_limits(world, name)
        with world.stage.customer(name) as visitor:
            assert "Requests are served now" in visitor.get("/account").text
            assert ("2 work" if used == 2 else "1 works") in visitor.get("/account/limits").text
    until(lambda: world.ask(name).status == 401, "the old key has ended", seconds=15)
    assert ask_new().status == 200
    assert "not refused now" in world.stage.operator.get(f"/console/customers/{name}").text


def wait_for_keys(world: World, name: str, used: int) -> None:
    """Wait until so many keys of a customer work."""

    def is_so() -> bool:
        (keys,) = [limit for limit in world.describe(name)["limits"] if limit["kind"] == "key"]
        return (keys["used"], keys["state"]) == (used, "free")

    until(is_so, "so many keys work", seconds=30)
