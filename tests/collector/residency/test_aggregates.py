"""Sums of all residencies: they reveal no customer, and the answer of another residency cannot do harm."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import orjson
import pytest

from edgeproxy.collector.api.groups import GROUPS
from edgeproxy.collector.residency import peers
from edgeproxy.collector.residency.peers import BYTES_MAX, PeerReader, ResidencyStatus
from edgeproxy.config.collector.residencies import OtherResidency
from loadtest.testbed.collector import ADMIN, READ, Collector
from loadtest.testbed.ports import HOST
from tests.support.byte_search import find_marks
from tests.support.two_residencies import PLANTED, SUMS, sign_in_operator, two_residencies

ANSWER = {
    "residency": "us",
    "since": "2027-01-01T00:00:00.000Z",
    "until": "2027-01-31T00:00:00.000Z",
    "customers": 7,
    "left_out": 0,
    "traffic": [{"region": "us-1", "requests": 4, "limited": 1, "failed": 0}],
    "usage": [{"meter": "requests", "units": 3}],
    "payments": [{"currency": "usd", "amount": 500}],
    "alerts": [{"severity": "page", "alerts": 2}],
}


# ---- two collectors


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Collector]]:
    with two_residencies(tmp_path_factory.mktemp("sides")) as created:
        yield created


def test_residency_sums_reveal_no_customer(sides: dict[str, Collector]) -> None:
    answer = sides["us"].get("/v1/residency/aggregates", token=SUMS)
    assert answer.status == 200, answer
    body = answer.json()
    assert (body["residency"], body["customers"], body["left_out"]) == ("us", 6, 1)
    assert body["usage"] == [{"meter": "requests", "units": sum(range(10, 16))}]
    assert set(find_marks(answer.body)) == set()
    audited = sides["us"].get("/v1/audit", token=ADMIN, action="residency.aggregates").json()["entries"]
    assert {entry["actor"] for entry in audited} == {"eu-console"}


def test_aggregates_token_allows_only_the_aggregates_endpoint(sides: dict[str, Collector]) -> None:
    allowed = {
        (endpoint.method, endpoint.path)
        for group in GROUPS
        for endpoint in group.endpoints
        if "aggregates" in endpoint.roles
    }
    assert allowed == {("GET", "/v1/residency/aggregates")}
    us = sides["us"]
    for path in ("/v1/customers", "/v1/audit", "/v1/residencies", "/v1/usage", "/v1/moves"):
        assert us.get(path, token=SUMS).status == 403, path
    assert us.get("/v1/residency/aggregates", token=READ).status == 403


def test_console_shows_all_residencies(sides: dict[str, Collector]) -> None:
    answer = sides["eu"].get("/v1/residencies", token=ADMIN)
    assert answer.status == 200, answer
    here, there, away = answer.json()["residencies"]
    assert (here["residency"], here["aggregates"]["usage"], here["aggregates"]["left_out"]) == ("eu", [], 1)
    assert (there["state"], there["aggregates"]["usage"][0]["units"]) == ("ok", sum(range(10, 16)))
    assert (away["residency"], away["state"], away["aggregates"]) == ("ap", "away", None)
    with sign_in_operator(sides["eu"]) as visitor:
        visitor.get("/console/residencies")
        assert visitor.status == 200
        assert "does not answer" in visitor.read.text
        assert str(sum(range(10, 16))) in visitor.read.text
    folder = sides["eu"].file.parent
    found = {file.name for file in folder.rglob("*") if file.is_file() and set(find_marks(file.read_bytes()))}
    assert found == set()


# ---- a hostile other side

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answers(body: bytes, *fields: str, status: str = "200 OK") -> Serve:
    """Return a server that answers with this complete body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", *fields]
        writer.write("\r\n".join((*head, "", "")).encode() + body)
        await writer.drain()

    return serve


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one byte at a time, endlessly."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer endlessly, as fast as possible."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        writer.write(b"[" * 65536)
        await writer.drain()


def changed(**fields: object) -> bytes:
    return orjson.dumps(ANSWER | fields)


