"""The client's answer to an upstream's fault."""

from tests.edge.proxy.asking import is_problem
from tests.support.wire import Message


def is_fault(answer: Message, status: int, error: str) -> None:
    """An error with the proxy error type of RFC 9209 section 2.3."""
    is_problem(answer, status)
    assert answer["Proxy-Status"] == f"edgeproxy; error={error}"
