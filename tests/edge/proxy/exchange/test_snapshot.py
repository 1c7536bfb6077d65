"""The worker's cache of header blocks: blocks that it stores, and blocks that it must not store."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config.edge.load import dump_settings, load_edge
from edgeproxy.edge.proxy.exchange.snapshot import HEAD_BYTES_MAX, HEADS_MAX, Snapshot
from loadtest.testbed.process import ROOT
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


# ---- configurations are prepared in the background


PREPARED = """
import json, os, sys
from edgeproxy.config.customers import Customer, Flag, Key, Subscriber
from edgeproxy.edge.proxy.exchange.prepared_configuration import PreparedConfiguration
for configurations in json.load(sys.stdin):
    if os.fork():
        os.wait()
        continue
    for dumped in configurations:
        PreparedConfiguration(dumped.encode("latin-1"))
        print("jwt" in sys.modules, {each.__pydantic_complete__ for each in (Customer, Flag, Key, Subscriber)})
    break
"""
SERVED = "upstreams: {a: {endpoints: [http://a]}}\nroutes: [{path: /, upstream: a}]\n"
ISSUERS = "issuers: {id: {issuer: https://id.example, jwks: https://id.example/k, audiences: [x]}}\n"


def test_identity_models_are_built_and_jwt_is_imported_only_with_issuers(tmp_path: Path) -> None:
    file, told = tmp_path / "edge.yaml", []
    for config in (SERVED, SERVED + ISSUERS):
        file.write_text(config)
        told.append(dump_settings(load_edge(file, {})).decode("latin-1"))
    # A separate process for each, because other tests have imported and built the objects in this one.
    command = [sys.executable, "-c", PREPARED]
    ended = subprocess.run(
        command, cwd=ROOT, input=json.dumps([told[1:], told]), capture_output=True, check=True, text=True
    )
    assert ended.stdout == "True {True}\nFalse {True}\nTrue {True}\n"
