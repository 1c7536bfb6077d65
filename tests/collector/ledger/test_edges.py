"""The status of edges in metrics and in `/v1/edges`, and retired edges."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import COUNTED, GAP, batches
from edgeproxy.collector.database.schema import edges as edges_table
from edgeproxy.collector.ledger import edges
from edgeproxy.collector.ledger.edges import SHOWN_MAX, EdgeStatus
from edgeproxy.collector.metrics import Metrics
from edgeproxy.wire.batch import Gap
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, OWN, READ, REGIONAL, Collector
from loadtest.testbed.http_client import Answer
from tests.support.collector_fixtures import StartCollector


def change(collector: Collector, edge: str, body: bytes, token: str = ADMIN) -> Answer:
    return collector.patch(f"/v1/edges/{edge}", body, token)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that no other module uses, because metrics name only the worst edges."""
    folder = tmp_path_factory.mktemp("fleet")
    with closing(Collector(folder / "collector", f"sqlite:///{folder}/ledger.db")) as collector:
        yield collector.start()


def test_metrics_report_lag_and_gaps_of_each_edge(alone: Collector) -> None:
    collector, now = alone, int(time.time())
    behind, current = Chain(since=now - 7200), Chain(since=now - 4)
    for chain in (behind, current):
        assert collector.post(chain.next(seconds=4)).status == 200
    assert collector.post(behind.next(gap=Gap(2, 9, "lost"), seconds=0)).status == 200
    assert 7190 < collector.metric("collector_edge_lag_seconds", edge=behind.edge) < 7300
    assert collector.metric("collector_edge_lag_seconds", edge=current.edge) < 60
    assert collector.metric("collector_edge_gaps", edge=behind.edge) == 1
    assert collector.metric("collector_edge_gaps", edge=current.edge) == 0
    assert collector.metric("collector_lag_seconds") >= 7190
    assert collector.metric("collector_edges_unshown") == 0
    assert collector.metric("collector_ready") == 1
    assert change(collector, behind.edge, b'{"retired": true}').status == 200
    with pytest.raises(ValueError, match="not enough values"):
        collector.metric("collector_edge_lag_seconds", edge=behind.edge)
    assert collector.metric("collector_lag_seconds") < 60
    assert collector.post(behind.next()).status == 200
    assert collector.metric("collector_edge_lag_seconds", edge=behind.edge) > 7000


def test_retired_edge_is_active_again_after_a_new_batch(collector: Collector) -> None:
    before = collector.metric("collector_edges"), collector.metric("collector_edges_retired")
    chain = Chain(since=int(time.time()) - 7200)
    assert collector.post(chain.next()).status == 200
    for _ in range(2):
        answer = change(collector, chain.edge, b'{"retired": true}')
        assert (answer.status, answer.json()) == (200, {"edge": chain.edge, "watermark": 1, "retired": True})
    after = collector.metric("collector_edges"), collector.metric("collector_edges_retired")
    assert after == (before[0], before[1] + 1)
    assert collector.edges()[chain.edge]["retired"] is True
    assert collector.counted(chain) == chain.total
    # A repeated batch is no sign of life. A new batch is.
    assert collector.post(chain.made[0]).status == 200
    assert collector.edges()[chain.edge]["retired"] is True
    assert collector.post(chain.next()).status == 200
    assert collector.edges()[chain.edge]["retired"] is False
    assert change(collector, chain.edge, b'{"retired": true}').status == 200
    assert change(collector, chain.edge, b'{"retired": false}').status == 200
    assert collector.edges()[chain.edge]["retired"] is False


def test_only_admins_retire_edges_with_valid_bodies(collector: Collector) -> None:
    for token, status in ((READ, 403), (EDGE, 403), (OWN, 403), ("x", 401)):
        assert change(collector, "x", b'{"retired": true}', token).status == status
    for nobody in ("nobody-at-all", "%00"):
        assert change(collector, nobody, b'{"retired": true}').status == 404
    assert change(collector, "nobody-at-all", b"").status == 400
    for body in (b"{}", b"[]", b'{"retired": 1}', b'{"retired": true, "gap_to": 1}', b'{"retired": true, "x": 1}'):
        assert change(collector, "nobody-at-all", body).status == 422


