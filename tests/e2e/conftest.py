"""Edges and upstreams for tests of the whole product."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.e2e.alike")

from loadtest.testbed.edge import Edge  # noqa: E402
from loadtest.testbed.upstream import Upstream  # noqa: E402
from tests.e2e.browser import Chromium  # noqa: E402
from tests.support.services import Httpbin, Nginx  # noqa: E402


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for processes that many tests share."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def upstream(folder: Path) -> Iterator[Upstream]:
    """The scripted upstream. At the end it must not have received an odd request."""
    upstream = Upstream(folder / "upstream")
    try:
        yield upstream
        assert not upstream.seen()["odd"]
    finally:
        upstream.stop()


@pytest.fixture(scope="session")
def httpbin(folder: Path) -> Iterator[Httpbin]:
    """httpbin as a service to compare with."""
    service = Httpbin(folder / "httpbin")
    yield service
    service.stop()


@pytest.fixture(scope="session")
def files(folder: Path, nginx: str, seed: int) -> Iterator[Nginx]:
    """nginx as a service to compare with; a test that uses it must be marked nginx."""
    service = Nginx(nginx, folder / "nginx", seed)
    yield service
    service.stop()


@pytest.fixture(scope="session")
def browser(folder: Path, chromium: str) -> Iterator[Chromium]:
    """A browser whose tabs share nothing; a test that uses it must be marked chromium."""
    browser = Chromium(chromium, folder / "browser")
    yield browser
    browser.stop()


@pytest.fixture(scope="session")
def edge(folder: Path, upstream: Upstream) -> Iterator[Edge]:
    """An edge with two workers in front of the scripted upstream, shared by tests that leave it unchanged."""
    with closing(Edge(folder / "edge", upstream.port)) as edge:
        yield edge.start()


@pytest.fixture(scope="session")
def api(folder: Path, httpbin: Httpbin) -> Iterator[Edge]:
    """An edge in front of httpbin."""
    with closing(Edge(folder / "api", httpbin.port)) as edge:
        yield edge.start()


@pytest.fixture(scope="session")
def site(folder: Path, files: Nginx) -> Iterator[Edge]:
    """An edge in front of nginx, without keys."""
    routes = [{"name": "files", "path": "/*", "upstream": "api", "auth": "none"}]
    with closing(Edge(folder / "site", files.port, routes=routes)) as edge:
        yield edge.start()
