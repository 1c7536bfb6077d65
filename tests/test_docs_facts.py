"""Pages against the code: metrics are there with these labels, and all are named; algorithms, scopes, sizes of rows."""

import asyncio
import re
from datetime import date
from importlib import import_module
from pathlib import Path

import pytest

from edgeproxy.base.scarce_goods import ScarceGood
from edgeproxy.collector.billing.meter_export.outbox import RowState
from edgeproxy.collector.billing.reports.business_report import DayReport
from edgeproxy.collector.billing.reports.revenue import CurrencyFigures, RevenueFigures
from edgeproxy.collector.billing.reports.sales import Sales
from edgeproxy.collector.billing.reports.status import BillingStatus as Billing
from edgeproxy.collector.database.periodic import Job, JobResult, JobRun
from edgeproxy.collector.ledger.edges import EdgeStatus
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.edge.proxy_fields import GROUPS
from edgeproxy.config.edge.settings import EdgeFile
from edgeproxy.config.limits import Limit
from edgeproxy.edge.counters.setup import layouts
from edgeproxy.edge.limits.local import SUBJECTS_MAX
from edgeproxy.edge.metrics import METRICS
from edgeproxy.tracing.exporter import SpanExporter

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LIMITS = (DOCS / "limits" / "limits.md").read_text()
CONTRACT = (DOCS / "design" / "contract.md").read_text()
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAMED = re.compile(r"\b((?:edge|collector)_[a-z0-9_]*[a-z])\b(_\*)?(?:`|\{([^}`]*)\}|\b)")

DESIGN = (DOCS / "design" / "limits.md").read_text()
CONSTANTS = re.findall(r"^\| (.+?) \| ((?:`[A-Z_]+`, )+)`([\w/]+)\.py`", DESIGN, re.MULTILINE)


def told() -> dict[str, tuple[str, ...]]:
    """The metrics of edge and collector, and their labels."""
    metrics = Metrics()
    metrics.expiry = lambda: {"collector.pem": 0.0}
    metrics.row_security = lambda: True
    metrics.spans = SpanExporter(None, {})
    metrics.goods.append(ScarceGood("webhook_attempts", lambda: 200, lambda: 0))
    metrics.unknown.labels("customer")
    metrics.alert_raised("quota_reached", "quota:acme:calls-month:2027-01:100")
    metrics.alert_tried("ops", "sent")
    metrics.record_job(JobRun(Job("names", 60.0, "", asyncio.Event().wait), JobResult.SUCCEEDED, 0.0))
    standing = EdgeStatus(edges=1, retired=0, gaps=0, quarantined=0, until={"edge-1": 0}, gaps_of={"edge-1": 0})
    billing = Billing(dict.fromkeys(RowState, 0), 0.0, {"dead": 0}, {("A", "calls"): 0.0}, {"A": 0.0}, True, 100, 0.0)
    metrics.billing_answered(200, 0.0)
    metrics.took(
        RevenueFigures(
            {"usd": CurrencyFigures(DayReport(date(2027, 1, 1), 5, 0, 1), 0, {"pro": 5}, {"m1": 1})},
            0,
            0,
            {"held": 1},
            {"lost": 1},
            {"tax": 1},
            Sales(4, 3, 9),
        )
    )
    lines = metrics.exposition(True, standing, billing).decode().splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    names = [name for name in names if not name.endswith("_created")]  # When a counter began, as the library adds.
    samples = re.findall(r"^(\w+?)(?:_bucket|_sum|_count)?\{(.*)\}", "\n".join(lines), re.MULTILINE)
    labels = {name: tuple(re.findall(r'(\w+)="', inner)) for name, inner in samples}
    collector = {name: labels.get(name, ()) for name in names}
    return {name: metric.labels for name, metric in METRICS.items()} | collector


TOLD = told()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_metrics_that_a_page_names_are_there_with_these_labels(page: Path) -> None:
    for name, several, labels in NAMED.findall(page.read_text()):
        if several:
            assert any(metric.startswith(name) for metric in TOLD), name
        else:
            assert name in TOLD, name
            named = {label.partition("=")[0] for label in labels.split(",") if label}
            assert named <= set(TOLD[name]), f"{name}{{{labels}}}"


def test_the_contract_names_every_metric() -> None:
    billing = set(re.findall(r"`(billing_[a-z_]+)[`{]", CONTRACT))
    assert TOLD.keys() == {name for name, several, _ in NAMED.findall(CONTRACT) if not several} | billing


@pytest.mark.parametrize(("said", "names", "module"), CONSTANTS, ids=[names for _, names, _ in CONSTANTS])
def test_documented_constants_match_the_code(said: str, names: str, module: str) -> None:
    numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", said)}
    for name in re.findall(r"[A-Z_]+", names):
        value = getattr(import_module(f"edgeproxy.{module.replace('/', '.')}"), name)
        for one in value.values() if isinstance(value, dict) else [value]:
            # In seconds, in milliseconds, or of microseconds in milliseconds; 0 of what there is none of.
            assert not one or {one, round(one * 1000, 3), one / 1000} & numbers, f"{name} is {one}"


@pytest.mark.parametrize("field", ["algorithm", "scope"])
def test_every_algorithm_and_scope_is_explained(field: str) -> None:
    annotation = Limit.model_fields[field].annotation
    for value in annotation.__args__:  # type: ignore[union-attr]
        assert f"`{value}`" in LIMITS, value


def test_sizes_are_those_of_the_tables() -> None:
    prose = " ".join(LIMITS.split())
    people, addresses, quotas = (layout.row_bytes for layout in layouts(2, 100, 100)[:3])
    assert f"with two workers {people}, {addresses} and {quotas} bytes" in prose
    assert f"Each worker remembers {SUBJECTS_MAX:,} of those" in prose


def test_the_page_of_proxy_fields_has_the_names_of_the_table() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| (`.*?`) \|", (DOCS / "edge" / "proxy-fields.md").read_text(), re.MULTILINE)
    names = {about: tuple(name.lower() for name in re.findall("`(.+?)`", cell)) for about, cell in rows}
    assert names == {group.about: group.names for group in GROUPS}


def test_the_contract_names_each_setting_at_the_top_of_edge_yaml() -> None:
    (listed,) = re.findall(r"^Top level: (.+?) for further files\.$", CONTRACT, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`([a-z_]+)`", listed)) == {*EdgeFile.model_fields, "include"}
