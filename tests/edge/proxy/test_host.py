"""The Host that an upstream gets: the client's, its own, or a name."""

import pytest

from tests.support.transcript import Edge, get, head, ok, post


def expected(edge: Edge, host: str) -> str:
    """Return the Host at the first endpoint under this setting of `host`."""
    return {"pass": "edge.test", "upstream": f"127.0.0.1:{edge.upstream.port}"}.get(host, host)


@pytest.mark.parametrize("host", ["pass", "upstream", "shop.internal", "shop.internal:81"])
@pytest.mark.parametrize("body", [b"", b"x\r\nHost: in-the-body\r\n"])
async def test_upstream_gets_the_configured_host_and_the_clients_as_x_forwarded_host(
    edge: Edge, host: str, body: bytes
) -> None:
    edge.config["upstreams"]["api"]["host"] = host
    received, answer = await edge.passes(post(body) if body else get(), ok())
    assert received["Host"] == expected(edge, host)
    assert received["X-Forwarded-Host"] == "edge.test"
    assert received.body == body
    assert answer.status == 200


@pytest.mark.parametrize(
    "request_",
    [
        head("GET http://edge.test/public/ HTTP/1.1", "hOST:  edge.test", "Not-Host: a"),
        head("GET /public/ HTTP/1.0", "Not-Host: a"),
        head("GET /public/ HTTP/1.1", "Not-Host: a", "Host:edge.test:80", "Connection: close"),
    ],
    ids=["absolute", "HTTP/1.0 without one", "with a port"],
)
async def test_upstream_receives_one_configured_host_field(edge: Edge, request_: bytes) -> None:
    edge.config["upstreams"]["api"]["host"] = "shop.internal"
    received, _ = await edge.passes(request_, ok())
    assert received["Host"] == "shop.internal"
    assert received["Not-Host"] == "a"


async def test_retry_sends_the_host_of_its_endpoint(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["host"] = "upstream"
    other = edge.adds_endpoint()
    await edge.starts()
    edge.endpoint(1).outstanding += 1
    client = await edge.client()
    await client.sends(get())
    first = await edge.upstream.accepts()
    assert (await first.gets_request())["Host"] == f"127.0.0.1:{edge.upstream.port}"
    first.closes()
    edge.endpoint(1).outstanding -= 1
    second = await other.accepts()
    assert (await second.gets_request())["Host"] == f"127.0.0.1:{other.port}"
    assert (await second.tells(client, ok())).status == 200


async def test_routes_go_by_the_host_that_the_client_sent(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["host"] = "shop.internal"
    edge.config["routes"] = [{"path": "/*", "host": "edge.test", "upstream": "api", "auth": "none"}]
    received, _ = await edge.passes(get(), ok())
    assert received["Host"] == "shop.internal"
    refused = await edge.refuses(head("GET / HTTP/1.1", "Host: shop.internal"))
    assert refused.status == 404
