"""Memory that outside text can fill: floods of distinct values and of long values leave it within its bounds.

docs/design/memory.md lists the bounds. The tests measure sizes with tracemalloc.
"""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeproxy.base.log import RateLimitedLog
from edgeproxy.base.short_names import NAME_CHARACTERS_MAX, shorten_name
from edgeproxy.collector.accounts.audit import Denials
from edgeproxy.collector.events.body import _parse_split
from edgeproxy.config.edge.response_usage import ResponseUsage
from edgeproxy.config.meters import Meter
from edgeproxy.edge.body_usage.statement import StatedCounts
from edgeproxy.edge.http2 import answer, hpack, lines
from edgeproxy.edge.http2.open_head import ENCODED_BYTES_MAX, PATHS, VALUES
from edgeproxy.edge.proxy.metering.answer_usage import ABSENT
from edgeproxy.edge.proxy.metering.bodies import BodyMetering
from edgeproxy.edge.proxy.metering.error_counts import ErrorCounts
from edgeproxy.edge.proxy.metering.split import DimensionValues
from edgeproxy.edge.proxy.observation.span_buffer import SpanBuffer
from edgeproxy.edge.proxy.routing.key_lookup import KeyLookup
from edgeproxy.edge.proxy.transport import address
from edgeproxy.wire.batch import _is_name_or_anonymous, _is_route
from tests.support.transcript import Edge

KIB, MIB = 1 << 10, 1 << 20
LONG = "x" * 256 * KIB


def measure_growth(flood: Callable[[], object]) -> int:
    """Return the bytes that are still allocated after a flood."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        keep = flood()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        del keep
    finally:
        tracemalloc.stop()
    return grown


def texts(count: int, length: int) -> list[str]:
    """Return `count` distinct texts of about `length` characters."""
    return [f"{number}" + LONG[:length] for number in range(count)]


def flood_models() -> object:
    counters: list[Any] = []

    def create_counter(meter: str, split: str) -> Any:
        counters.append(SimpleNamespace(add=lambda n: None))
        return counters[-1]

    meters = {
        "out": Meter.model_validate({"count": "output_tokens", "missing": "bytes/10", "dimensions": {"model": 50}})
    }
    metering = BodyMetering(
        ResponseUsage.model_validate({"format": "openai"}),
        ("c", "r"),
        meters,
        create_counter,
        cast("Any", None),
        DimensionValues(),
    )
    answer = cast("Any", SimpleNamespace(metered={}))
    for length in (10, 256 * KIB):
        for number in range(600):
            counts = StatedCounts({"model": f"{number}{LONG[:length]}", "output": 1})
            metering.count(answer, counts, ABSENT, is_estimable=True)
    assert len(counters) <= 52, "50 models, the others together, and none"
    return metering, counters


def flood_log() -> object:
    log = RateLimitedLog(60.0)
    for number in range(600):
        log._is_new("event", f"{number}{LONG}")
    assert not log._is_new("event", f"1{LONG}"), "the log remembers the hash of a long value"
    return log


def flood_names_of_batches() -> object:
    for number in range(600):
        _is_route(f"{number}{LONG}")
        _is_name_or_anonymous(f"{number}{LONG}")
    return None


def flood_dimensions_of_events() -> object:
    for number in range(600):
        _parse_split(b'{"model":%b"m%d"}' % (b" " * 256 * KIB, number), ("model",))
    return None


def flood_denials() -> object:
    denials = Denials(cast("Any", None))
    for number in range(3000):
        caller = SimpleNamespace(actor=f"{number}{LONG[:8000]}", origin=f"{number}{LONG[:8000]}")
        denials.record(cast("Any", caller), f"/{number}{LONG[:8000]}", 403, f"{number}{LONG[:8000]}")
    return denials


def flood_http2() -> object:
    for length in (40, 200, 256 * KIB):
        for number in range(5000 if length < KIB else 20):
            text = f"{number}{LONG[:length]}".encode()
            lines.format_line(b"x" + text, text)
            answer.encode_lines([b"x-a: " + text])
            hpack.read_string(b"\x00", 0)
    for number in range(80_000):
        value = b"/%07d%b" % (number // 2, LONG[: ENCODED_BYTES_MAX - 9].encode())
        for cache in (VALUES, PATHS):
            cache.read(bytes([len(value)]) + value, 0)
    return None


def flood_spans() -> object:
    spans = SpanBuffer(lambda _: False)
    for _ in range(600):
        spans.add(LONG.encode(), 1)
    return spans


def flood_errors() -> object:
    errors = ErrorCounts()
    for number in range(20_000):
        errors.count_own(f"customer{number}", "route", 500)
    return errors


def flood_keys() -> object:
    async def look_up() -> KeyLookup:
        lookup = KeyLookup(lambda _: True)
        for number in range(5000):
            lookup.look_up(number.to_bytes(32, "big"))
        return lookup

    return asyncio.run(look_up())


@pytest.mark.parametrize(
    ("flood", "most"),
    [
        (flood_models, MIB),
        (flood_log, MIB),
        (flood_names_of_batches, MIB),
        (flood_dimensions_of_events, MIB),
        (flood_denials, 8 * MIB),
        (flood_http2, 15 * MIB),
        (flood_spans, 2 * MIB),
        (flood_errors, MIB),
        (flood_keys, 8 * MIB),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_flood_leaves_a_memory_within_its_bound(flood: Callable[[], object], most: int) -> None:
    assert measure_growth(flood) <= most


async def test_floods_of_heads_leave_the_memories_of_heads_within_their_bounds(edge: Edge) -> None:
    await edge.starts()
    snapshot = edge.runtime.snapshot

    def flood() -> None:
        for trusted in (False, True):
            for length in (200, 4000, 30 * KIB):
                for number in range(1200 if length < 30 * KIB else 50):
                    block = f"Host: h{number}\r\nX-A: {number}{LONG[:length]}\r\n".encode()
                    for _ in range(2):  # A head is cached when it arrives for the second time.
                        meaning = snapshot.read_block(block, trusted)
                    path = f"/public/{number}{LONG[:length]}".encode()
                    line = b"GET %b HTTP/1.1\r\n" % path
                    head = line + b"Host: a\r\nX-API-Key: \r\n\r\n"
                    for _ in range(2):
                        snapshot.whole_heads[trusted].store(head, (b"GET", path, line, meaning))
                        snapshot.keyed_heads.store(head, (b"GET", path, line, ((), meaning, 4, 11)))

    assert measure_growth(flood) <= 48 * MIB


async def test_flood_of_addresses_stays_within_the_memory_bound(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "ADDRESSES_MAX", 1000)
    edge.config["trusted_proxies"] = ["127.0.0.1"]
    await edge.starts()
    addresses = edge.runtime.snapshot.addresses

    def flood() -> None:
        for number in range(3000):
            addresses.get_address(addresses.find_client("127.0.0.1", b"2001:db8::%x" % number))

    assert measure_growth(flood) <= MIB, "of 16,384 addresses 16 MiB"


def test_long_names_are_short_and_stay_different() -> None:
    long_names = {shorten_name(text) for text in texts(10, 1000)} | {shorten_name(LONG + "a"), shorten_name(LONG + "b")}
    assert len(long_names) == 12
    assert max(map(len, long_names)) == NAME_CHARACTERS_MAX
    assert shorten_name("gpt-4o") == "gpt-4o"
