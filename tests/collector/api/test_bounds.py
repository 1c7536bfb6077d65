"""The cost that a client can cause at the collector, with and without a token."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from zstandard import ZstdCompressor

from edgeproxy.wire.batch import compute_digest
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, OWN, READ, SERVICE, Collector
from loadtest.testbed.http_client import Wire, ask
from loadtest.testbed.ports import HOST
from tests.support.collector_fixtures import StartCollector, only_sqlite


@only_sqlite("collector")
def test_silent_connections_do_not_block_new_requests(collector: Collector) -> None:
    with ExitStack() as held:
        for _ in range(600):
            held.enter_context(socket.create_connection((HOST, collector.port)))
        assert ask(collector.port, "/readyz").status == 200
        assert collector.post(Chain().next()).status == 200


@only_sqlite("collector")
def test_a_body_that_hardly_comes_is_not_waited_for(collector: Collector) -> None:
    head = f"POST /v1/batches HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {EDGE}\r\nContent-Length: 1000000\r\n"
    text = f"Edge-Id: slow\r\nEdge-Seq: 1\r\nEdge-Hash: {'0' * 64}\r\n\r\n"
    with socket.create_connection((HOST, collector.port), timeout=60) as connection:
        connection.sendall((head + text).encode() + b"{" * 1000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


@only_sqlite("collector")
def test_compressed_body_of_millions_of_values_costs_little_memory_and_time(collector: Collector) -> None:
    assert collector.process is not None
    status = Path(f"/proc/{collector.process.pid}/status")

    def peak() -> int:
        return int(status.read_text().split("VmHWM:")[1].split()[0]) >> 10

    before = peak()
    for number, value in enumerate((b"[],", b"{},", b"0.5,")):
        content = b'{"rows":[' + value * (15_000_000 // len(value)) + b"1]}"
        sent = ZstdCompressor(19).compress(content)
        assert len(sent) < 3000
        said = {"Edge-Id": f"bomb-{number}", "Edge-Seq": "1", "Edge-Hash": compute_digest(content)}
        assert collector.post(sent, fields={**said, "Content-Encoding": "zstd"}).status == 422
    assert peak() - before < 150, "megabytes"


def test_every_endpoint_of_billing_is_held_to_a_rate_but_that_of_webhooks(sqlite_collector: Collector) -> None:
    described = sqlite_collector.get("/v1/openapi.json").json()["paths"]
    asked = {
        (method, path): operation["responses"]
        for path, operations in described.items()
        for method, operation in operations.items()
        if path.startswith("/billing/")
    }
    assert len(asked) > 20
    free = {what for what, responses in asked.items() if "429" not in responses}
    assert free == {("post", "/billing/webhooks/stripe")}


BY_READER, BY_ADMIN = (f"Host: a\r\nAuthorization: Bearer {token}\r\n" for token in (READ, ADMIN))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET /v1/usage HTTP/1.1\r\n{BY_READER}\r\n", 200),
        (f"GET /v1/usage HTTP/1.1\r\n{BY_READER}Accept: text/csv\r\n\r\n", 200),
        (f"HEAD /v1/edges HTTP/1.1\r\n{BY_READER}\r\n", 200),
        ("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET /v1/usage HTTP/1.1\r\nHost: a\r\n\r\n", 401),
        (f"GET /v1/audit HTTP/1.1\r\n{BY_READER}\r\n", 403),
        (f"GET /nothing HTTP/1.1\r\n{BY_READER}\r\n", 404),
        (f"PUT /v1/usage HTTP/1.1\r\n{BY_READER}\r\n", 405),
        (f"GET /v1/usage?by=nothing HTTP/1.1\r\n{BY_READER}\r\n", 400),
        (f"POST /v1/customers HTTP/1.1\r\n{BY_ADMIN}Content-Type: text/html\r\nContent-Length: 0\r\n\r\n", 415),
        (f"GET /v1/edges HTTP/1.1\r\n{BY_READER}Expect: much\r\n\r\n", 417),
        # aiohttp answers these itself.
        ("GET /?\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        (f"GET / HTTP/1.1\r\nHost: a\r\nLong: {'a' * 20_000}\r\n\r\n", 431),
        ("POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Encoding: zstd\r\n\r\n", 401),
        ("POST /v1/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400),
    ],
)
def test_every_answer_forbids_caching_and_content_sniffing(sqlite_collector: Collector, head: str, status: int) -> None:
    with Wire(sqlite_collector.port) as wire:
        wire.send(head.encode("latin-1"))
        answer = wire.hear(head.partition(" ")[0])
    assert (answer.status, answer["cache-control"], answer["x-content-type-options"]) == (status, "no-store", "nosniff")


def test_change_rate_limit_counts_each_token_separately(
    start_collector: StartCollector,
) -> None:
    """A customer's token makes keys as fast as it can; an admin's makes customers so."""
    collector = start_collector(changes_per_minute={"operators": 100})
    assert collector.send("POST", "/v1/customers", {"name": "bound", "tier": "basic"}).status == 201
    created = collector.send("POST", "/v1/tokens", {"name": "second", "customer": "bound"}).json()
    own = "/v1/customers/bound/keys"
    answers = [collector.send("POST", own, {}, token=OWN) for _ in range(70)]
    assert [answer.status for answer in answers] == [201] * 60 + [429] * 10
    assert (
        1 <= int(answers[-1]["retry-after"]) <= 65
    )  # A window of so few requests has 13 cells, and lets go of one up to a cell late.
    assert "60 changes a minute" in answers[-1].json()["detail"]
    key = answers[0].json()["id"]
    for method, path in (("PATCH", f"/v1/keys/{key}"), ("DELETE", f"/v1/keys/{key}"), ("POST", f"{own}?dry_run=true")):
        assert collector.send(method, path, {}, token=OWN).status == 429, path
    assert collector.get(own, token=OWN).status == 200, "the token may read"
    assert collector.send("DELETE", f"/v1/keys/{key}", token=created["secret"]).status == 200, (
        "another token may revoke the key"
    )
    assert collector.post(Chain().next()).status == 200
    statuses = [collector.send("PUT", "/v1/flags/f", {}, token=ADMIN).status for _ in range(110)]
    assert (statuses[0], statuses[97], statuses[-1]) == (200, 200, 429), "an operator may make more"
    assert collector.send("POST", "/v1/events", {"meter": "?"}, token=SERVICE).status == 202, (
        "an event does not count as a change"
    )


def test_staff_requests_do_not_use_up_the_rate_limit_of_a_customer(sqlite_collector: Collector) -> None:
    def ask_status(token: str, about: str = "") -> int:
        return sqlite_collector.get(f"/billing/subscription{about}", token=token).status

    statuses = [ask_status(ADMIN, "?customer=bound") for _ in range(110)]
    assert (statuses[97], statuses[-1]) == (404, 429), "nothing is sold here"
    assert ask_status(OWN) == 404
