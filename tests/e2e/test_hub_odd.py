"""A hub that is no Redis, and an edge that is asked meanwhile: it serves, says why, and leaves when it is told to."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from loadtest.testbed.customers import people
from loadtest.testbed.edge import Edge, total
from loadtest.testbed.http_client import Answer
from loadtest.testbed.threaded_server import Threaded
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.fake_redis import Answers, fake

LIMIT = 60


class Hub(Threaded):
    """A hub that gives these answers, in a separate thread."""

    def __init__(self, answers: Answers) -> None:
        super().__init__("fake hub")
        self._answers, self._open = answers, AsyncExitStack()

    async def _begin(self) -> None:
        self.url = await self._open.enter_async_context(fake(self._answers))

    async def _end(self) -> None:
        await self._open.aclose()


@pytest.fixture
def edge(tmp_path: Path, upstream: Upstream, request: pytest.FixtureRequest) -> Iterator[Edge]:
    """An edge with two customers, one of them with a strict limit; the parameter is what its hub answers to all."""
    with Hub(lambda command: request.param) as hub:
        said = people(acme="bounded", zeus="strict") | {"hub": hub.url}
        limits = [{"rate": f"{LIMIT}/min"}]
        strict = [{"rate": f"{LIMIT}/min", "sync": "strict"}]
        said["tiers"] = {**said["tiers"], "bounded": {"limits": limits}, "strict": {"limits": strict}}
        with closing(Edge(tmp_path, upstream.port, **said)) as edge:
            edge.start()
            yield edge


def asked(edge: Edge, who: str) -> Answer:
    return edge.ask(fields={"Authorization": f"Bearer key-of-{who}"})


@pytest.mark.parametrize("edge", [b"+OK\r\n", b"*1000000000\r\n" * 1000], ids=["OK", "arrays"], indirect=True)
def test_odd_hub_counts_as_down_and_is_ignored(edge: Edge) -> None:
    until(lambda: total(edge.metrics(), "edge_hub_errors_total") >= 2, "the edge has retried")
    hub = edge.status()["hub"]
    assert (hub["state"], hub["hosts"]) == ("away", 1)
    assert "is it a Redis?" in hub["why"]
    assert total(edge.metrics(), "edge_hub_up") == 0
    assert [asked(edge, "acme").status for _ in range(5)] == [200] * 5
    assert edge.limits("acme")[0]["used"] == 5
    refused = [asked(edge, "zeus") for _ in range(5)]
    assert [(answer.status, answer["retry-after"]) for answer in refused] == [(429, "5")] * 5
    until(lambda: edge.limits("zeus")[0].get("held_back") == LIMIT, "nothing of it is this host's")
    line = edge.limits("zeus")[0]
    assert (line["used"], line["limit"], line["remaining"]) == (0, LIMIT, 0)
    assert edge.output.count("the hub is away") <= 2
    assert "follows the hub's" not in edge.output, "the clock stays"
