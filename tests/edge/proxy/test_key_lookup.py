"""Customers who are in no file: the supervisor is asked, requests wait, and what was told is remembered."""

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config.directory import KeyOwner
from edgeproxy.edge.messages import KeysLookedUp, LookUpKeys
from edgeproxy.edge.proxy import identity, key_lookup
from edgeproxy.edge.proxy.identity import UnresolvedIdentity
from edgeproxy.edge.proxy.key_lookup import KeyLookup
from tests.edge.proxy.asking import asks, is_problem, request
from tests.support.transcript import KEY, Edge, digest, get, ok, post
from tests.support.wire import Wire

MINE = "key-of-dora"
"""A key of `dora`, whom the directory knows."""
DORA = {"tier": "basic"}


def hashed(key: str) -> bytes:
    """A key as workers and supervisors name it."""
    return bytes.fromhex(digest(key))


class Supervisor:
    """What an edge asks, and what it is told. The test is its supervisor."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.people: dict[bytes, KeyOwner] = {}
        """By digest."""

    def knows(self, key: str = MINE, name: str = "dora", customer: Any = DORA, **said: Any) -> None:
        """Somebody is in the directory."""
        self.people[hashed(key)] = KeyOwner(name, json.dumps(customer), json.dumps(said))

    def asked(self) -> list[bytes]:
        """The digests that it was asked for so far, in the order of the questions."""
        return [key for message in self.edge.inquiries for key in message.digests]

    async def is_asked(self, *keys: str) -> None:
        """Wait until these are what it was asked for since this was looked at last."""
        await self.edge.until(lambda: len(self.asked()) >= len(keys), "the supervisor is asked")
        assert self.asked() == [hashed(key) for key in keys]
        self.edge.inquiries.clear()

    def tells(self, *keys: str, untold: bool = False) -> None:
        """Answer for these."""
        digests = [hashed(key) for key in keys]
        known = {each: self.people[each] for each in digests if each in self.people and not untold}
        unknown = [each for each in digests if each not in self.people and not untold]
        self.edge.runtime.key_lookup.on_answer(KeysLookedUp(known, unknown, digests if untold else []))

    async def meets(self, client: Wire, key: str = MINE, path: str = "/v1/x") -> int:
        """The status of a first request with this key."""
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


async def test_the_first_request_waits_and_those_after_it_do_not(edge: Edge, supervisor: Supervisor) -> None:
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


async def test_a_key_in_the_query_is_asked_for_too(edge: Edge, supervisor: Supervisor) -> None:
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


async def test_of_all_who_wait_for_a_key_one_asks(edge: Edge, supervisor: Supervisor) -> None:
    supervisor.knows()
    clients = [await edge.client() for _ in range(20)]
    for client in clients:
        await client.sends(request(key=MINE))
    await edge.until(lambda: len(edge.runtime.key_lookup._waiting.get(hashed(MINE), ())) == 20, "all wait")
    await supervisor.is_asked(MINE)
    supervisor.tells(MINE)
    assert [(await client.gets_answer()).status for client in clients] == [200] * 20
    known = edge.runtime.snapshot.directory._identities
    assert len(known) == 1


async def test_what_comes_behind_a_request_that_waits_is_served_after_it(edge: Edge, supervisor: Supervisor) -> None:
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


async def test_who_was_unknown_is_asked_for_again_after_a_while(
    edge: Edge, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_lookup, "UNKNOWN_SECONDS", 0.3)
    client = await edge.client()
    assert await supervisor.meets(client) == 401
    supervisor.knows()
    await edge.until(lambda: not edge.runtime.key_lookup.is_unknown(hashed(MINE)), "it is forgotten")
    assert await supervisor.meets(client) == 200


async def test_without_an_answer_a_request_is_refused_in_time(edge: Edge, supervisor: Supervisor) -> None:
    client = await edge.client()
    answer = await asks(client, key=MINE)
    said = is_problem(answer, 503)
    assert said["detail"] == "This edge cannot tell at the moment whose this API key is"
    assert answer["Retry-After"] == "1"
    assert edge.count("edge_auth_failures_total", "untold") == 1
    supervisor.knows()
    supervisor.tells(MINE)
    assert (await asks(client, key=MINE)).status == 200, "the answer was late, and counts"


async def test_a_supervisor_that_cannot_tell_is_left_alone_for_a_moment(edge: Edge, supervisor: Supervisor) -> None:
    client = await edge.client()
    await client.sends(request(key=MINE))
    await supervisor.is_asked(MINE)
    supervisor.tells(MINE, untold=True)
    assert (await client.gets_answer()).status == 503
    assert (await asks(client, key="another")).status == 503
    assert not supervisor.asked()
    assert (await asks(client, key=KEY)).status == 200, "whom the files know, is served"


async def test_who_has_left_waits_no_more(edge: Edge, supervisor: Supervisor, tmp_path: Path) -> None:
    edge.config["access_log"] = str(tmp_path / "access.log")
    supervisor.knows()
    client = await edge.client()
    await client.sends(request(key=MINE))
    await supervisor.is_asked(MINE)
    client.aborts()
    asked = edge.runtime.key_lookup._waiting
    await edge.until(lambda: not any(asked.values()), "nobody waits")
    supervisor.tells(MINE)
    assert not asked
    await edge.settles()
    assert not edge.upstream.requests
    edge.worker.close_access_logs()
    (line,) = map(json.loads, (tmp_path / "access.log").read_text().splitlines())
    assert (line["route"], line["aborted"]) == ("v1", True)
    assert line["request_id"]


async def test_a_route_that_looks_at_no_key_asks_for_none(edge: Edge, supervisor: Supervisor) -> None:
    client = await edge.client()
    assert (await asks(client, "/public/x", key=MINE)).status == 200
    assert (await asks(client, "/nowhere", key=MINE)).status == 404
    assert not supervisor.asked()


async def test_the_guard_comes_before_any_question(edge: Edge, supervisor: Supervisor) -> None:
    edge.config["per_ip"] = {"rate": "1/min"}
    client = await edge.client()
    assert await supervisor.meets(client, "guess") == 401
    assert (await asks(client, key="another guess")).status == 429
    assert not supervisor.asked()


# ---- what holds for how long


async def test_a_customer_who_changed_is_asked_for_anew_and_others_are_not(edge: Edge, supervisor: Supervisor) -> None:
    supervisor.knows()
    supervisor.knows("of-eve", "eve", {"tier": "free"})
    client = await edge.client()
    assert await supervisor.meets(client) == 200
    assert await supervisor.meets(client, "of-eve") == 200
    supervisor.knows(customer={"tier": "free"})
    edge.worker.generations.forget_customers(["dora", "whoever"])
    assert not any((*edge.runtime.snapshot.heads, *edge.runtime.snapshot.whole_heads))
    assert (await asks(client, key="of-eve")).status == 200
    assert not supervisor.asked()
    assert await supervisor.meets(client) == 200
    assert not (await asks(client, key=MINE)).all("RateLimit")
    del supervisor.people[hashed(MINE)]
    edge.worker.generations.forget_customers(None)
    assert await supervisor.meets(client) == 401
    assert await supervisor.meets(client, "of-eve") == 200


async def test_a_revocation_ends_what_every_memory_has(edge: Edge, supervisor: Supervisor) -> None:
    """Over the same connection, with the same bytes."""
    supervisor.knows()
    client = await edge.client()
    assert await supervisor.meets(client) == 200
    assert [(await asks(client, key=MINE)).status for _ in range(3)] == [200] * 3
    del supervisor.people[hashed(MINE)]
    edge.worker.generations.forget_customers(["dora"])
    assert await supervisor.meets(client) == 401
    assert (await asks(client, key=MINE)).status == 401


async def test_after_its_time_a_key_goes_on_while_the_supervisor_is_asked(
    edge: Edge, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "STALE_SECONDS", -1.0)
    supervisor.knows()
    client = await edge.client()
    assert await supervisor.meets(client) == 200
    binding = bindings(edge)
    a_minute_passes(edge)
    for _ in range(2):
        assert (await asks(client, key=MINE)).status == 200, "nobody waits"
    await supervisor.is_asked(MINE)
    supervisor.tells(MINE)
    assert (await asks(client, key=MINE)).status == 200
    assert bindings(edge) == binding, "with what it had"
    a_minute_passes(edge)
    supervisor.knows(customer={"tier": "free"})
    assert (await asks(client, key=MINE)).status == 200
    await supervisor.is_asked(MINE)
    supervisor.tells(MINE)
    assert not (await asks(client, key=MINE)).all("RateLimit"), "another tier"
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
    """Which route bindings strangers have."""
    known = edge.runtime.snapshot.directory._identities.values()
    return [id(binding) for each in known if isinstance(each, UnresolvedIdentity) for binding in each.bindings.values()]


async def test_a_key_ends_at_its_time(edge: Edge, supervisor: Supervisor) -> None:
    client = await edge.client()
    supervisor.knows("old", expires="2025-06-01")
    assert await supervisor.meets(client, "old") == 401
    assert edge.count("edge_auth_failures_total", "expired") == 1


async def test_scopes_pauses_and_regions_hold_as_in_the_files(edge: Edge, supervisor: Supervisor) -> None:
    client = await edge.client()
    supervisor.knows("reads", scopes=["read"])
    assert await supervisor.meets(client, "reads", "/read/x") == 200
    supervisor.knows()
    assert await supervisor.meets(client, MINE, "/read/x") == 403
    supervisor.knows("pays-not", "eve", {"tier": "free", "paused": {"why": "unpaid", "status": 402}})
    assert await supervisor.meets(client, "pays-not") == 402
    supervisor.knows("abroad", "fay", {"tier": "free", "regions": {"allow": ["moon"]}})
    assert await supervisor.meets(client, "abroad") == 403


async def test_orphans_know_whom_they_knew(edge: Edge, supervisor: Supervisor) -> None:
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


# ---- what the edge itself has to know


@pytest.mark.parametrize(
    ("customer", "key"),
    [
        ({"tier": "gold"}, {}),
        ({"tier": "basic", "quotas": [{"meter": "tokens", "per": "day", "included": 1}]}, {}),
        ({"tier": "basic", "of_a_later_version": 1}, {}),
        ({"tier": "basic"}, {"of_a_later_version": 1}),
    ],
)
async def test_nobody_is_served_without_what_holds_them(
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


async def test_whom_the_files_name_they_name_whole(edge: Edge, supervisor: Supervisor) -> None:
    supervisor.knows(name="acme", customer={"tier": "free"})
    supervisor.knows(KEY, "eve", {"tier": "free"})
    client = await edge.client()
    assert await supervisor.meets(client) == 401
    assert (await asks(client, key=KEY))["RateLimit"], "the file's key, and its customer"
    assert not supervisor.asked()


async def test_a_request_that_waits_over_a_reload_is_served_by_what_serves_then(
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
    assert (await asks(client, key=MINE)).status == 401, "there is no directory any more"
    edge.config["directory"] = {"from": "hub"}
    await edge.reloads()
    assert (await asks(client, key=MINE)).status == 200


# ---- what may be asked


async def test_a_flood_of_guesses_fills_no_memory_and_stops_nobody(
    edge: Edge, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_lookup, "PENDING_KEYS_MAX", 3)
    monkeypatch.setattr(key_lookup, "KEYS_MAX", 5)
    edge.config["trusted_proxies"] = ["127.0.0.1"]
    supervisor.knows()
    client, known = await edge.client(), await edge.client()
    there = edge.runtime.key_lookup
    there._places.amount = 15  # Of which an address gets 3.
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
    assert (await elsewhere.gets_answer()).status == 200, "another address has a share of its own"
    edge.worker.generations.forget_customers(None)
    assert await supervisor.meets(known) == 200, "who was known has a place still"
    supervisor.tells("guess-0", "guess-1", "guess-2")
    assert [(await each.gets_answer()).status for each in waiting] == [401] * 3
    for n in range(20):
        assert await supervisor.meets(client, f"more-{n}") == 401
    assert len(there._unknown) == 5
    assert len(there._owners) == 2
    assert there._places.in_use == len(there._claims) == 0
    assert not there._waiting


async def test_questions_go_out_together_and_again_until_they_are_taken(edge: Edge) -> None:
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
        assert there.look_up(b"%d" % n), "the same once more"
    await edge.until(lambda: taken, "they are taken")
    assert offers == [5, 5, 5]
    assert taken == [LookUpKeys([b"%d" % n for n in range(5)])]


async def test_nothing_of_who_was_forgotten_stays(edge: Edge, supervisor: Supervisor) -> None:
    supervisor.knows()
    client = await edge.client()
    assert await supervisor.meets(client) == 200
    assert (await client.asks(get("/v1/x", f"Authorization: Bearer {MINE}"))).status == 200
    del supervisor.people[hashed(MINE)]
    edge.worker.generations.forget_customers(["dora"])
    assert await supervisor.meets(client) == 401
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, UnresolvedIdentity) and each.owner is not None]
