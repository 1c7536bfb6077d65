"""Keys that are in no file: the worker asks the supervisor, requests wait for it, and the answer is cached."""

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from types import FrameType
from typing import Any

import pytest

from edgeproxy.config.directory import KeyOwner
from edgeproxy.config.key_form import generate_key
from edgeproxy.config.units import REMEMBERED_BYTES
from edgeproxy.edge.messages import ForgetCustomers, KeysLookedUp, LookUpKeys
from edgeproxy.edge.proxy.process.control_handler import ControlHandler
from edgeproxy.edge.proxy.routing import identity, identity_memory, key_lookup
from edgeproxy.edge.proxy.routing.identity import UnresolvedIdentity
from edgeproxy.edge.proxy.routing.key_lookup import KeyLookup
from tests.edge.proxy.asking import asks, is_problem, request
from tests.support.transcript import GET, KEY, Edge, digest, get, ok, post
from tests.support.wire import Wire

MINE = "key-of-dora"
"""A key of `dora`, a customer in the directory."""
DORA = {"tier": "basic"}


def hashed(key: str) -> bytes:
    """Return the digest of a key, its name among workers and supervisors."""
    return bytes.fromhex(digest(key))


class Supervisor:
    """The supervisor of an edge, played by the test. It collects lookups and answers them."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.people: dict[bytes, KeyOwner] = {}
        """The owners of the keys in the directory, by digest of the key."""

    def knows(self, key: str = MINE, name: str = "dora", customer: Any = DORA, **said: Any) -> None:
        """Put a key and its owner into the directory."""
        self.people[hashed(key)] = KeyOwner(name, json.dumps(customer), json.dumps(said))

    def asked(self) -> list[bytes]:
        """Return the digests of the lookups so far, in order."""
        return [key for message in self.edge.inquiries for key in message.digests]

    async def is_asked(self, *keys: str) -> None:
        """Wait for lookups of exactly these keys since the last call."""
        await self.edge.until(lambda: len(self.asked()) >= len(keys), "the supervisor is asked")
        assert self.asked() == [hashed(key) for key in keys]
        self.edge.inquiries.clear()

    def tells(self, *keys: str, untold: bool = False) -> None:
        """Answer the lookups of these keys. With `untold`, answer that the supervisor cannot tell."""
        digests = [hashed(key) for key in keys]
        known = {digest: self.people[digest] for digest in digests if digest in self.people and not untold}
        unknown = [digest for digest in digests if digest not in self.people and not untold]
        self.edge.runtime.key_lookup.on_answer(KeysLookedUp(known, unknown, digests if untold else []))

    async def meets(self, client: Wire, key: str = MINE, path: str = "/v1/x") -> int:
        """Send the first request with a key, answer its lookup, and return the status of the response."""
        await client.sends(request(path, key=key))
        await self.is_asked(key)
        self.tells(key)
        return (await client.gets_answer()).status


@pytest.fixture
def supervisor(edge: Edge) -> Supervisor:
    edge.config["hub"] = "redis://127.0.0.1:1"
    edge.config["directory"] = {"from": "hub"}
    edge.upstream.answers(lambda request: ok())
    return Supervisor(edge)


async def test_only_the_first_request_with_a_key_waits_for_the_lookup(edge: Edge, supervisor: Supervisor) -> None:
    supervisor.knows()
    client = await edge.client()
    await client.sends(request("/v1/first", key=MINE))
    await supervisor.is_asked(MINE)
    assert not edge.upstream.requests
    supervisor.tells(MINE)
    first = await client.gets_answer()
    assert first.status == 200
    assert first["RateLimit"].startswith('"basic";r=59;')
    for left in (58, 57):
        assert f"r={left}" in (await asks(client, key=MINE))["RateLimit"]
    assert not supervisor.asked()
    sent = edge.upstream.requests[0]
    assert (sent["X-Customer-Id"], sent["X-Customer-Tier"]) == ("dora", "basic")
    assert not sent.all("X-API-Key")
    assert edge.usage() == {("dora", "requests", "v1"): 3}


async def test_a_key_with_a_wrong_check_is_refused_without_a_lookup(edge: Edge, supervisor: Supervisor) -> None:
    client = await edge.client()
    key = generate_key()
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert (await asks(client, key=wrong)).status == 401
    assert not supervisor.asked()
    assert await supervisor.meets(client, key) == 401


async def test_a_key_in_the_query_is_looked_up(edge: Edge, supervisor: Supervisor) -> None:
    edge.config["auth"] = {"query": "key"}
    supervisor.knows()
    client = await edge.client()
    for count in range(2):
        await client.sends(get(f"/v1/x?key={MINE}&a=1"))
        if not count:
            await supervisor.is_asked(MINE)
            supervisor.tells(MINE)
        assert (await client.gets_answer()).status == 200
    assert [request.first for request in edge.upstream.requests] == ["GET /v1/x?a=1 HTTP/1.1"] * 2
    assert edge.usage() == {("dora", "requests", "v1"): 2}


async def test_waiting_requests_with_one_key_share_a_lookup(edge: Edge, supervisor: Supervisor) -> None:
    supervisor.knows()
    clients = [await edge.client() for _ in range(20)]
    for client in clients:
        await client.sends(request(key=MINE))
    await edge.until(lambda: len(edge.runtime.key_lookup._waiting.get(hashed(MINE), ())) == 20, "all requests wait")
    await supervisor.is_asked(MINE)
    supervisor.tells(MINE)
    assert [(await client.gets_answer()).status for client in clients] == [200] * 20
    known = edge.runtime.snapshot.directory._identities
    assert len(known) == 1


async def test_requests_pipelined_after_a_waiting_one_are_served_in_order(edge: Edge, supervisor: Supervisor) -> None:
    supervisor.knows()
    client = await edge.client()
    body = post(b"abcdef", "/v1/body", f"X-API-Key: {MINE}")
    await client.sends(body[:-3])
    await supervisor.is_asked(MINE)
    await client.sends(body[-3:] + request(key=KEY) + request("/v1/third", key=MINE))
    await edge.settles()
    supervisor.tells(MINE)
    assert [(await client.gets_answer()).status for _ in range(3)] == [200] * 3
    assert edge.upstream.requests[0].body == b"abcdef"


async def test_an_unknown_key_is_looked_up_again_after_a_time(
    edge: Edge, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_lookup, "UNKNOWN_SECONDS", 0.3)
    client = await edge.client()
    assert await supervisor.meets(client) == 401
    supervisor.knows()
    await edge.until(
        lambda: not edge.runtime.key_lookup.is_unknown(hashed(MINE)), "the unknown key is no longer cached"
    )
    assert await supervisor.meets(client) == 200


async def test_a_lookup_without_an_answer_ends_in_503(edge: Edge, supervisor: Supervisor) -> None:
    client = await edge.client()
    answer = await asks(client, key=MINE)
    said = is_problem(answer, 503)
    assert said["detail"] == "This edge cannot tell at the moment whose this API key is"
    assert answer["Retry-After"] == "1"
    assert edge.count("edge_auth_failures_total", "untold") == 1
    supervisor.knows()
    supervisor.tells(MINE)
    assert (await asks(client, key=MINE)).status == 200, "a late answer is cached"


async def test_lookups_pause_after_the_supervisor_could_not_answer(edge: Edge, supervisor: Supervisor) -> None:
    client = await edge.client()
    await client.sends(request(key=MINE))
    await supervisor.is_asked(MINE)
    supervisor.tells(MINE, untold=True)
    assert (await client.gets_answer()).status == 503
    assert (await asks(client, key="another")).status == 503
    assert not supervisor.asked()
    assert (await asks(client, key=KEY)).status == 200, "a key of the files is served"


async def test_a_client_that_left_no_longer_waits_for_a_lookup(
    edge: Edge, supervisor: Supervisor, tmp_path: Path
) -> None:
    edge.config["access_log"] = str(tmp_path / "access.log")
    supervisor.knows()
    client = await edge.client()
    await client.sends(request(key=MINE))
    await supervisor.is_asked(MINE)
    client.aborts()
    asked = edge.runtime.key_lookup._waiting
    await edge.until(lambda: not any(asked.values()), "no look-up waits")
    supervisor.tells(MINE)
    assert not asked
    await edge.settles()
    assert not edge.upstream.requests
    edge.worker.close_access_logs()
    (line,) = map(json.loads, (tmp_path / "access.log").read_text().splitlines())
    assert (line["route"], line["aborted"]) == ("v1", True)
    assert line["request_id"]


async def test_a_route_without_authentication_looks_up_no_key(edge: Edge, supervisor: Supervisor) -> None:
    client = await edge.client()
    assert (await asks(client, "/public/x", key=MINE)).status == 200
    assert (await asks(client, "/nowhere", key=MINE)).status == 404
    assert not supervisor.asked()


async def test_the_limit_per_address_applies_before_a_lookup(edge: Edge, supervisor: Supervisor) -> None:
    edge.config["per_ip"] = {"rate": "1/min"}
    client = await edge.client()
    assert await supervisor.meets(client, "guess") == 401
    assert (await asks(client, key="another guess")).status == 429
    assert not supervisor.asked()


# ---- the lifetime of cached owners


async def test_a_changed_customer_is_looked_up_again_and_others_are_not(edge: Edge, supervisor: Supervisor) -> None:
    supervisor.knows()
    supervisor.knows("of-eve", "eve", {"tier": "free"})
    client = await edge.client()
    assert await supervisor.meets(client) == 200
    assert await supervisor.meets(client, "of-eve") == 200
    supervisor.knows(customer={"tier": "free"})
    edge.worker.generations.forget_customers(["dora", "whoever"])
    assert (await asks(client, key="of-eve")).status == 200
    assert not supervisor.asked()
    assert await supervisor.meets(client) == 200
    assert not (await asks(client, key=MINE)).all("RateLimit")
    del supervisor.people[hashed(MINE)]
    edge.worker.generations.forget_customers(None)
    assert await supervisor.meets(client) == 401
    assert await supervisor.meets(client, "of-eve") == 200


def remember(edge: Edge, supervisor: Supervisor, names: list[str], now: float = 0.0) -> list[identity.Identity]:
    """Let the worker look up and cache a key of each of these customers. Return their identities."""
    people = edge.runtime.snapshot.directory
    route = edge.runtime.snapshot.router.find_site(None).match(b"/v1/x", b"GET", GET)
    for name in names:
        supervisor.knows(f"key of {name}", name)
    supervisor.tells(*(f"key of {name}" for name in names))
    identities = [people.refresh(people.resolve(f"key of {name}".encode()), route, now) for name in names]
    return [identity for identity in identities if identity is not None]


def count_lines(work: Callable[[], object]) -> int:
    """Return the number of lines of Python that this runs, each iteration of a loop among them."""
    lines = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.patches_methods  # The tracer does not see compiled functions.
async def test_change_of_a_customer_costs_the_same_with_thousands_of_others(edge: Edge, supervisor: Supervisor) -> None:
    await edge.starts()
    lines = []
    for begins, ends in ((0, 10), (10, 3000)):
        remember(edge, supervisor, [f"c{number}" for number in range(begins, ends)])
        lines.append(count_lines(lambda: edge.worker.generations.forget_customers(["c3", "c7"])))
    assert lines[1] < lines[0] + 50


async def test_changes_of_a_hundred_thousand_customers_are_followed_in_half_a_second(
    edge: Edge, supervisor: Supervisor
) -> None:
    await edge.starts()
    worker = edge.worker
    channel: Any = None  # These messages have no answer.
    handler = ControlHandler(channel, worker.runtime, worker.generations, worker.reload_certificates)
    changed = remember(edge, supervisor, [f"c{number}" for number in range(3000)])
    other = remember(edge, supervisor, ["o"])
    begun = process_time()
    handler._follow_urgent(ForgetCustomers([f"c{number}" for number in range(100_000)], 1))
    assert process_time() - begun < 0.5
    assert {each.valid_until for each in changed} == {identity.UNRESOLVED}
    assert other[0].valid_until > 0
    key_lookup = edge.runtime.key_lookup
    assert key_lookup.find_owner(hashed("key of c5")) is None
    assert key_lookup.find_owner(hashed("key of o")) is not None


async def test_change_reaches_an_identity_that_was_evicted_and_used_again(
    edge: Edge, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cached head of a request may have an identity that was evicted."""
    monkeypatch.setattr(identity_memory, "IDENTITY_BYTES", REMEMBERED_BYTES // 2)
    await edge.starts()
    (first,) = remember(edge, supervisor, ["c1"])
    remember(edge, supervisor, ["c2", "c3"])
    people = edge.runtime.snapshot.directory
    route = edge.runtime.snapshot.router.find_site(None).match(b"/v1/x", b"GET", GET)
    assert (first.valid_until, first.memory) == (identity.UNRESOLVED, None)
    assert people.refresh(first, route, 0.0) is first
    assert first.valid_until > 0
    edge.worker.generations.forget_customers(["c1"])
    assert first.valid_until == identity.UNRESOLVED
    assert sum(map(len, people._index._buckets.values())) == len(people._identities) == 2


async def test_evicted_identity_of_a_waiting_request_follows_a_change_of_flags(
    edge: Edge, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity_memory, "IDENTITY_BYTES", REMEMBERED_BYTES // 2)
    edge.config["routes"].append({"path": "/new/*", "upstream": "api", "flag": "new"})
    supervisor.knows()
    client = await edge.client()
    edge.worker.generations.update_flags({"new": '{"customers": ["dora"]}'})
    assert await supervisor.meets(client, path="/new/x") == 200
    edge.worker.generations.forget_customers(["dora"])
    await client.sends(request("/new/x", key=MINE))
    await supervisor.is_asked(MINE)
    remember(edge, supervisor, ["c1", "c2"])
    edge.worker.generations.update_flags({"new": "{}"})
    supervisor.tells(MINE)
    assert (await client.gets_answer()).status == 404
    assert (await asks(client, "/new/x", key=MINE)).status == 404


def test_identities_of_one_customer_leave_the_index_in_constant_time() -> None:
    index, owner = identity.CustomerIndex(), KeyOwner("c1", "", "")
    identities = [UnresolvedIdentity(b"", b"") for _ in range(20_000)]
    begun = process_time()
    for each in identities:
        each.owner = owner
        index.add(each)
    for each in reversed(identities):
        index.remove(each)
    assert process_time() - begun < 0.5
    assert not list(index.find_identities(["c1"]))


async def test_a_revocation_clears_all_caches(edge: Edge, supervisor: Supervisor) -> None:
    """The test sends identical requests over one connection, so that all caches could answer."""
    supervisor.knows()
    client = await edge.client()
    assert await supervisor.meets(client) == 200
    assert [(await asks(client, key=MINE)).status for _ in range(3)] == [200] * 3
    del supervisor.people[hashed(MINE)]
    edge.worker.generations.forget_customers(["dora"])
    assert await supervisor.meets(client) == 401
    assert (await asks(client, key=MINE)).status == 401


async def test_an_expired_cache_entry_is_used_while_its_key_is_looked_up_again(
    edge: Edge, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "STALE_SECONDS", -1.0)
    supervisor.knows()
    client = await edge.client()
    assert await supervisor.meets(client) == 200
    binding = bindings(edge)
    a_minute_passes(edge)
    for _ in range(2):
        assert (await asks(client, key=MINE)).status == 200, "no look-up waits"
    await supervisor.is_asked(MINE)
    supervisor.tells(MINE)
    assert (await asks(client, key=MINE)).status == 200
    assert bindings(edge) == binding, "the bindings are kept"
    a_minute_passes(edge)
    supervisor.knows(customer={"tier": "free"})
    assert (await asks(client, key=MINE)).status == 200
    await supervisor.is_asked(MINE)
    supervisor.tells(MINE)
    assert not (await asks(client, key=MINE)).all("RateLimit"), "the new tier has no limit"
    a_minute_passes(edge)
    del supervisor.people[hashed(MINE)]
    assert (await asks(client, key=MINE)).status == 200
    await supervisor.is_asked(MINE)
    supervisor.tells(MINE)
    assert (await asks(client, key=MINE)).status == 401


def a_minute_passes(edge: Edge) -> None:
    told = edge.runtime.key_lookup._owners
    for key, known in told.items():
        told[key] = known._replace(fetched_at=known.fetched_at - 61)
    edge.passes_time(61)


def bindings(edge: Edge) -> list[int]:
    """Return the ids of the route bindings of keys from the directory."""
    known = edge.runtime.snapshot.directory._identities.values()
    return [
        id(binding)
        for identity in known
        if isinstance(identity, UnresolvedIdentity)
        for binding in identity.list_bindings()
    ]


async def test_an_expired_key_of_the_directory_answers_401(edge: Edge, supervisor: Supervisor) -> None:
    client = await edge.client()
    supervisor.knows("old", expires="2025-06-01")
    assert await supervisor.meets(client, "old") == 401
    assert edge.count("edge_auth_failures_total", "expired") == 1


async def test_scopes_pauses_and_regions_apply_to_keys_of_the_directory(edge: Edge, supervisor: Supervisor) -> None:
    client = await edge.client()
    supervisor.knows("reads", scopes=["read"])
    assert await supervisor.meets(client, "reads", "/read/x") == 200
    supervisor.knows()
    assert await supervisor.meets(client, MINE, "/read/x") == 403
    supervisor.knows("pays-not", "eve", {"tier": "free", "paused": {"why": "unpaid", "status": 402}})
    assert await supervisor.meets(client, "pays-not") == 402
    supervisor.knows("abroad", "fay", {"tier": "free", "regions": {"allow": ["moon"]}})
    assert await supervisor.meets(client, "abroad") == 403


async def test_a_worker_without_a_supervisor_serves_cached_keys(edge: Edge, supervisor: Supervisor) -> None:
    supervisor.knows()
    client, waiting = await edge.client(), await edge.client()
    assert await supervisor.meets(client) == 200
    await waiting.sends(request(key="another"))
    await supervisor.is_asked("another")
    edge.runtime.key_lookup.on_supervisor_lost()
    assert (await waiting.gets_answer()).status == 503, "at once"
    edge.passes_time(1000)
    assert (await asks(client, key=MINE)).status == 200
    assert (await asks(client, key="a third")).status == 503
    assert not supervisor.asked()


# ---- plans that the edge must know


@pytest.mark.parametrize(
    ("customer", "key"),
    [
        ({"tier": "gold"}, {}),
        ({"tier": "basic", "quotas": [{"meter": "tokens", "per": "day", "included": 1}]}, {}),
        ({"tier": "basic", "of_a_later_version": 1}, {}),
        ({"tier": "basic"}, {"of_a_later_version": 1}),
    ],
)
async def test_a_customer_with_an_unknown_plan_is_not_served(
    edge: Edge, supervisor: Supervisor, customer: Any, key: Any
) -> None:
    supervisor.knows(customer=customer, **key)
    client = await edge.client()
    assert await supervisor.meets(client) == 503
    answer = await asks(client, key=MINE)
    assert is_problem(answer, 503)["detail"] == "This edge does not know the plan of this customer"
    assert answer["Retry-After"] == "30"
    assert edge.count("edge_auth_failures_total", "unserved") == 2
    assert (await asks(client, "/public/x", key=MINE)).status == 200
    assert edge.usage() == {("-", "requests", "public"): 1}


async def test_a_customer_of_the_files_is_not_looked_up(edge: Edge, supervisor: Supervisor) -> None:
    supervisor.knows(name="acme", customer={"tier": "free"})
    supervisor.knows(KEY, "eve", {"tier": "free"})
    client = await edge.client()
    assert await supervisor.meets(client) == 401
    assert (await asks(client, key=KEY))["RateLimit"], "the file's key keeps its customer"
    assert not supervisor.asked()


async def test_a_request_that_waits_during_a_reload_uses_the_new_configuration(
    edge: Edge, supervisor: Supervisor
) -> None:
    supervisor.knows()
    client, removed = await edge.client(), await edge.client()
    await client.sends(request(key=MINE))
    await supervisor.is_asked(MINE)
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "7/min"}]}
    await edge.reloads()
    supervisor.tells(MINE)
    assert "r=6" in (await client.gets_answer())["RateLimit"]
    await removed.sends(request(key="another"))
    await supervisor.is_asked("another")
    del edge.config["directory"]
    await edge.reloads()
    supervisor.tells("another")
    assert (await removed.gets_answer()).status == 401
    assert (await asks(client, key=MINE)).status == 401, "the directory is no longer configured"
    edge.config["directory"] = {"from": "hub"}
    await edge.reloads()
    assert (await asks(client, key=MINE)).status == 200


