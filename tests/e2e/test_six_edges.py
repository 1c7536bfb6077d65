"""One collector and six edges, each in its own region: a revocation reaches all of them."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic

import pytest

from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.testbed.collector import EDGE, sha256
from loadtest.testbed.customers import key_of
from loadtest.testbed.edge import START, Edge
from loadtest.testbed.http_client import Answer
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector

EDGES = 6
BOUND = 5.0
"""Seconds until the last edge refuses. They look every second; a busy machine has the rest."""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory_signatures.create_key_file(tmp_path / "directory.key")
    return tmp_path


def started(folder: Path, port: int, collector: int, ends: ExitStack) -> Iterator[Edge]:
    """Begin them all, with small tables and a worker each."""
    follows = {
        "usage": {"collector": f"http://127.0.0.1:{collector}", "token": EDGE},
        "directory": {"from": "collector", "trust": Signer.load(folder / "directory.key").public_key},
    }
    for number in range(EDGES):
        edge = Edge(folder / f"edge-{number}", port, region=f"region-{number}", workers=1, **follows)
        ends.enter_context(closing(edge))
        edge.begin()
        yield edge


def test_a_revoked_key_and_a_paused_customer_are_refused_at_six_edges(
    site: Path, start_collector: StartCollector, upstream: Upstream
) -> None:
    collector = start_collector(directory={"key": str(site / "directory.key")})
    assert collector.send("POST", "/v1/customers", {"name": "dora", "tier": "basic"}).status == 201
    key = {"sha256": sha256(key_of("dora")), "name": "key"}
    body = collector.send("POST", "/v1/customers/dora/keys", key).json()
    with ExitStack() as ends:
        edges = list(started(site, upstream.port, collector.port, ends))
        for edge in edges:
            until(edge.ready, "the edge is ready", seconds=START)

        def answers() -> set[int]:
            return {edge.ask(fields={"Authorization": f"Bearer {key_of('dora')}"}).status for edge in edges}

        def puts(paused: object) -> Answer:
            return collector.send("PATCH", "/v1/customers/dora", {"paused": paused})

        until(lambda: answers() == {200}, "all serve it")
        took = {}
        for what, status, change in (
            ("paused", 403, lambda: puts({"why": "a test", "status": 403})),
            ("resumed", 200, lambda: puts(None)),
            ("revoked", 401, lambda: collector.send("DELETE", f"/v1/keys/{body['id']}")),
        ):
            assert change().status < 300
            began = monotonic()
            until(lambda status=status: answers() == {status}, f"all know that it is {what}")
            took[what] = monotonic() - began
        print(*(f"{what}: {seconds:.2f} s at the last of {EDGES}" for what, seconds in took.items()), sep="\n")
        assert max(took.values()) < BOUND
