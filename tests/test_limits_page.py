"""docs/limits.md, against the code: metrics, alerts and sizes that it names are there."""

import re
from pathlib import Path

import pytest
import yaml

from edgeproxy.config.models import Limit
from edgeproxy.counters.setup import layouts
from edgeproxy.limits.local import KEPT
from edgeproxy.metrics import METRICS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGE = (DOCS / "limits.md").read_text()
PROSE = " ".join(PAGE.split())


def test_metrics_that_it_names_are_there_with_these_labels() -> None:
    named = re.findall(r"`(edge_[a-z_]+)(?:\{([^}]*)\})?`", PAGE)
    assert len({name for name, _ in named}) >= 5
    for name, labels in named:
        assert name in METRICS
        assert {label.partition("=")[0] for label in labels.split(",") if label} <= set(METRICS[name].labels)


def test_alerts_that_it_names_are_there() -> None:
    groups = yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yml").read_text())["groups"]
    alerts = {rule.get("alert") for group in groups for rule in group["rules"]}
    named = re.findall(r"\[(Edge\w+)\]", PAGE)
    assert named
    assert set(named) <= alerts


@pytest.mark.parametrize("field", ["algorithm", "scope"])
def test_every_algorithm_and_scope_is_explained(field: str) -> None:
    annotation = Limit.model_fields[field].annotation
    for value in annotation.__args__:  # type: ignore[union-attr]
        assert f"`{value}`" in PAGE, value


def test_sizes_are_those_of_the_tables() -> None:
    people, addresses, quotas = (layout.row_words * 8 for layout in layouts(2, 100, 100)[:3])
    assert f"with two workers {people}, {addresses} and {quotas} bytes" in PROSE
    assert f"Each worker remembers {KEPT:,} of those" in PROSE