# ---- bounds of lookups


async def test_guessed_keys_use_bounded_memory_and_block_no_known_key(
    edge: Edge, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_lookup, "PENDING_KEYS_MAX", 3)
    monkeypatch.setattr(key_lookup, "KEYS_MAX", 5)
    edge.config["trusted_proxies"] = ["127.0.0.1"]
    supervisor.knows()
    client, known = await edge.client(), await edge.client()
    there = edge.runtime.key_lookup
    there._places.amount = 15  # An address gets 3 of them.
    assert await supervisor.meets(known) == 200
    waiting = []
    for n in range(3):
        waiting.append(await edge.client())
        await waiting[-1].sends(request(key=f"guess-{n}"))
    await supervisor.is_asked("guess-0", "guess-1", "guess-2")
    assert (await asks(client, key="one too many")).status == 503
    assert (await asks(known, key=MINE)).status == 200
    supervisor.knows("another")
    elsewhere = await edge.client()
    await elsewhere.sends(get("/v1/x", "Authorization: Bearer another", "X-Forwarded-For: 192.0.2.9"))
    await supervisor.is_asked("another")
    supervisor.tells("another")
    assert (await elsewhere.gets_answer()).status == 200, "another address has its own share"
    edge.worker.generations.forget_customers(None)
    assert await supervisor.meets(known) == 200, "a cached key keeps its place"
    supervisor.tells("guess-0", "guess-1", "guess-2")
    assert [(await each.gets_answer()).status for each in waiting] == [401] * 3
    for n in range(20):
        assert await supervisor.meets(client, f"more-{n}") == 401
    assert len(there._unknown) == 5
    assert len(there._owners) == 2
    assert there._places.in_use == len(there._claims) == 0
    assert not there._waiting


