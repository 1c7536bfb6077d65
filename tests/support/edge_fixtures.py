"""Fixtures: real edges of a test's own."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.upstream import Upstream


@pytest.fixture
def start_edge(tmp_path: Path, upstream: Upstream) -> Iterator[StartEdge]:
    """Start an edge of a test's own: `start_edge(**people(acme="basic"), **settings)`."""
    with ExitStack() as ends:

        def start(*, port: int | None = None, **settings: Any) -> Edge:
            edge = Edge(tmp_path / "edge", port or upstream.port, **settings)
            ends.enter_context(closing(edge))
            return edge.start()

        yield start
