"""The worker's cache of header blocks: blocks that it stores, and blocks that it must not store."""

from typing import Any

import pytest

from edgeproxy.edge.proxy.exchange.snapshot import HEAD_BYTES_MAX, HEADS_MAX, Snapshot
from tests.support.transcript import KEY, UNLIMITED, Edge, get, ok

TRACE = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def snapshot(edge: Edge) -> Snapshot:
    await edge.starts()
    return edge.runtime.snapshot


def block(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ("Host: edge.test", *lines)).encode()


async def test_ordinary_blocks_are_cached_with_their_meaning(edge: Edge) -> None:
    created = await snapshot(edge)
    for lines in ((), ("Accept: */*",), (f"X-API-Key: {KEY}",), (f"Authorization: Bearer {UNLIMITED}",)):
        meaning = created.read_block(block(*lines), False)
        assert created.heads[False][block(*lines)] is meaning


@pytest.mark.parametrize(
    "lines",
    [
        (TRACE,),
        ("X-API-Key: nobody",),
        ("Authorization: Bearer nobody",),
        ("X-A: " + "x" * HEAD_BYTES_MAX,),
    ],
    ids=["trace", "unknown key", "unknown bearer", "long"],
)
async def test_blocks_with_unique_or_invented_values_are_not_cached(edge: Edge, lines: tuple[str, ...]) -> None:
    created = await snapshot(edge)
    created.read_block(block(*lines), False)
    assert not created.heads[False]


@pytest.mark.parametrize("line", ["X-Forwarded-For: 192.0.2.1", "X-Request-Id: abc"])
async def test_blocks_with_a_trusted_proxys_client_fields_are_not_cached(edge: Edge, line: str) -> None:
    created = await snapshot(edge)
    created.read_block(block(line), True)
    assert not created.heads[True]
    created.read_block(block(line), False)
    assert len(created.heads[False]) == 1


@pytest.mark.patches_methods
async def test_a_flood_of_heads_does_not_evict_regular_heads(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends one in 100 requests, with constant or with varying fields, is read once."""
    edge.config["tiers"]["basic"] = {"limits": []}
    edge.upstream.answers(lambda request: ok())
    created = await snapshot(edge)
    blocks: list[bytes] = []
    read_block = Snapshot.read_block

    def read(snapshot: Snapshot, fields: bytes, trusted: bool) -> Any:
        blocks.append(fields)
        return read_block(snapshot, fields, trusted)

    monkeypatch.setattr(Snapshot, "read_block", read)
    client, flood = await edge.client(), await edge.client()
    lines, same = (f"X-API-Key: {KEY}", "User-Agent: regular"), get("/v1/x", f"X-API-Key: {KEY}")
    for n in range(2 * HEADS_MAX):
        if n % 100 == 0:
            assert (await client.asks(get(f"/v1/x?page={n}", *lines))).status == 200
            assert (await client.asks(same)).status == 200
            assert n < 200 or same in created.whole_heads[False]
        await flood.asks(get("/public/x", f"X-A: {n}"))
        await flood.asks(get(f"/public/{n}"))
    assert sum(b"regular" in fields for fields in blocks) == 1
    for caches in (created.heads, created.whole_heads):
        assert len(caches[False]) + len(caches[False]._older) <= HEADS_MAX


async def test_a_retired_snapshot_clears_its_caches(edge: Edge) -> None:
    created = await snapshot(edge)
    created.read_block(block(f"X-API-Key: {KEY}"), False)
    created.read_block(block(), True)
    assert created.heads[False]
    assert created.heads[True]
    created.retire()
    assert not created.heads[False]
    assert not created.heads[True]
    assert not created.directory._identities
    assert not any(KEY.encode() in line for line in created.lines.cache)