async def test_a_known_key_whose_owner_is_not_cached_is_looked_up_beside_guesses(
    edge: Edge, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_lookup, "KEYS_MAX", 1)
    supervisor.knows()
    supervisor.knows("another")
    client = await edge.client()
    there = edge.runtime.key_lookup
    there._places.amount = 15  # An address gets 3 of them.
    assert await supervisor.meets(client) == 200
    assert await supervisor.meets(client, "another") == 200
    assert len(there._owners) == 1, "the owner of the first key is dropped, and its identity is not"
    for n in range(3):
        guessing = await edge.client()
        await guessing.sends(request(key=f"guess-{n}"))
    await supervisor.is_asked("guess-0", "guess-1", "guess-2")
    for one in edge.runtime.snapshot.directory._identities.values():
        one.valid_until = -1.0
    assert (await asks(await edge.client(), key="one too many")).status == 503
    assert await supervisor.meets(client) == 200


async def test_lookups_are_batched_and_repeated_until_they_are_sent(edge: Edge) -> None:
    taken: list[LookUpKeys] = []
    offers: list[int] = []

    def offer(message: LookUpKeys) -> bool:
        offers.append(len(message.digests))
        if len(offers) > 2:
            taken.append(message)
        return len(offers) > 2

    there = KeyLookup(offer)
    for n in range(5):
        assert there.look_up(b"%d" % n)
        assert there.look_up(b"%d" % n), "a repeated lookup is accepted"
    await edge.until(lambda: taken, "the lookups are sent")
    assert offers == [5, 5, 5]
    assert taken == [LookUpKeys([b"%d" % n for n in range(5)])]


async def test_a_forgotten_customer_leaves_no_objects(edge: Edge, supervisor: Supervisor) -> None:
    supervisor.knows()
    client = await edge.client()
    assert await supervisor.meets(client) == 200
    assert (await client.asks(get("/v1/x", f"Authorization: Bearer {MINE}"))).status == 200
    del supervisor.people[hashed(MINE)]
    edge.worker.generations.forget_customers(["dora"])
    assert await supervisor.meets(client) == 401
    gc.collect()
    assert not [
        object_ for object_ in gc.get_objects() if isinstance(object_, UnresolvedIdentity) and object_.owner is not None
    ]