def ask(serve: Serve) -> tuple[ResidencyStatus, int]:
    """Read from a residency that answers by `serve`. Return the reader's status and the number of connections."""

    async def work() -> tuple[ResidencyStatus, int]:
        count = 0

        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            try:
                await serve(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve_one, HOST, 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            other = OtherResidency.model_validate({"url": f"http://{HOST}:{port}", "token": SUMS})
            reader = PeerReader({"us": other})
            (status,) = await reader.fetch_all({"requests"}, {"us-1"})
            assert await reader.fetch_all({"requests"}, {"us-1"}) == [status], "which is not asked again at once"
        return status, count

    return asyncio.run(work())


HOSTILE: dict[str, tuple[Serve, str]] = {
    "html": (answers(f"<p>{PLANTED}</p>".encode()), "unreadable"),
    "redirect": (answers(b"", "Location: /elsewhere", status="302 Found"), "unreadable"),
    "huge": (answers(b"[" * (BYTES_MAX + 1)), "unreadable"),
    "flood": (flood, "unreadable"),
    "drip": (drip, "away"),
    "gzip": (answers(gzip.compress(changed()), "Content-Encoding: gzip"), "unreadable"),
    "a name for a number": (answers(changed(customers=PLANTED)), "unreadable"),
    "a number as text": (answers(changed(customers="7")), "unreadable"),
    "too large a number": (answers(changed(usage=[{"meter": "requests", "units": 1 << 62}])), "unreadable"),
    "no number": (answers(changed().replace(b'"customers":7', b'"customers":NaN')), "unreadable"),
    "a name for a currency": (answers(changed(payments=[{"currency": PLANTED, "amount": 1}])), "unreadable"),
    "a name for a time": (answers(changed(since=PLANTED)), "unreadable"),
    "deep": (answers(b'{"traffic":' + b"[" * 20_000), "unreadable"),
    "many": (answers(changed(usage=[{"meter": "m", "units": 1}] * 501)), "unreadable"),
    "another residency": (answers(changed(residency="eu")), "unreadable"),
    "no token": (answers(PLANTED.encode(), status="401 Unauthorized"), "refused"),
    "an old version": (answers(b'{"detail": "not found"}', status="404 Not Found"), "unreadable"),
    "no HTTP": (answers(b"", status=f"{PLANTED}\r\n\r\n"), "unreadable"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_answer_of_a_residency_becomes_a_state(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEER", peers.PEER._replace(seconds_max=0.5 if kind == "drip" else 30.0))
    serve, state = HOSTILE[kind]
    status, count = ask(serve)
    assert (status["state"], status["aggregates"], count) == (state, None, 1)
    assert PLANTED.encode() not in orjson.dumps(status)


def test_unknown_names_are_summed_and_not_shown() -> None:
    traffic = [*ANSWER["traffic"], {"region": PLANTED, "requests": 5, "limited": 0, "failed": 3}]  # type: ignore[misc]
    usage = [{"meter": PLANTED, "units": 1}, {"meter": f"{PLANTED}-b", "units": 2}, {"meter": "requests", "units": 3}]
    status, _ = ask(answers(changed(traffic=traffic, usage=usage, also=PLANTED)))
    assert status["state"] == "ok", status
    sums = status["aggregates"]
    assert sums is not None
    assert sums["usage"] == [{"meter": "requests", "units": 3}, {"meter": "", "units": 3}]
    assert [one["requests"] for one in sums["traffic"]] == [4, 5]
    assert PLANTED.encode() not in orjson.dumps(status)


def test_server_without_tls_gets_no_token(tmp_path: Path) -> None:
    """The token is never sent in the clear: a server without TLS gets a handshake only."""
    received = bytearray()

    async def work() -> ResidencyStatus:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.extend(await reader.read(65536))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(serve, HOST, 0) as server:
            port = server.sockets[0].getsockname()[1]
            other = OtherResidency.model_validate({"url": f"https://{HOST}:{port}", "token": SUMS})
            return await peers.fetch_status("us", other)

    assert asyncio.run(work())["state"] in ("away", "unreadable")
    assert received
    assert SUMS.encode() not in received
