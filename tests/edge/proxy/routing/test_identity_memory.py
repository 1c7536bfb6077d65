"""The cache of identities: bounded in bytes, with the last used ones, and without invented keys."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config.units import REMEMBERED_BYTES
from edgeproxy.edge.proxy.routing import identity_memory
from edgeproxy.edge.proxy.routing.identity import Identity
from edgeproxy.edge.proxy.routing.identity_memory import (
    BINDING_BYTES,
    IDENTITY_BYTES,
    IdentityMemory,
)
from tests.edge.proxy.asking import asked, asks, request
from tests.support.transcript import KEY, READER, UNLIMITED, Edge, digest, get, ok

MEASURE = """
import gc, sys, tracemalloc
from pathlib import Path
from loadtest.bench.measure.crowd import format_request
from loadtest.bench.measure.scripted import Stand, exchanges
from loadtest.bench.measure import scripted
connect = Stand.connect
def begin(stand):
    run = connect(stand)
    def measure(requests):
        if not list(requests):
            return
        routes = [[format_request(number, f"/r{route}/small") for number in range(4200)] for route in range(3)]
        for requests in routes:  # Fills the caches that have bounds of their own.
            run(requests[:3000])
        gc.collect()
        tracemalloc.start()
        begun = 0
        for requests in routes:
            run(requests[3000:])
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0]
            print((taken - begun) // 1200)
            begun = taken
        tracemalloc.stop()
    return measure
Stand.connect = begin
exchanges(Path(sys.argv[1]), "many-4200-routes3", 12600)
"""
"""Prints the bytes per customer of the requests of 1,200 customers, the first ones and those on two further routes."""


def make(route: Any, identity: Any) -> Any:
    return object()


def identities(*routes: int) -> list[Identity]:
    """Return identities with these numbers of bindings."""
    made = [Identity(make) for _ in routes]
    for identity, number in zip(made, routes, strict=True):
        for route in range(number):
            identity.bind(route)  # type: ignore[arg-type]
    return made


def memory_of(bindings: int) -> IdentityMemory[str, Identity]:
    return IdentityMemory(bindings * IDENTITY_BYTES)


def test_customer_identity_needs_at_most_its_accounted_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    first, *further = map(int, ended.stdout.split())
    assert 0.7 * IDENTITY_BYTES < first < IDENTITY_BYTES
    # The second route needs a dictionary too, and the third does not.
    assert 0.7 * BINDING_BYTES < sum(further) / len(further) < BINDING_BYTES


@pytest.fixture
def equal_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each further binding count as much as an identity."""
    monkeypatch.setattr(identity_memory, "BINDING_BYTES", IDENTITY_BYTES)


@pytest.mark.usefixtures("equal_bindings")
def test_all_bindings_of_an_identity_count(seed: int) -> None:
    memory, (one, two, three) = memory_of(5), identities(2, 1, 0)
    for key, identity in zip("abc", (one, two, three), strict=True):
        memory.remember(key, identity)
    assert list(memory) == ["a", "b", "c"]
    three.bind(0), three.bind(1)  # type: ignore[arg-type]
    assert list(memory) == ["a", "b", "c"]
    three.bind(2)  # type: ignore[arg-type]
    assert (list(memory), memory.evicted) == (["b", "c"], 1)
    one.bind(7)  # type: ignore[arg-type] # The identity was evicted, so its bindings do not count.
    assert list(memory) == ["b", "c"]
    for route in range(50):
        three.bind(route)  # type: ignore[arg-type]
    assert (list(memory), memory.evicted) == (["c"], 2)
    two.bind(1)  # type: ignore[arg-type]
    memory.forget("c")
    memory.remember("b", two)
    memory.remember("a", one)
    assert (list(memory), memory._further) == (["b", "a"], 3)


@pytest.mark.usefixtures("equal_bindings")
def test_replaced_and_cleared_bindings_do_not_count() -> None:
    memory, (one, two) = memory_of(6), identities(3, 3)
    memory.remember("a", one)
    memory.remember("b", two)
    one.replace_bindings(make)
    memory.remember("a", one)
    assert (list(memory), memory._further) == (["b", "a"], 2)
    memory.clear_bindings()
    assert (len(two.list_bindings()), memory._further) == (0, 0)
    memory.remember("b", identities(2)[0])
    assert (list(memory), memory._further, two.memory) == (["a", "b"], 1, None)


def test_an_identity_is_spared_once_for_a_recent_use() -> None:
    memory, made = memory_of(3), identities(*[1] * 9)
    for key, identity in zip("abc", made, strict=False):
        memory.remember(key, identity)
    made[0].is_recent = made[2].is_recent = True
    memory.remember("d", made[3])
    assert list(memory) == ["c", "a", "d"]
    memory.remember("e", made[4])
    assert list(memory) == ["d", "c", "e"]
    for identity in made:
        identity.is_recent = True
    memory.remember("f", made[5])
    assert (list(memory), memory.evicted) == (["c", "e", "f"], 3)


def test_a_turn_looks_at_few_identities_even_if_all_were_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_memory, "SPARED_MAX", 4)
    memory, made = memory_of(100), identities(*[1] * 101)
    for number, identity in enumerate(made[:100]):
        memory.remember(str(number), identity)
        identity.is_recent = True
    memory.remember("100", made[100])
    assert list(memory) == [*map(str, range(5, 100)), "0", "1", "2", "3", "100"]
    assert memory.evicted == 1


