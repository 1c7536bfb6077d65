"""Responses that exceed a bound of the edge: only the response fails, and its endpoint remains in use."""

import pytest

from tests.support.transcript import Edge, get, head, ok

CHUNKED = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
BOUND = 16 << 10
"""The upstream's setting `head`, in bytes."""

ANSWERS: dict[str, tuple[bytes, bytes, str]] = {
    "head": (
        head("HTTP/1.1 200 OK", "Content-Length: 0", "X-A: " + "a" * (BOUND - 100)),
        head("HTTP/1.1 200 OK", "Content-Length: 0", "X-A: " + "a" * BOUND),
        "http_response_header_section_size",
    ),
    "interim answers": (
        head("HTTP/1.1 103 Early Hints") * 32 + ok(),
        head("HTTP/1.1 103 Early Hints") * 33 + ok(),
        "http_response_incomplete",
    ),
    "line of a chunk": (
        CHUNKED + b"1;" + b"a" * 4000 + b"\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"1;" + b"a" * 4100 + b"\r\nx\r\n0\r\n\r\n",
        "http_response_transfer_coding",
    ),
    "trailers": (
        CHUNKED + b"1\r\nx\r\n0\r\n" + b"X-A: b\r\n" * 500 + b"\r\n",
        CHUNKED + b"1\r\nx\r\n0\r\nX-A: " + b"a" * BOUND + b"\r\n\r\n",
        "http_response_trailer_section_size",
    ),
}
"""For each bound: a response just below the bound, a response above it, and the error."""


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_beyond_a_bound_is_no_fault_of_its_endpoint(edge: Edge, name: str) -> None:
    below, above, error = ANSWERS[name]
    edge.config["upstreams"]["api"].update(head="16KiB", eject={"errors": 1})
    other, others_upstream = await edge.forwards(get("/public/y"))
    client, upstream = await edge.forwards(get("/public/x"))
    await upstream.sends(below)
    answer = await client.gets_answer()
    while answer.status == 103:
        answer = await client.gets_answer()
    assert answer.status == 200
    await client.sends(get("/public/z"))
    await upstream.gets_request()
    await upstream.sends(above)
    await edge.until(lambda: edge.count("edge_upstream_errors_total", "api", error) == 1, error)
    if name in ("line of a chunk", "trailers"):
        await client.gets_cut()  # The connection closes within the response.
    else:
        while (answer := await client.gets_answer()).status == 103:
            pass
        assert answer.status == 502
    assert edge.endpoint().errors == 0
    assert edge.count("edge_upstream_ejections_total", "api") == 0
    await others_upstream.sends(ok())
    assert (await other.gets_answer()).status == 200
