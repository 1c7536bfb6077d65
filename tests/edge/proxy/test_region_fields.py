"""The answer names the region that executed its request."""

import pytest

from tests.support.transcript import KEY, Edge, chunks, get, head, ok

EVERY = ["X-Edge-Region", "Server-Timing", "Proxy-Status"]
CHUNKED = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"a")


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["region_fields"] = ["X-Edge-Region"]
    return edge


@pytest.mark.parametrize("answered", [ok(), ok(b"x" * 40_000), CHUNKED], ids=["whole", "in two buffers", "in chunks"])
@pytest.mark.parametrize("name", ["X-Edge-Region", "x-edge-region"])
async def test_answer_has_one_region_field_despite_the_upstream(edge: Edge, answered: bytes, name: str) -> None:
    _, answer = await edge.passes(get(), answered)
    assert answer.all("X-Edge-Region") == ["test"]
    _, answer = await edge.passes(get(), answered.replace(b"\r\n", b"\r\n%b: moon\r\n" % name.encode(), 1))
    assert answer.all("X-Edge-Region") == ["test"]
    assert answer["X-Request-Id"]


@pytest.mark.parametrize("fields", [[], ["Server-Timing"]])
async def test_upstreams_region_field_passes_if_the_edge_sets_none(edge: Edge, fields: list[str]) -> None:
    edge.config["region_fields"] = fields
    for answered in (ok(), CHUNKED):
        _, answer = await edge.passes(get(), answered.replace(b"\r\n", b"\r\nX-Edge-Region: moon\r\n", 1))
        assert answer.all("X-Edge-Region") == ["moon"]


async def test_upstreams_list_fields_stay_before_the_edges_entries(edge: Edge) -> None:
    edge.config["region_fields"] = EVERY
    theirs = ("Server-Timing: db;dur=3", "Proxy-Status: cache; hit")
    _, answer = await edge.passes(get(), ok(b"", *theirs))
    assert answer.all("Server-Timing") == ["db;dur=3", 'region;desc="test"']
    assert answer.all("Proxy-Status") == ["cache; hit", 'edgeproxy; next-hop="test"']


async def test_region_field_states_the_region_of_the_endpoint(edge: Edge) -> None:
    edge.config["region_fields"] = EVERY
    edge.config["customers"]["acme"]["regions"] = {"prefer": "us-east"}
    edge.config["upstreams"]["api"]["endpoints"][0] = {"url": edge.upstream.url, "region": "us-east"}
    there = edge.upstream
    here = edge.adds_endpoint()
    for upstream in (here, there):
        upstream.answers(lambda request: ok())
    client = await edge.client()
    near = await client.asks(get())
    far = await client.asks(get("/v1/x", f"X-API-Key: {KEY}"))
    assert (len(here.requests), len(there.requests)) == (1, 1)
    assert [near["X-Edge-Region"], far["X-Edge-Region"]] == ["test", "us-east"]
    assert [far[name] for name in EVERY[1:]] == ['region;desc="us-east"', 'edgeproxy; next-hop="us-east"']


async def test_answers_of_the_edge_itself_are_executed_there(edge: Edge) -> None:
    edge.config["region_fields"] = EVERY
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "1/h"}]}
    edge.upstream.answers(lambda request: ok())
    client, keyed = await edge.client(), get("/v1/x", f"X-API-Key: {KEY}")
    assert (await client.asks(keyed)).status == 200
    for request, status in ((keyed, 429), (get("/v1/x"), 401), (get("/nowhere"), 404)):
        answer = await client.asks(request)
        assert (answer.status, answer.all("X-Edge-Region")) == (status, ["test"])
        assert answer["Server-Timing"] == 'region;desc="test"'
        assert "Proxy-Status" not in answer


async def test_reload_changes_the_region_fields_of_answers(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    assert "X-Edge-Region" in await client.asks(get())
    edge.config["region_fields"] = ["Server-Timing"]
    await edge.reloads()
    answer = await client.asks(get())
    assert ("X-Edge-Region" in answer, answer["Server-Timing"]) == (False, 'region;desc="test"')


async def test_a_route_that_sets_the_field_is_overruled(edge: Edge) -> None:
    for route in edge.config["routes"]:
        route["rewrite"] = {"response": {"set": {"X-Edge-Region": "moon"}}}
    _, answer = await edge.passes(get(), ok())
    assert answer.all("X-Edge-Region") == ["test"]