def test_a_full_memory_of_many_drops_several_at_a_time() -> None:
    memory, made = memory_of(3 * identity_memory.TURN_PARTS), identities(*[0] * (3 * identity_memory.TURN_PARTS + 3))
    sizes = []
    for number, identity in enumerate(made):
        memory.remember(str(number), identity)
        sizes.append(len(memory))
    most = 3 * identity_memory.TURN_PARTS
    assert sizes[-4:] == [most, most - 3, most - 2, most - 1]


async def test_a_flood_of_invented_keys_evicts_no_customer(edge: Edge) -> None:
    await edge.starts()
    snapshot = edge.runtime.snapshot
    people = snapshot.directory
    known = [people.resolve(key.encode()) for key in (KEY, UNLIMITED, READER)]
    for number in range(30_000):
        assert people.resolve(b"invented %d" % number) is people.unknown
    assert [people.resolve(key.encode()) for key in (KEY, UNLIMITED, READER)] == known
    assert len(people._identities) == 3
    edge.upstream.answers(lambda request: ok(b"here"))
    client = await edge.client()
    for key in (KEY, UNLIMITED, READER) * 2:
        assert (await client.asks(get("/v1/x", f"X-API-Key: {key}"))).status == 200
    memories = snapshot.shared, snapshot.rests, snapshot.heads[False], snapshot.keyed_heads
    sizes = [len(memory) for memory in memories]
    assert sizes[0] == 1
    for number in range(300):
        lines = [f"X-API-Key: guess-{number}"] + [f"User-Agent: {number // 3}"] * (number % 2)
        assert (await client.asks(get(f"/v1/{number}", *lines))).status == 401
    assert [len(memory) for memory in memories] == sizes


async def test_a_changed_tier_applies_at_once(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(dict(request.fields)["X-Customer-Tier"].encode()))
    client = await edge.client()
    for tier in ("basic", "free", "basic"):
        edge.config["customers"]["acme"] = {"tier": tier}
        await edge.reloads()
        for key, expected in ((KEY, tier), (UNLIMITED, "free"), (KEY, tier)):
            answer = await client.asks(get("/v1/x", f"Authorization: Bearer {key}"))
            assert (answer.body, "RateLimit" in answer) == (expected.encode(), expected == "basic")


async def test_lookups_and_cache_hits_are_counted(edge: Edge) -> None:
    edge.config["keys"] += [{"sha256": digest(f"key {n}"), "customer": "free"} for n in range(20)]
    edge.upstream.answers(lambda request: ok(b"here"))
    client = await edge.client()
    for _ in range(2):
        for number in range(20):
            assert (await client.asks(get("/v1/x", f"X-API-Key: key {number}"))).status == 200
    edge.runtime.snapshot.directory.count_lookups()
    counted = [edge.count("edge_identities_total", result) for result in ("looked_up", "remembered")]
    # A request whose whole head is cached needs no look-up.
    assert counted[0] >= 20 >= counted[1]


async def test_a_customers_routes_share_limits_until_its_tier_changes(edge: Edge) -> None:
    edge.config["routes"].append({"name": "second", "path": "/second/*", "upstream": "api"})
    edge.upstream.answers(lambda request: ok(b"here"))
    client = await edge.client()
    for tier, shares in (("basic", True), ("free", True), ("basic", True)):
        edge.config["customers"]["acme"] = {"tier": tier}
        await edge.reloads()
        statuses = [(await client.asks(get(path, f"X-API-Key: {KEY}"))).status for path in ("/v1/x", "/second/x")]
        assert statuses == [200, 200]
        bindings = [*edge.runtime.snapshot.directory.resolve(KEY.encode()).list_bindings()]
        assert [binding.tier for binding in bindings] == [tier] * len(bindings)
        assert (len({id(binding.limit_set) for binding in bindings}) == 1) is shares
        assert len({binding.stamps for binding in bindings}) == 1


async def test_storm_of_evictions_leaves_requests_in_progress_and_their_limits(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity_memory, "IDENTITY_BYTES", REMEMBERED_BYTES // 20)
    edge.config["tiers"]["basic"] = {"concurrency": 1}
    for number in range(200):
        edge.config["customers"][f"c{number}"] = {"tier": "basic"}
        edge.config["keys"].append({"sha256": digest(f"key {number}"), "customer": f"c{number}"})
    slow = [await asked(edge, request(key=f"key {number}")) for number in range(10)]
    directory = edge.runtime.snapshot.directory
    edge.upstream.answers(lambda request: ok())
    edge.upstream.begins()
    client = await edge.client()
    for number in range(10, 200):
        assert (await asks(client, key=f"key {number}")).status == 200
        assert len(directory._identities) <= 20
    assert not any(f"key {number}".encode() in directory._identities for number in range(10))
    for number in range(10):
        assert (await asks(client, key=f"key {number}")).status == 429
    await edge.reloads()
    for number, (waiting, upstream) in enumerate(slow):
        assert (await asks(client, key=f"key {number}")).status == 429
        await upstream.sends(ok(b"late", "Connection: close"))
        assert (await waiting.gets_answer()).body == b"late"
        assert (await asks(client, key=f"key {number}")).status == 200
