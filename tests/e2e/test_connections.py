"""Many connections at once, and a heavy load: every client gets its own answers, and every request is counted."""

from contextlib import ExitStack
from pathlib import Path

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.http_client import Wire
from loadtest.testbed.load_clients import Load, Plan
from loadtest.testbed.upstream import Upstream

FIELDS = b"Host: api.test\r\nX-API-Key: %b\r\n" % key_of(UNLIMITED).encode()


def get(target: str, *, version: str = "1.1", more: str = "") -> bytes:
    """A GET with the key of the customer without limits."""
    return f"GET {target} HTTP/{version}\r\n".encode() + FIELDS + more.encode() + b"\r\n"


def test_each_of_300_connections_gets_its_own_answers(edge: Edge) -> None:
    with ExitStack() as ends:
        wires = [ends.enter_context(Wire(edge.port)) for _ in range(300)]
        for round_ in range(3):
            for number, wire in enumerate(wires):
                wire.send(get(f"/{round_}/{number}?echo=1"))
            for number, wire in enumerate(wires):
                assert wire.hear().json()["target"] == f"/{round_}/{number}?echo=1"


def test_a_heavy_load_loses_nothing_and_is_counted_exactly(start_edge: StartEdge, tmp_path: Path) -> None:
    upstream = Upstream(tmp_path / "upstream")
    edge = start_edge(port=upstream.port)
    paths = ["/", "/?wait=3", "POST /?echo=1", "/?size=30000", "/?status=404", "/?status=503", "/?status=204"]
    plan = Plan(edge.port, [UNLIMITED], paths, connections=150, requests=3000)
    loads = [Load(tmp_path / "load", f"{number}", plan) for number in range(2)]
    accounts = [load.account(60) for load in loads]
    answered = sum(account.answered(UNLIMITED) for account in accounts)
    failed = sum(account.answered(UNLIMITED, 503) for account in accounts)
    assert failed > 0
    assert answered + failed >= 6000
    for account in accounts:
        assert not account.lost
        assert (account.wrong, account.refused, account.reset, account.closed) == (0, 0, 0, 0)
    seen = upstream.seen()
    assert answered == edge.usage()[UNLIMITED] == seen["billable"][UNLIMITED]
    assert answered + failed == seen["received"][UNLIMITED]
    assert not seen["odd"]
    assert not seen["twice"]
    upstream.stop()
