"""Fixtures: real edges of a test's own."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.wire import directory_signatures
from loadtest.testbed.collector import EDGE, Collector
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.upstream import Upstream
from tests.support.collector_fixtures import StartCollector


@pytest.fixture
def start_edge(tmp_path: Path, upstream: Upstream) -> Iterator[StartEdge]:
    """Start an edge of a test's own: `start_edge(**people(acme="basic"), **settings)`."""
    with ExitStack() as ends:

        def start(*, port: int | None = None, **settings: Any) -> Edge:
            edge = Edge(tmp_path / "edge", port or upstream.port, **settings)
            ends.enter_context(closing(edge))
            return edge.start()

        yield start


def start_follower(
    folder: Path,
    start_collector: StartCollector,
    start_edge: StartEdge,
    *,
    tiers: Mapping[str, Any],
    meters: Mapping[str, Any],
    billing: Mapping[str, Any] | None = None,
    **settings: Any,
) -> tuple[Collector, Edge]:
    """Start a collector, and an edge that has its customers from it and ships to it; `settings` are the edge's."""
    directory_signatures.create_key_file(folder / "directory.key")
    shared = {"tiers": tiers, "meters": meters}
    sold = {} if billing is None else {"billing": billing}
    collector = start_collector(directory={"key": str(folder / "directory.key")}, **shared, **sold)
    trust = directory_signatures.Signer.load(folder / "directory.key").public_key
    edge = start_edge(
        usage={"collector": f"http://127.0.0.1:{collector.port}", "token": EDGE, "every": "200ms"},
        directory={"from": "collector", "trust": trust},
        customers={},
        keys=[],
        **shared,
        **settings,
    )
    return collector, edge
