"""What a worker remembers of header blocks, and what it must not."""

import pytest

from edgeproxy.edge.proxy import bounded_cache
from edgeproxy.edge.proxy.snapshot import Snapshot
from tests.support.transcript import KEY, UNLIMITED, Edge

TRACE = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def snapshot(edge: Edge) -> Snapshot:
    await edge.starts()
    return edge.runtime.snapshot


def block(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ("Host: edge.test", *lines)).encode()


async def test_ordinary_blocks_are_remembered_with_their_meaning(edge: Edge) -> None:
    made = await snapshot(edge)
    for lines in ((), ("Accept: */*",), (f"X-API-Key: {KEY}",), (f"Authorization: Bearer {UNLIMITED}",)):
        meaning = made.read_block(block(*lines), False)
        assert made.heads[False][block(*lines)] is meaning


@pytest.mark.parametrize(
    "lines",
    [
        (TRACE,),
        ("X-API-Key: nobody",),
        ("Authorization: Bearer nobody",),
        ("X-A: " + "x" * bounded_cache.KEY_BYTES_MAX,),
    ],
    ids=["trace", "unknown key", "unknown bearer", "long"],
)
async def test_what_is_new_each_time_or_made_up_is_not_remembered(edge: Edge, lines: tuple[str, ...]) -> None:
    made = await snapshot(edge)
    made.read_block(block(*lines), False)
    assert not made.heads[False]


@pytest.mark.parametrize("line", ["X-Forwarded-For: 192.0.2.1", "X-Request-Id: abc"])
async def test_what_a_trusted_proxy_says_of_one_client_is_not_remembered(edge: Edge, line: str) -> None:
    made = await snapshot(edge)
    made.read_block(block(line), True)
    assert not made.heads[True]
    made.read_block(block(line), False)
    assert len(made.heads[False]) == 1


async def test_a_flood_of_blocks_is_forgotten_again(edge: Edge) -> None:
    made = await snapshot(edge)
    for n in range(bounded_cache.ENTRIES_MAX * 3):
        made.read_block(block(f"X-A: {n}"), False)
    assert len(made.heads[False]) <= bounded_cache.ENTRIES_MAX


async def test_nothing_is_remembered_of_anybody_once_no_request_begins_under_it(edge: Edge) -> None:
    made = await snapshot(edge)
    made.read_block(block(f"X-API-Key: {KEY}"), False)
    made.read_block(block(), True)
    assert made.heads[False]
    assert made.heads[True]
    made.retire()
    assert not made.heads[False]
    assert not made.heads[True]
    assert not made.directory._identities
    assert not any(KEY.encode() in line for line in made.lines.cache)
