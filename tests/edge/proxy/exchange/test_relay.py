"""Ordinary messages, from the client through the edge to the upstream and back."""

from tests.support.transcript import KEY, Edge, get, head, ok


async def test_options_request_decrements_max_forwards(edge: Edge) -> None:
    """RFC 9110 section 7.6.2."""
    for sent, left in (("1", "0"), ("10", "9"), ("007", "6"), ("9" * 30, "9" * 17 + "8")):
        asked = head("OPTIONS /public/ HTTP/1.1", "Host: edge.test", f"Max-Forwards: {sent}")
        request, _ = await edge.passes(asked, ok())
        assert request["Max-Forwards"] == left


async def test_options_that_may_go_no_further_is_answered_here(edge: Edge) -> None:
    """RFC 9110 section 7.6.2: the edge answers as the final recipient."""
    edge.config["tiers"]["basic"]["concurrency"] = 1
    for sent in ("0", "000", "0" * 30):
        fields = ("Host: edge.test", f"Authorization: Bearer {KEY}", f"Max-Forwards: {sent}")
        asked = head("OPTIONS /v1/ HTTP/1.1", *fields)
        client = await edge.client()
        for _ in range(2):
            answer = await client.asks(asked)
            assert answer.first == "HTTP/1.1 204 No Content"
            assert "RateLimit" in answer
            assert "X-Request-Id" in answer
            assert "Content-Type" not in answer
            assert "Content-Length" not in answer
            assert "Connection" not in answer
    assert not edge.upstream.is_asked()
    assert edge.count("edge_requests_total", "v1", "basic", "204") == 6
    assert edge.usage() == {}


async def test_max_forwards_that_is_no_number_limits_nothing(edge: Edge) -> None:
    for sent in ("", "-1", "1.5", "many"):
        asked = head("OPTIONS /public/ HTTP/1.1", "Host: edge.test", f"Max-Forwards: {sent}")
        request, _ = await edge.passes(asked, ok())
        assert request["Max-Forwards"] == sent


async def test_a_dot_segment_leads_to_the_route_where_it_leads(edge: Edge) -> None:
    """`/public/../v1` must not be served as public."""
    for spelling in ("/public/../v1/x", "/public/%2e%2e/v1/x", "/public/a/.%2e/../v1/x"):
        assert (await edge.refuses(get(spelling))).status == 401


async def test_empty_chunked_answer_reaches_an_http_1_0_client(edge: Edge) -> None:
    """The answer has no piece of body that could carry the head."""
    client = await edge.client()
    await client.sends(head("GET /public/ HTTP/1.0", "Host: edge.test"))
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"0\r\n\r\n")
    assert (await client.gets_rest()).startswith(b"HTTP/1.1 200 OK\r\n")
