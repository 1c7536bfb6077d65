"""The beacon: a browser measures two regions through an edge, and reports. Forged reports and floods change nothing."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import orjson
import pytest
import yaml

from loadtest.regions.relay import Link
from loadtest.testbed.collector import READ, Collector, sha256
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import turned, until
from tests.e2e.browser import Chromium, Tab, tab

TOKEN = "token-of-beacon"
FAR = 0.12
"""Seconds of a round trip to the other region."""


class Site(NamedTuple):
    """A beacon behind an edge, the collector that it reports to, and the way to another region."""

    edge: Edge
    collector: Collector
    beacon: int

    def ask(self, path: str, client: str | None = None, **more: Any) -> Answer:
        """Send a request to the beacon itself, as this client's proxy."""
        fields = more.pop("fields", {}) | ({"X-Forwarded-For": client} if client else {})
        return ask(self.beacon, f"/beacon{path}", fields=fields, **more)

    def report(self, client: str, ticket: str | None = None, /, **measured: Any) -> Answer:
        """Report for a client, by default with a ticket of its own."""
        ticket = self.ask("/ticket", client).json()["ticket"] if ticket is None else ticket
        return self.ask("/report", client, method="POST", body=orjson.dumps({"ticket": ticket, "measured": measured}))

    def known(self, address: str) -> Any:
        """Return the collector's best region for an address."""
        path = f"/v1/regions/best?address={address}"
        return ask(self.collector.port, path, fields={"Authorization": f"Bearer {READ}"}).json()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A healthy site; `us` is the default and far, `eu` near."""
    folder = tmp_path_factory.mktemp("beacon")
    with ExitStack() as ends:
        upstream = Upstream(folder / "upstream")
        ends.callback(upstream.stop)
        collector = Collector(
            folder / "collector", f"sqlite:///{folder}/ledger.db", regions={"names": ["us", "eu"], "default": "us"}
        )
        ends.enter_context(closing(collector))
        collector.settings["tokens"].append({"name": "beacon", "sha256": sha256(TOKEN), "role": "beacon"})
        collector.start()
        ports = ends.enter_context(closing(Ports(1)))
        (port,) = ports.numbers
        edge = ends.enter_context(closing(Edge(folder / "edge", upstream.port)))
        far = ends.enter_context(Link(edge.port, FAR))
        beacon = f"http://{HOST}:{port}"
        edge.start(
            upstreams=edge.settings["upstreams"] | {"beacon": {"endpoints": [beacon]}},
            routes=[
                {"path": "/beacon/*", "upstream": "beacon", "auth": "none"},
                {"path": "/*", "upstream": "api", "auth": "none"},
            ],
        )
        settings = {
            "listen": f"{HOST}:{port}",
            "regions": {"us": f"http://{HOST}:{far.port}/beacon", "eu": f"http://{HOST}:{edge.port}/beacon"},
            "collector": f"http://{HOST}:{collector.port}",
            "token": TOKEN,
            "trusted_proxies": ["127.0.0.0/8"],
            "country": {"header": "CF-IPCountry", "set_by": ["127.0.0.1/32"]},
            "every": "100ms",
        }
        (file := folder / "regions.yaml").write_text(yaml.safe_dump(settings))
        process = Process([sys.executable, "-m", "edgeproxy", "regions", "-c", file], folder / "log")
        try:
            until(lambda: not process.running or "beacon serving" in process.output, "the beacon serves", seconds=60)
            assert process.running, process.output
            yield Site(edge, collector, port)
        finally:
            code = process.stop()
            print(process.output)
            assert "Traceback" not in process.output
        assert code == 0


@pytest.mark.chromium
def test_beacon_page_reports_latency_and_routes_its_network_to_the_nearest_region(
    site: Site, browser: Chromium
) -> None:
    before = site.edge.ask("/beacon/best").json()
    assert (before["region"], before["because"]) == ("us", "default")
    measured: list[dict[str, float]] = []

    async def visit(page: Tab) -> None:
        await page.goto(f"http://localhost:{site.edge.port}/")
        await page.run(
            "const plain = window.fetch; window.sent = [];"
            "window.fetch = (url, more) => { if (more.body) window.sent.push(more.body); return plain(url, more); };"
            "const script = document.createElement('script');"
            f"script.src = 'http://{HOST}:{site.edge.port}/beacon/beacon.js'; document.head.append(script);"
        )
        await turned(
            lambda: any(answer["url"].endswith("/report") for answer in page.responses), "the page has reported"
        )
        assert [answer["status"] for answer in page.responses if answer["url"].endswith("/report")] == [204]
        assert not any("set-cookie" in map(str.lower, answer["headers"]) for answer in page.responses)
        measured.append(orjson.loads(await page.run("return window.sent[0]"))["measured"])
        assert page.troubles == []

    async def whole() -> None:
        async with asyncio.timeout(60), tab(browser) as page:
            await visit(page)

    asyncio.run(whole())
    assert measured[0]["us"] >= FAR * 1000
    assert measured[0]["eu"] < measured[0]["us"]
    for neighbour in ("127.0.0.2", "127.0.0.3"):
        assert site.report(neighbour, **measured[0]).status == 204
    until(lambda: site.known("127.0.0.1")["because"] == "network", "the reports are known")
    assert site.known("127.0.0.99")["order"] == ["eu", "us"]
    assert site.known("127.0.1.1")["because"] == "default"
    body = site.ask("/best", "127.0.0.99", fields={"CF-IPCountry": "DE"}).json()  # Nobody has asked so before.
    assert (body["region"], body["because"], [*body["regions"]]) == ("eu", "network", ["eu", "us"])


def test_a_client_speaks_for_its_own_network_once_a_ticket(site: Site) -> None:
    ticket = site.ask("/ticket", "192.0.2.1").json()["ticket"]
    assert site.report("198.51.100.1", ticket, eu=1).status == 403
    assert site.report("192.0.2.77", ticket, eu=1).status == 204, "the network is the same"
    assert site.report("192.0.2.77", ticket, eu=1).status == 403
    assert site.report("192.0.2.1", "1.2.3", eu=1).status == 403
    assert site.report("2001:db8:1:2::3", site.ask("/ticket", "2001:db8:1:3::4").json()["ticket"], eu=1).status == 204


def test_frequent_reports_of_one_address_are_limited_without_effect(site: Site) -> None:
    for client in ("203.0.113.1", "203.0.113.2", "203.0.113.3"):
        assert site.report(client, eu=10, us=90).status == 204
    until(lambda: site.known("203.0.113.9")["because"] == "network", "the reports are known")
    statuses = [site.report("203.0.113.66", eu=9999, us=0.01).status for _ in range(60)]
    assert 429 in statuses
    assert statuses.index(429) >= 20, "not before there were many"
    assert site.report("203.0.114.1", eu=10, us=90).status == 204, "a client of another network is not limited"
    assert site.known("203.0.113.9")["region"] == "eu"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"ticket": 1, "measured": {"eu": 1}}', 400),
        (b'{"ticket": "", "measured": {}}', 400),
        (b'{"ticket": "", "measured": [1]}', 400),
        (b'{"ticket": "", "measured": {"moon": 1}}', 400),
        (b'{"ticket": "", "measured": {"eu": true}}', 400),
        (b'{"ticket": "", "measured": {"eu": 0}}', 400),
        (b'{"ticket": "", "measured": {"eu": 1e9}}', 400),
        (b'{"ticket": "", "measured": {"eu": 1}}', 403),
        (b" " * 5000, 413),
    ],
    ids=lambda given: None if isinstance(given, bytes) else str(given),
)
def test_invalid_report_is_refused_with_readable_fields(body: bytes, status: int, site: Site) -> None:
    answer = site.ask("/report", f"10.1.{len(body) % 256}.{status % 256}", method="POST", body=body)
    assert answer.status == status
    assert answer["access-control-allow-origin"] == "*"
    assert answer.json()["detail"]
    assert "set-cookie" not in answer
    assert site.ask("/ticket", "no address").status == 400


def test_country_comes_from_the_proxy_that_sets_the_header(site: Site) -> None:
    for network in range(3):
        for voter in range(3):
            client = f"172.16.{network}.{voter}"
            ticket = site.ask("/ticket", client).json()["ticket"]
            body = orjson.dumps({"ticket": ticket, "measured": {"eu": 5, "us": 50}})
            fields = {"CF-IPCountry": "JP"}
            assert site.ask("/report", client, method="POST", body=body, fields=fields).status == 204
    until(lambda: site.known("172.16.2.9")["because"] == "network", "the reports are known")
    document = site.ask("/best", "172.16.99.1", fields={"CF-IPCountry": "JP"}).json()
    assert (document["region"], document["because"]) == ("eu", "country")
    assert site.ask("/best", "172.16.99.1").json()["because"] == "default"
    # Clients that write the field themselves: past the proxy that sets it, and at the edge.
    assert site.ask("/best", "172.16.99.1", fields=fields, source="127.0.0.5").json()["because"] == "default"
    through = site.edge.ask("/beacon/best", fields=fields, source="127.0.7.1").json()
    assert through["because"] == "default"


def test_reports_wait_for_a_collector_that_is_away(site: Site) -> None:
    site.collector.end()
    assert site.ask("/best", "10.9.9.1").status == 503
    for voter in range(3):
        assert site.report(f"10.9.9.{voter}", eu=5, us=50).status == 204
    site.collector.start()
    until(lambda: site.known("10.9.9.1")["because"] == "network", "the waiting reports have arrived")
