"""Alert rules on the metrics of real edges: a healthy edge raises none, in any setup."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from edgeproxy.collector.directory import hub_push
from edgeproxy.config.edge.load import load_customers
from loadtest.testbed.collector import EDGE, Collector
from loadtest.testbed.customers import TIERS, UNLIMITED, key_line, key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on this machine")

PROMETHEUS = Path(__file__).parents[2] / "config" / "prometheus"
RULES = [str(PROMETHEUS / name) for name in ("alerts.yml", "objectives.yml")]
SOON, LATE = 8, 40
"""The two check times of firing alerts, in minutes. Between them, every temporary condition has expired."""

Said = Mapping[str, float]
"""The samples of a scrape, by series in Prometheus's notation."""


def scraped(port: int, job: str) -> Said:
    """Return the samples that Prometheus gets from this port."""
    answer = ask(port, "/metrics")
    assert answer.status == 200, answer
    found = {f'up{{job="{job}", instance="a"}}': 1.0}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = sample.labels | {"job": job, "instance": "a"}
            text = ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
            found[f"{sample.name}{{{text}}}"] = sample.value
    return found


def check_firing(folder: Path, before: Said, after: Said, *expected: str) -> None:
    """Require that exactly these alerts fire for an edge with the metrics `before` for a minute and then `after`."""
    series = [{"series": name, "values": f"{before.get(name, '_')} {value}x{LATE}"} for name, value in after.items()]
    fires = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in expected]
    looks = [
        {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": f"{at}m", "exp_samples": fires}
        for at in (SOON, LATE)
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": looks}
    file = folder / "scraped.yml"
    file.write_text(yaml.safe_dump({"rule_files": RULES, "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", file], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def asked(edge: Edge) -> None:
    """Send a few requests that are answered."""
    fields = {"Authorization": f"Bearer {key_of(UNLIMITED)}"}
    assert {edge.ask(fields=fields).status for _ in range(5)} == {200}


@pytest.fixture
def edge(tmp_path: Path, upstream: Upstream) -> Iterator[Edge]:
    """An edge without other servers, not started yet."""
    with closing(Edge(tmp_path / "edge", upstream.port, workers=1)) as made:
        yield made


def test_healthy_edge_raises_no_alert_alone_or_with_a_collector(edge: Edge, tmp_path: Path) -> None:
    edge.start()
    before = scraped(edge.admin, "edgeproxy")
    asked(edge)
    check_firing(tmp_path, before, scraped(edge.admin, "edgeproxy"))

    with closing(Collector(tmp_path / "collector", f"sqlite:///{tmp_path}/ledger.db")) as collector:
        collector.start()
        before = {**scraped(edge.admin, "edgeproxy"), **scraped(collector.port, "collector")}
        usage = {"collector": f"http://{HOST}:{collector.port}", "token": EDGE, "every": "100ms"}
        assert edge.reload(usage=usage).status == 200
        asked(edge)
        until(lambda: edge.status()["usage"]["watermark"] and not edge.status()["usage"]["unshipped"], "all is shipped")
        check_firing(tmp_path, before, {**scraped(edge.admin, "edgeproxy"), **scraped(collector.port, "collector")})
        edge.end()


@pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")
def test_healthy_edge_fires_no_alert_and_each_fault_fires_its_own(edge: Edge, tmp_path: Path) -> None:
    def state(of: str) -> Any:
        return edge.status()[of]["state"]

    with ExitStack() as ends:
        redis = Redis(tmp_path)
        ends.callback(redis.kill)
        edge.start(hub=redis.url)
        before = scraped(edge.admin, "edgeproxy")
        asked(edge)
        until(lambda: state("hub") == "up", "the hub is reached")
        check_firing(tmp_path, before, well := scraped(edge.admin, "edgeproxy"))

        assert edge.reload(directory={"from": "hub"}).status == 200
        until(
            lambda: "nobody has pushed" in edge.status()["directory"].get("why", ""), "the edge has looked at the hub"
        )
        unread = scraped(edge.admin, "edgeproxy")
        assert not [name for name in unread if name.startswith("edge_directory_age_seconds")], "nothing has an age yet"
        check_firing(tmp_path, well, unread, "EdgeDirectoryBehind")

        file = tmp_path / "people.yaml"
        people = {"customers": {"dora": {"tier": "basic"}}, "keys": [key_line("dora")]}
        file.write_text(yaml.safe_dump({"hub": redis.url, "tiers": TIERS, **people}))
        hub_push.run_push(load_customers(file, {}))
        until(lambda: state("directory") == "current", "the edge knows the customers")
        check_firing(tmp_path, well, known := scraped(edge.admin, "edgeproxy"))

        redis.kill()
        until(lambda: state("hub") == "away", "the hub is away")
        check_firing(tmp_path, known, scraped(edge.admin, "edgeproxy"), "EdgeHubAway", "HubDown")
