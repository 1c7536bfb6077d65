"""The caps of plans with exact counts: hard, soft, and soft with grace.

Each is tested for counts of the edge, for reported usage and for seats, with one worker, two workers, and two hosts.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
import yaml

from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.testbed.collector import EDGE, SERVICE, Collector, sha256
from loadtest.testbed.customers import key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import Answer
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

INCLUDED = 10
SERVED = {"hard": INCLUDED, "grace": 12, "soft": 14}
"""The units that each cap serves; soft caps also serve more."""
METERS = {"requests": {"count": "requests"}, "tokens": {"count": "events"}, "seats": {"count": "holdings"}}
TIERS: dict[str, Any] = {"basic": {}, **{cap: {} for cap in SERVED}}


def build_plan(cap: str) -> dict[str, Any]:
    price = {"included": INCLUDED, "cap": "hard" if cap == "hard" else "soft"}
    grace = {"grace": {"percent": "20%", "for": "1day"}} if cap == "grace" else {}
    return {"fee": "0", "meters": dict.fromkeys(METERS, price), **grace}


class Capped:
    """Edges that follow a collector, and customers with a plan whose caps are all of a kind."""

    def __init__(self, collector: Collector, edges: list[Edge]) -> None:
        self.collector, self.edges = collector, edges

    def add(self, name: str, cap: str) -> None:
        """Create a customer, and send a first request at each edge, which then knows it."""
        assert self.collector.send("POST", "/v1/customers", {"name": name, "tier": "basic"}).status == 201
        answer = self.collector.send("POST", f"/billing/subscription?customer={name}", {"plan": cap})
        assert answer.status == 201, answer
        key = {"sha256": sha256(key_of(name)), "name": "key"}
        assert self.collector.send("POST", f"/v1/customers/{name}/keys", key).status == 201
        for edge in self.edges:
            until(lambda edge=edge: self.ask(name, edge).status == 200, "the customer is known")

    def ask(self, name: str, edge: Edge) -> Answer:
        return edge.ask(fields={"Authorization": f"Bearer {key_of(name)}"})

    def knows(self, edge: Edge, name: str, meter: str, used: int) -> bool:
        """Return whether an edge knows the usage of a meter across all edges."""
        return {limit["used"] for limit in edge.limits(name) if limit["name"] == f"{meter}-month"} == {used}

    def hear(self, name: str, meter: str, used: int) -> None:
        """Wait until each edge knows the usage of a meter across all edges."""
        until(lambda: all(self.knows(edge, name, meter, used) for edge in self.edges), f"{used} are known")

    def report(self, name: str, value: int) -> None:
        event = {"id": f"{name}-{value}", "source": "test", "customer": name, "meter": "tokens", "value": 1}
        assert self.collector.send("POST", "/v1/events", event, token=SERVICE).status == 202


@pytest.fixture(scope="module", params=[(1, 1), (1, 2), (2, 2)], ids=["one worker", "two workers", "two hosts"])
def capped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> Iterator[Capped]:
    """Start hosts with this many workers each, for customers with each of the caps."""
    hosts, workers = request.param
    if hosts > 1 and SERVER is None:
        pytest.skip("there is no redis-server on this machine")
    folder = tmp_path_factory.mktemp("capped")
    directory_signatures.create_key_file(folder / "directory.key")
    trust = Signer.load(folder / "directory.key").public_key
    (folder / "plans.yaml").write_text(yaml.safe_dump({"plans": {f"{cap}@1": build_plan(cap) for cap in SERVED}}))
    collector = Collector(
        folder / "collector",
        f"sqlite:///{folder}/ledger.db",
        directory={"key": str(folder / "directory.key")},
        billing={"plans": str(folder / "plans.yaml")},
        tiers=TIERS,
        meters=METERS,
    )
    with ExitStack() as ends:
        ends.enter_context(closing(collector)).start()
        hub = {"hub": ends.enter_context(Redis(folder)).url} if hosts > 1 else {}
        edges = []
        for number in range(hosts):
            edge = Edge(
                folder / f"edge-{number}",
                upstream.port,
                usage={"collector": f"http://127.0.0.1:{collector.port}", "token": EDGE, "every": "200ms"},
                directory={"from": "collector", "trust": trust},
                workers=workers,
                tiers=TIERS,
                meters=METERS,
                customers={},
                keys=[],
                **hub,
            )
            edges.append(ends.enter_context(closing(edge)).start())
        for edge in edges:
            until(lambda edge=edge: hosts == 1 or edge.status()["hub"].get("hosts") == hosts, "all are on the hub")
        yield Capped(collector, edges)


def is_marked(answer: Answer, meter: str) -> bool:
    return answer.all("x-quota") == [f'"{meter}-month";over']


@pytest.mark.parametrize("cap", SERVED)
def test_cap_serves_exactly_its_units(capped: Capped, cap: str) -> None:
    first, last = capped.edges[0], capped.edges[-1]
    counting, reporting = f"counting-{cap}", f"reporting-{cap}"
    most, why = SERVED[cap], "upgrade is required" if cap == "grace" else ""
    # Counts of the edge: another host, or any worker, serves the last two units.
    capped.add(counting, cap)
    served = len(capped.edges)
    # The later report at the hub gets both counts. The other host gets them with its next report.
    until(lambda: any(capped.knows(edge, counting, "requests", served) for edge in capped.edges), "all are at the hub")
    while served < most - 2:
        answer = capped.ask(counting, first)
        served += 1
        assert (answer.status, is_marked(answer, "requests")) == (200, served > INCLUDED), served
        if served == len(capped.edges) + 1:
            until(lambda: capped.knows(first, counting, "requests", len(capped.edges) + 1), "the first host knows")
    capped.hear(counting, "requests", served)
    answers = [capped.ask(counting, last) for _ in range(4)]
    over = [200, 200] if cap == "soft" else [429, 429]
    assert [answer.status for answer in answers] == [200, 200, *over]
    assert [is_marked(answer, "requests") for answer in answers] == [n > INCLUDED for n in (most - 1, most)] + [
        cap == "soft"
    ] * 2
    if cap != "soft":
        assert why in answers[-1].json().get("detail", "")
        capped.hear(counting, "requests", most)
        assert [capped.ask(counting, edge).status for edge in capped.edges] == [429] * len(capped.edges)
    # Usage that services report.
    capped.add(reporting, cap)
    for used in range(1, most + 1):
        capped.report(reporting, used)
        if used >= most - 1:
            capped.hear(reporting, "tokens", used)
            answers = [capped.ask(reporting, edge) for edge in capped.edges for _ in range(2)]
            expected = 429 if cap != "soft" and used == most else 200
            assert {answer.status for answer in answers} == {expected}, used
            assert {is_marked(answer, "tokens") for answer in answers} == {expected == 200 and used >= INCLUDED}
    # Places, which the collector gives.
    path = f"/v1/customers/{counting}/holdings/seats"
    statuses = [capped.collector.send("PUT", f"{path}/{n}", token=SERVICE).status for n in range(most + 2)]
    assert statuses == [201] * most + ([201] * 2 if cap == "soft" else [409] * 2)
