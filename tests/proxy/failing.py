"""Upstreams that fail: a request that has come to one, and what the client is told of a fault."""

from tests.proxy.asking import is_problem
from tests.support.transcript import Edge, get
from tests.support.wire import Message, Wire


def is_fault(answer: Message, status: int, error: str) -> None:
    """An error with the proxy error type of RFC 9209 section 2.3."""
    is_problem(answer, status)
    assert answer["Proxy-Status"] == f"edgeproxy; error={error}"


async def asked(edge: Edge, request: bytes = b"") -> tuple[Wire, Wire]:
    """A client and an upstream, with the request on its way."""
    client, upstream = await edge.forwards(request or get())
    return client, upstream