def test_metrics_name_the_worst_edges_and_count_the_rest(database: str) -> None:
    most = SHOWN_MAX + 50

    def row(number: int) -> dict[str, Any]:
        return {"edge": f"e{number:04}", "seq": 1, "received": 0, "since": number, "until": number}

    async def look() -> EdgeStatus:
        opened = await Database.connect(database)
        try:
            async with opened.writing() as connection:
                await connection.execute(edges_table.insert(), [row(number) for number in range(most)])
                kept = {"last": 1, "hash": "", "rows": 0, "received": 0, "coding": "", "body": b""}
                odd = [(f"e{most - 1:04}", seq, GAP) for seq in (1, 2)] + [("e0001", 1, GAP), ("e0002", 1, COUNTED)]
                of = [{"edge": edge, "seq": seq, "state": state, **kept} for edge, seq, state in odd]
                await connection.execute(batches.insert(), of)
            async with opened.reading() as connection:
                return await edges.fetch_status(connection)
        finally:
            await opened.close()

    found = asyncio.run(look())
    assert list(found.until)[:2] == ["e0000", "e0001"]
    assert len(found.until) == SHOWN_MAX
    assert (found.edges, found.gaps, found.unshown) == (most, 3, most - SHOWN_MAX - 1)
    assert (found.gaps_of[f"e{most - 1:04}"], found.gaps_of["e0001"], found.gaps_of["e0002"]) == (2, 1, 0)
    text = Metrics().exposition(True, found).decode()
    assert text.count("collector_edge_lag_seconds{") == SHOWN_MAX
    assert text.count("collector_edge_gaps{") == SHOWN_MAX + 1
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))


def test_metrics_omit_unknown_edge_state() -> None:
    text = Metrics().exposition(False, None).decode()
    assert "collector_ready 0.0" in text
    assert "collector_edges" not in text
    assert "collector_lag_seconds" not in text


def test_collector_is_unready_while_commits_fail(alone: Collector) -> None:
    chain = Chain()
    with closing(sqlite3.connect(alone.database, isolation_level=None)) as other:
        other.execute("ALTER TABLE batches RENAME TO elsewhere")
        assert alone.post(chain.next()).status == 503
        answer = alone.get("/readyz", token=None)
        assert (answer.status, answer.json()["ready"]) == (503, False)
        assert "no such table" in answer.json()["reason"]
        assert alone.metric("collector_ready") == 0
        assert alone.metric("collector_commit_failures_total") == 1
        other.execute("ALTER TABLE elsewhere RENAME TO batches")
    assert alone.post(chain.made[0]).status == 200
    assert alone.ready()
    assert alone.metric("collector_ready") == 1


def test_token_creates_a_bounded_number_of_edges_and_alerts(start_collector: StartCollector) -> None:
    """A token sends unreadable bodies for 150 invented edges, then later batches for 20 others."""
    collector = start_collector(edges={"per_token": 5})
    known = Chain("known")
    assert collector.post(known.next()).status == 200

    def invent(edge: str, seq: int = 1) -> Answer:
        return collector.post(b"torn", fields={"Edge-Id": edge, "Edge-Seq": str(seq), "Edge-Hash": "0" * 64})

    answers = [invent(f"invented-{number}") for number in range(150)]
    assert [answer.status for answer in answers] == [422] * 4 + [429] * 146
    assert answers[-1]["retry-after"] == "60"
    assert "edges.per_token" in answers[-1].json()["detail"]
    assert {invent(f"later-{number}", seq=7).status for number in range(20)} == {409}
    assert collector.edges().keys() == {"known", *(f"invented-{number}" for number in range(4))}
    assert invent("invented-3", seq=2).status == 422, "an edge that is there goes on"
    assert collector.post(known.next()).status == 200
    assert collector.post(Chain("another").next(), token=REGIONAL).status == 403, "the bound is not another token's"
    assert collector.post(Chain(region="eu-bound").next(), token=REGIONAL).status == 200

    raised = {alert["kind"]: alert for alert in collector.get("/v1/alerts", token=ADMIN).json()["alerts"]}
    assert raised.keys() == {"batches_quarantined", "token_edge_limit_reached"}
    assert len(collector.get("/v1/alerts", token=ADMIN).json()["alerts"]) == 2
    assert raised["batches_quarantined"]["details"]["batches"] == 5
    assert raised["batches_quarantined"]["details"]["edges"] == [f"invented-{number}" for number in range(4)]
    assert raised["token_edge_limit_reached"]["details"]["edge"] == "invented-4"

    assert change(collector, "invented-0", b'{"retired": true}').status == 200
    assert [invent(f"next-{number}").status for number in range(2)] == [422, 429], "an absent edge frees its slot"
