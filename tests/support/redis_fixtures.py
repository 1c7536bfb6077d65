"""Fixtures with a real Redis, if this machine has one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.testbed.redis import SERVER, Redis


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that all share."""
    if SERVER is None:
        pytest.skip("there is no redis-server on this machine")
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.port


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A server of a test's own, which the test may end."""
    with Redis(tmp_path) as server:
        yield server
