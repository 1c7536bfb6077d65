"""Grafana loads the dashboards, and a live Prometheus answers every query about a live edge and its billing."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from html import escape
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import stripe
import yaml

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.mismatch import Comparison, ReconciliationKind
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.schema import DAY
from edgeproxy.edge.metrics import METRICS
from edgeproxy.probe.metrics import ProbeMetrics
from edgeproxy.probe.steps import Step
from loadtest import dashboards
from loadtest.testbed.authority import Authority
from loadtest.testbed.collector import EDGE, Collector
from loadtest.testbed.customers import UNLIMITED, key_of, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.redis import SERVER as REDIS
from loadtest.testbed.redis import Redis, free_port
from loadtest.testbed.tables_ready import put_tables
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.credited import count
from tests.support.prometheus import SERVER as PROMETHEUS
from tests.support.prometheus import Prometheus
from tests.support.sold import sold
from tests.support.stripe_sandbox import KEY, Sandbox

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "config" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
QUIET = {
    "edge_connections_refused_total",
    "edge_directory_age_seconds",
    "edge_directory_customers",
    "edge_directory_keys",
    "edge_directory_lookups_total",
    "edge_directory_unserved",
    "edge_limit_wait_seconds",
    "edge_limit_waits_total",
    "edge_time_per_output_token_seconds",
    "edge_time_to_first_token_seconds",
    "edge_usage_missing_total",
    "edge_usage_unreadable_total",
}
"""Metrics that are empty in this test: the feature is not used here, or the fault never happened."""


def read(file: Path) -> dict[str, Any]:
    """Load a dashboard."""
    body: dict[str, Any] = json.loads(file.read_text())
    return body


def queries(file: Path) -> list[str]:
    """Return the expressions of a dashboard's panels and annotations."""
    created = read(file)
    drawn = [target["expr"] for panel in created["panels"] for target in panel.get("targets", ())]
    return drawn + [note["expr"] for note in created["annotations"]["list"]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_dashboard_is_as_grafana_loads_it(file: Path) -> None:
    created = read(file)
    panels = created["panels"]
    assert created["uid"] == f"edgeproxy-{file.stem}"
    assert "id" not in created, "Grafana gives it"
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    assert len({panel["title"] for panel in panels if panel["type"] == "row"}) > 1
    taken: Counter[tuple[int, int]] = Counter()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("stat", "timeseries")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(set(refs)) == len(refs)
    assert set(taken.values()) == {1}, "panels lie on each other"


OF_PROMETHEUS = {"/annotations/list/step", "/annotations/list/titleFormat"}
"""Fields that the schema leaves to the data source. Prometheus reads them from annotations."""


def unknown(written: Any, loaded: Any, place: str = "") -> Iterator[str]:
    """Yield the places of values that `written` has and `loaded`, its form in Grafana's models, lacks."""
    if isinstance(written, dict) and isinstance(loaded, dict):
        for name, value in written.items():
            if name in loaded:
                yield from unknown(value, loaded[name], f"{place}/{name}")
            else:
                yield f"{place}/{name}"
    elif isinstance(written, list) and isinstance(loaded, list) and len(written) == len(loaded):
        for one, other in zip(written, loaded, strict=True):
            yield from unknown(one, other, place)
    elif written != loaded:
        yield place


def test_grafana_knows_each_field_of_the_dashboards() -> None:
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    for file in FILES:
        loaded = json.loads(JSONEncoder().encode(Dashboard.from_json(read(file))))
        assert {*unknown(read(file), loaded)} == OF_PROMETHEUS, file.name
    misspelt = json.loads(FILES[0].read_text().replace('"fillOpacity"', '"opacity"'))
    loaded = json.loads(JSONEncoder().encode(Dashboard.from_json(misspelt)))
    assert "/panels/fieldConfig/defaults/custom/opacity" in {*unknown(misspelt, loaded)}


def test_each_used_dashboard_variable_is_defined() -> None:
    for file in FILES:
        created = read(file)
        known = {variable["name"] for variable in created["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(created["panels"]))) - {"__rate_interval"}
        assert used == known, file.name


def test_grafana_provisioning_names_prometheus_and_the_dashboards() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/edgeproxy.yml").read_text())["providers"]
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    mounted = [volume.split(":")[:2] for volume in services["grafana"]["volumes"] if volume.startswith("..")]
    assert ["../config/grafana/dashboards", provider["options"]["path"]] in mounted
    assert ["../config/grafana/provisioning", "/etc/grafana/provisioning"] in mounted
    assert source["url"] == "http://prometheus:9090"
    assert all(port.startswith("127.0.0.1:") for port in services["grafana"]["ports"]), (
        "Grafana without a password listens on loopback only"
    )


BILLING: dict[str, Any] = {
    "plans": str(ROOT / "loadtest/testbed/plans.yaml"),
    "mode": "live",
    "credits": {"cogs": {"llm_tokens": "0.002/1000"}},
}
APART: dict[ReconciliationKind, list[Comparison]] = {
    "B": [Comparison("sold", "llm_tokens", 10_000, 9998), Comparison("sold", "api_calls", 1000, 998)],
    "D": [Comparison("sold", "payments", 9900, 9900)],
}
"""Comparisons of books: a difference for a warning, one for a page, and none."""


async def sell(folder: Path, url: str, stripe_url: str) -> None:
    """Create a history: plans sold and usage counted yesterday, one invoice held, books compared today."""
    now = time.time()
    async with sold(folder, put_tables(url), stripe_url) as (books, _):
        for name in ("sold", "held"):
            await books.customer(name, "standard", now=now - DAY)
        yesterday = int(now - DAY) // 60 * 60
        await count(books.database, yesterday, ("sold", "llm_tokens", 1_000_000, "large"))
        async with books.database.writing() as connection:
            of = sa.select(sa.func.min(invoices.c.id)).scalar_subquery()
            holds = sa.update(invoices).where(invoices.c.id == of)
            await connection.execute(holds.values(state="held", held_why="of this test"))
            for kind, rows in APART.items():
                await discrepancies.record_reconciliation(connection, kind, Span(int(now) - DAY, int(now)), rows, now)


async def invoice(client: stripe.StripeClient) -> None:
    """Create an invoice at Stripe, which reports it."""
    customer = await client.v1.customers.create_async({"name": "told"})
    created = await client.v1.invoices.create_async({"customer": customer.id, "auto_advance": False})
    await client.v1.invoice_items.create_async(
        {"customer": customer.id, "invoice": created.id, "amount": 500, "currency": "usd"}
    )
    await client.v1.invoices.finalize_invoice_async(created.id)


def billed(folder: Path, sandbox: Sandbox) -> Collector:
    """Return a collector with plans at this sandbox and charges of yesterday."""
    key, secrets = folder / "key", folder / "secrets"
    way = {"base": sandbox.url, "key": str(key), "webhook_secrets": str(secrets)}
    url = f"sqlite:///{folder}/ledger.db"
    meters = {"llm_tokens": {"count": "events", "dimensions": {"model": 10}}}
    collector = Collector(folder / "collector", url, meters=meters, billing={**BILLING, "stripe": way})
    key.write_text(KEY)
    secrets.write_text(sandbox.listen(f"http://{HOST}:{collector.port}/billing/webhooks/stripe"))
    asyncio.run(sell(folder, url, sandbox.url))
    return collector


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scraped an edge in use twice: with a hub, a billing collector, TLS, and faults."""
    folder = tmp_path_factory.mktemp("dashboards")
    with ExitStack() as ends:
        upstream = Upstream(folder / "upstream")
        ends.callback(upstream.stop)
        redis = Redis(folder)
        ends.callback(redis.kill)
        sandbox = ends.enter_context(closing(Sandbox(folder / "sandbox"))).start()
        collector = ends.enter_context(closing(billed(folder, sandbox))).start()
        edge = ends.enter_context(closing(Edge(folder / "edge", upstream.port)))
        cert = Authority(folder).issue("edge.test")
        listeners = [
            edge.settings["listen"],
            {"address": f"{HOST}:{free_port()}", "tls": {"cert": str(cert.cert), "key": str(cert.key)}},
        ]
        everybody = people(acme="basic")
        everybody["tiers"] = everybody["tiers"] | {
            "basic": {"limits": [{"rate": "2/min"}, {"name": "trial", "rate": "1/min", "mode": "shadow"}]}
        }
        edge.start(
            hub=redis.url,
            listen=listeners,
            usage={"collector": f"http://{HOST}:{collector.port}", "token": EDGE, "every": "200ms"},
            upstreams=edge.settings["upstreams"]
            | {"gone": {"endpoints": [f"http://{HOST}:{free_port()}"], "retry": {"attempts": 2, "budget": "20%"}}},
            routes=[
                {"name": "all", "path": "/*", "upstream": "api"},
                {"name": "gone", "path": "/gone/*", "upstream": "gone"},
            ],
            **everybody,
        )
        probe = Ports(1)
        ends.callback(probe.close)
        told = ProbeMetrics("edge.test:8080")
        told.record_round([Step("request", 0.02), Step("charge", 0.2)], time.time())
        told.serve(HOST, probe.numbers[0])
        targets = {"edgeproxy": edge.admin, "collector": collector.port, "probe": probe.numbers[0]}
        created = ends.enter_context(closing(Prometheus(folder / "prometheus", targets)))

        sandbox.run(invoice)

        def seen(expression: str) -> bool:
            """Return whether an expression holds. Sends some requests to the edge, so that rates have values."""
            for path, key in (
                ("/", key_of("acme")),
                ("/", key_of(UNLIMITED)),
                ("/gone/", key_of(UNLIMITED)),
                ("/", "nobody"),
            ):
                edge.ask(path, fields={"X-API-Key": key})
            collector.get("/billing/plans", token=None)
            return bool(created.asked(expression))

        for expected in (
            'rate(edge_rate_limited_total{mode="enforce"}[5m]) > 0',
            "rate(edge_usage_batches_total[5m]) > 0",
            "job:edge_refused_doubtful:ratio_rate5m",
            "region:edge_slow:ratio_rate6h >= 0",
            "region:edge_error_budget:left28d",
            "tier:edge_refused:ratio_rate5m > 0",
            "rate(billing_webhook_seconds_count[5m]) > 0",
            "rate(billing_request_seconds_count[5m]) > 0",
            "job:billing_errors:ratio_rate1h",
        ):
            until(lambda wanted=expected: seen(wanted), f"there is {expected}", seconds=60)
        yield created


@pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus on this machine")
@pytest.mark.skipif(REDIS is None, reason="there is no redis-server on this machine")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_prometheus_answers_each_query_about_a_live_edge(file: Path, prometheus: Prometheus) -> None:
    assert not QUIET - METRICS.keys()
    without: set[str] = set()
    for query in queries(file):
        # Parts with a constant fallback prove nothing.
        asked = query.replace("$__rate_interval", "5m").replace(" or vector(0)", "")
        found = prometheus.asked(re.sub(r"\$\{?\w+\}?", ".*", asked))
        if all(sample["value"][1] == "NaN" for sample in found):
            named = re.findall(r"(?:(?:edge|edgeproxy|collector|billing)_\w+|ALERTS)", query)
            without.update(re.sub("_(bucket|count|sum)$", "", name) for name in named)
    assert without <= {*QUIET, "ALERTS"}


@pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus on this machine")
@pytest.mark.skipif(REDIS is None, reason="there is no redis-server on this machine")
def test_without_grafana_the_dashboards_are_drawn_with_every_panel(prometheus: Prometheus) -> None:
    def draw() -> dict[str, str] | None:
        """Draw all pages; None while too few panels have two scrapes, from which rates are computed."""
        pages = dict(dashboards.pages(f"http://{HOST}:{prometheus.port}", minutes=10))
        # Two panels show streams of models, and this test has none.
        empty = sum(page.count("nothing of it happened") for page in pages.values())
        return pages if 2 < empty < 17 else None

    drawn = until(draw, "the panels have values", seconds=60)
    assert {*drawn} == {file.stem for file in FILES}
    for file in FILES:
        titles = [panel["title"] for panel in read(file)["panels"]]
        assert [escape(title) for title in titles if escape(title) not in drawn[file.stem]] == []
