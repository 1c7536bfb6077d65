"""A new upstream for each test, so its counts belong to the test, and the edges of tests/e2e."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.testbed.upstream import Upstream
from tests.support.service import Service

pytest.register_assert_rewrite("loadtest.testbed.fault_load", "tests.faults.counting")


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    """The scripted upstream, which survives whatever becomes of the edge, and must be sent nothing odd."""
    upstream = Upstream(tmp_path / "upstream")
    try:
        yield upstream
        assert not upstream.seen()["odd"]
    finally:
        upstream.stop()


@pytest.fixture
def service() -> Iterator[Service]:
    """An upstream that reports its open requests."""
    with Service() as service:
        yield service
