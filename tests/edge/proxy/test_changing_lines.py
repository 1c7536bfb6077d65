"""On a connection whose requests differ in some header lines, earlier requests do not change how one is read."""

import json
import random
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hpack import NeverIndexedHeaderTuple

from edgeproxy.base.lru_cache import BytesCache
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.lines import RequestLines
from edgeproxy.edge.http1.request import PLAIN, read_fields
from edgeproxy.edge.proxy.connections.client import Client
from edgeproxy.edge.proxy.exchange import snapshot as snapshots
from edgeproxy.edge.proxy.exchange.exchange import Exchange
from edgeproxy.edge.proxy.exchange.snapshot import Snapshot
from edgeproxy.edge.proxy.routing.router import NO_SITE
from edgeproxy.edge.proxy.routing.token_verifier import parse_keys
from tests.edge.proxy.authority import Authority
from tests.support.http2_wire import http2
from tests.support.transcript import EXPIRED, KEY, READER, UNLIMITED, Edge, digest, get, ok, post
from tests.support.wire import Message, Wire

OWN = {"x-request-id", "traceparent"}
"""Fields that the edge generates anew for each request."""
NAMES = ("X-Seq", "x-seq", "Cookie", "If-None-Match", "X-Customer-Id", "Accept-Language", "X-Forwarded-Host")
VALUES = ("1", "a=1; b=2", "", "\t", "edge.test", '"e"', "é", "\x00", "a\rb", "x" * 300, "100")
ODD = (
    *("Connection: X-Seq", "Connection: cookie, close", "Connection: keep-alive", " folded: 1", "tracestate: a=1"),
    *("X-API-Key: nobody's", "Content-Length: 0", "Host: edge.test", "Host: other.test", "X-Seq : 1"),
    *("Transfer-Encoding: gzip", "TE: trailers", "X_Seq: 1", "traceparent: 00-1-2-01", "Via: 1.1 other", "no colon"),
)


def echo(request: Message) -> bytes:
    """Answer with the sorted request as the upstream received it, without the fields in OWN."""
    fields = sorted(request.fields, key=lambda field: field[0].lower())  # The sort is stable.
    told = [f"{name}: {value}" for name, value in fields if name.lower() not in OWN]
    traces = [value[:35] for name, value in request.fields if name == "traceparent"]
    return ok("\n".join([request.first, *told, *traces]).encode("latin-1"))


def trace(chance: random.Random) -> str:
    return f"traceparent: 00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-0{chance.choice('0129')}"


def request(chance: random.Random, usual: list[str]) -> bytes:
    """Return a request head with the `usual` lines and some lines that change with each request."""
    seq = chance.choice(VALUES) if chance.random() < 0.1 else chance.getrandbits(40)
    lines = [*usual, trace(chance), f"X-Seq: {seq}", f"Cookie: seen={chance.getrandbits(40)}"]
    if chance.random() < 0.5:
        chance.shuffle(lines)
    for _ in range(chance.choice((0, 0, 0, 0, 0, 1, 2))):
        odd = chance.choice((chance.choice(ODD), trace(chance), f"{chance.choice(NAMES)}: {chance.choice(VALUES)}"))
        lines.insert(chance.randrange(len(lines) + 1), odd)
    if chance.random() < 0.1:
        lines.remove(chance.choice(lines))
    if chance.random() < 0.05:
        lines += ["X-More: 1"] * chance.choice((92, 93, 94, 95, 96))
    head = "".join(f"{line}\r\n" for line in (f"GET /v1/{chance.getrandbits(20)}?q=1 HTTP/1.1", *lines))
    return head.encode("latin-1") + b"\r\n"


async def ask(client: Wire, head: bytes) -> tuple[int, bytes | None, bool]:
    """Return the status, the request as the upstream received it, and whether the edge closes the connection."""
    answer = await client.asks(head)
    told, _, continued = answer.body.rpartition(b"\n")
    told += continued if continued in head else b"a trace of its own"
    return answer.status, told if answer.status == 200 else None, "Connection" in answer


async def test_a_request_is_read_alike_on_a_used_and_a_new_connection(edge: Edge, seed: int) -> None:
    chance = random.Random(seed)
    edge.upstream.answers(echo)
    client, read = await edge.client(), set()
    usual = ["Host: edge.test", "Accept: */*", f"Authorization: Bearer {UNLIMITED}", "User-Agent: a client"]
    for number in range(800):
        if number == 500:
            edge.config["strip"] = ["x-seq"]
            await edge.reloads()
        head = request(chance, usual)
        meant = await ask(client, head)  # On a new connection, all lines are new to the edge.
        alone = await edge.client()
        assert await ask(alone, head) == meant, head
        alone.closes()
        read.add(meant[0])
        if meant[2]:
            client.closes()
            client = await edge.client()
    assert {200, 400, 401, 431} <= read
    assert edge.runtime.snapshot.rests, "the edge cached no head without its changing lines"


async def test_each_http2_stream_reaches_the_upstream_with_its_own_fields(edge: Edge, seed: int) -> None:
    chance = random.Random(seed)
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.upstream.answers(echo)
    client = await http2(edge)
    for number in range(6):
        parent = trace(chance).partition(": ")[2]
        answer = await client.asks("/public/x", ("traceparent", parent), ("x-seq", str(number)))
        told = answer.body.decode().split("\n")
        assert (told[-1], f"x-seq: {number}" in told, "Via: 2.0 edgeproxy" in told) == (parent[:35], True, True), told
    assert edge.runtime.snapshot.rests


KEYS = (KEY, UNLIMITED, READER, EXPIRED, "nobody's", "", "Bearer x", "with space", "é", "\x00", " first", "\tlast\t")
KEY_LINES = (
    *("Authorization: Bearer ", "authorization: Bearer ", "X-API-Key: ", "x-api-key: ", "X-Api-Key: "),
    *("Authorization: bearer ", "Authorization:Bearer ", "Authorization: Basic ", "X_API_Key: ", "X-API-Key:"),
)


def read_as_a_whole(snapshot: Snapshot, block: bytes) -> tuple[object, ...]:
    """Read a header block without any cache. Return its meaning, or the status and the reason of its rejection."""
    most, rules = snapshot.head_limits.fields, RequestLines(snapshot.lines.rules)
    try:
        host, key, credentials, keep, length, trace, head = read_fields(block, False, most, rules)
    except RejectedError as error:
        return error.status, str(error)
    found = snapshot.directory.resolve(key)
    return found, host is not None, credentials, sorted(keep.split(b"\r\n")), length, trace, head is PLAIN


def read(snapshot: Snapshot, client: Client, block: bytes, path: bytes) -> tuple[object, ...]:
    """Read a request as a client's connection does, with its caches. Return the meaning of its header block."""
    data = b"GET %b HTTP/1.1\r\n%b\r\n" % (path, block)
    seen = None if client.expects_new_head else snapshot.whole_heads[client.trusted].get(data)
    if seen is None and client.key_place is not None and not client.expects_new_head:
        seen = snapshot.recall_keyed_head(data, client.key_place)
    request = Exchange(client, client.runtime)
    try:
        request.read_request(data, len(data) - 4, seen)
    except RejectedError as error:
        return error.status, str(error)
    if request.site is not NO_SITE:
        assert (request.method, request.path) == (b"GET", path)
        assert request.request_line == data[: -len(block) - 2]
    if seen is not None:
        assert data.find(b"\r\n\r\n") == len(data) - 4
    # The edge forwards changing lines after the others, so the lines are compared sorted.
    keep, is_plain = sorted(request.keep.split(b"\r\n")), request.head is PLAIN
    return (
        request.identity,
        request.site is not NO_SITE,
        request.credentials,
        keep,
        request.length,
        request.trace,
        is_plain,
    )


async def test_a_cached_block_never_resolves_to_the_key_of_another_customer(edge: Edge, seed: int) -> None:
    (await edge.client()).closes()
    chance, snapshot = random.Random(seed), edge.runtime.snapshot
    clients = [Client(edge.runtime, "192.0.2.1", b"") for _ in range(40)]
    for client in clients:
        client.trusted, client.key_place = False, None
    programs = [["Host: edge.test", "Accept: */*", f"User-Agent: program {number}"] for number in range(4)]
    refused = 0
    for _ in range(6000):
        lines = list(chance.choice(programs))
        for _ in range(chance.choice((0, 1, 1, 1, 1, 1, 1, 2))):
            line = chance.choice(KEY_LINES[:1] * 10 + KEY_LINES) + chance.choice(KEYS)
            lines.insert(chance.randrange(len(lines) + 1), line)
        if chance.random() < 0.1:
            lines.insert(chance.randrange(len(lines) + 1), chance.choice(ODD))
        if chance.random() < 0.02:
            lines += ["X-More: 1"] * chance.choice((94, 95, 96, 97))
        if chance.random() < 0.2:
            lines += [trace(chance), f"X-Seq: {chance.getrandbits(40)}"][chance.randrange(2) :]
        block, client = "".join(f"{line}\r\n" for line in lines).encode("latin-1"), chance.choice(clients)
        expected = read_as_a_whole(snapshot, block)
        refused += len(expected) == 2
        path = chance.choice((b"/v1/x", b"/v1/longer", b"/v1/%d" % chance.getrandbits(20)))
        assert read(snapshot, client, block, path) == expected, block
    assert refused > 50
    assert len(snapshot.shared) > 3
    assert len(snapshot.keyed_heads) > 3


async def test_customers_with_equal_header_lines_share_a_cached_block(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(dict(request.fields)["X-Customer-Id"].encode()))
    for key, name in ((UNLIMITED, b"free"), (KEY, b"acme")) * 4:
        client = await edge.client()
        assert (await client.asks(get("/v1/x", f"Authorization: Bearer {key}"))).body == name
        client.closes()
    assert len(edge.runtime.snapshot.shared) == 1
    client = await edge.client()
    assert (await client.asks(get("/v1/x", "Authorization: Bearer nobodys"))).status == 401


class NoCache(BytesCache[Any]):
    """A cache of heads that holds nothing."""

    __slots__ = ()

    def store(self, key: bytes, value: Any) -> Any:
        return value

    def admit(self, key: bytes, value: Any) -> Any:
        return value


def name_sender(request: Message) -> bytes:
    """Answer with the customer, the path, the presence of a key, and the body, as the upstream received them."""
    fields = {name.lower(): value for name, value in request.fields}
    has_key = "authorization" in fields or "x-api-key" in fields
    parts = [fields.get("x-customer-id", "-"), fields.get("x-customer-tier", "-"), request.first, str(has_key)]
    return ok("|".join(parts).encode() + b"|" + request.body)


NAMES_BY_KEY = {KEY: b"acme", UNLIMITED: b"free"} | {f"key {number}": b"c%d" % number for number in range(10)}


@pytest.fixture
def crowded(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Edge:
    """An edge with the customers of NAMES_BY_KEY. Most of their heads are cached without their key."""
    monkeypatch.setattr(snapshots, "WHOLE_KEYED_MAX", 4)
    edge.config["tiers"]["basic"] = {}
    for key, name in [*NAMES_BY_KEY.items()][2:]:
        edge.config["customers"][name.decode()] = {"tier": "free"}
        edge.config["keys"].append({"sha256": digest(key), "customer": name.decode()})
    edge.upstream.answers(name_sender)
    return edge


async def test_pipelined_and_split_heads_are_answered_as_without_caches(
    crowded: Edge, edge: Edge, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    bearers = {key: f"Authorization: Bearer {key}" for key in (*NAMES_BY_KEY, "nobodys")}
    messages: list[tuple[str, bytes]] = []
    splits: list[int] = []
    for _ in range(150):
        key, path = chance.choice([*NAMES_BY_KEY] * 4 + ["nobodys"]), chance.choice(("/v1/x", "/v1/longer"))
        other = get("/v1/x", bearers[chance.choice([*NAMES_BY_KEY])])
        has_body = key != "nobodys" and chance.random() < 0.3  # The body is a cached head of some customer.
        messages.append((key, post(other, path, bearers[key]) if has_body else get(path, bearers[key])))
    stream = b"".join(data for _, data in messages)
    while sum(splits) < len(stream):
        splits.append(chance.choice((1, 50, 100, 400, 3000)))

    async def exchange() -> list[tuple[int, bytes]]:
        answers, rest, client = [], stream, await edge.client()
        for size in splits:
            await client.sends(rest[:size])
            rest = rest[size:]
            await edge.settles()
        for key, data in messages:
            answer = await client.gets_answer()
            answers.append((answer.status, answer.body if answer.status == 200 else b""))
            if key in NAMES_BY_KEY:
                assert answer.body.partition(b"|")[0] == NAMES_BY_KEY[key], data
                assert answer.body.endswith(b"|" + data.partition(b"\r\n\r\n")[2])
        # Each place of a split, between two cached heads of different customers.
        for at in range(1, len(get("/v1/x", bearers["key 9"]))):
            for key, name in [*NAMES_BY_KEY.items()][-2:]:
                data = get("/v1/x", bearers[key])
                await client.sends(data[:at])
                await edge.settles()
                await client.sends(data[at:])
                assert (await client.gets_answer()).body.partition(b"|")[0] == name, at
        client.closes()
        return answers

    (await edge.client()).closes()
    for _ in range(2):
        cached = await exchange()
        assert edge.runtime.snapshot.keyed_heads
    monkeypatch.setattr(snapshots, "BytesCache", NoCache)
    await edge.reloads()
    assert await exchange() == cached
    assert not edge.runtime.snapshot.keyed_heads
    assert not edge.runtime.snapshot.heads[False]


async def test_removed_key_and_moved_customer_are_seen_where_heads_are_cached(crowded: Edge, edge: Edge) -> None:
    heads = {key: get("/v1/x", f"Authorization: Bearer {key}") for key in NAMES_BY_KEY}

    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    client, streams = await edge.client(), await http2(edge)

    async def ask(key: str) -> list[tuple[int, bytes]]:
        line = ("authorization", f"Bearer {key}")
        answers = await client.asks(heads[key]), await streams.asks("/v1/x", line)
        return [
            (answer.status, b"|".join(answer.body.split(b"|")[:2]) if answer.status == 200 else b"")
            for answer in answers
        ]

    async def check(expected: dict[str, tuple[int, bytes]]) -> None:
        for _ in range(3):
            for key, answer in expected.items():
                assert await ask(key) == [answer] * 2

    everybody = {key: (200, name + b"|free") for key, name in NAMES_BY_KEY.items()}
    await check(everybody | {KEY: (200, b"acme|basic")})
    assert edge.runtime.snapshot.keyed_heads
    edge.config["customers"]["acme"] = {"tier": "free"}
    await edge.reloads()
    await check(everybody)
    keys = edge.config["keys"]
    edge.config["keys"] = [key for key in keys if key["customer"] != "acme"]
    await edge.reloads()
    await check(everybody | {KEY: (401, b"")})
    edge.config["keys"] = [*edge.config["keys"], {**keys[0], "customer": "free"}]
    await edge.reloads()
    await check(everybody | {KEY: (200, b"free|free")})


async def test_each_http2_stream_is_of_the_customer_whose_key_it_sends(crowded: Edge, edge: Edge, seed: int) -> None:
    """Keys in fields that are never indexed, and keys in the dynamic table."""
    chance = random.Random(seed)
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    client = await http2(edge)
    for _ in range(40):
        sent = []
        for _ in range(chance.randrange(1, 6)):
            key = chance.choice([*NAMES_BY_KEY, *NAMES_BY_KEY, "nobodys", ""])
            # The library never indexes Authorization.
            bearer, indexed = ("authorization", f"Bearer {key}"), ("x-api-key", key)
            field: Any = chance.choice((bearer, bearer, indexed, NeverIndexedHeaderTuple(*indexed)))
            path = chance.choice(("/v1/x", f"/v1/{chance.getrandbits(20)}"))
            sent.append((key, await client.begins_request("GET", path, *([field] if key else []))))
        for key, number in sent:
            answer = await client.answer_of(number)
            assert answer.status == (200 if key in NAMES_BY_KEY else 401)
            if key in NAMES_BY_KEY:
                assert answer.body.partition(b"|")[0] == NAMES_BY_KEY[key]
                assert answer.body.endswith(b"|False|")
    assert edge.runtime.snapshot.keyed_heads


async def test_certificates_tokens_and_keys_identify_only_their_own_request(
    crowded: Edge, edge: Edge, seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    servers, holders = Authority(tmp_path, "servers"), Authority(tmp_path, "holders")
    cert, key_file = servers.issues("edge.test")
    tls = {"cert": str(cert), "key": str(key_file), "client_ca": str(holders.file)}
    edge.config["listen"] = {"address": "127.0.0.1:0", "tls": tls}
    edge.config["routes"][0]["auth"] = ["key", "jwt", "certificate"]
    edge.config["customers"] |= {name: {"tier": "free"} for name in ("certified", "tokened", "other")}
    edge.config["keys"] += [{"certificate": name, "customer": name} for name in ("certified", "other")]
    edge.config["issuers"] = {
        "id": {"issuer": "https://id.example", "jwks": "https://id.example/k", "audiences": ["x"]}
    }
    clients = {}
    for holder in ("certified", "other", "nobody"):
        context, pair = servers.trusted(), holders.issue(common=holder)
        context.load_cert_chain(pair.cert, pair.key)
        clients[holder] = [await edge.secure_client(context) for _ in range(2)]
    signing = ec.generate_private_key(ec.SECP256R1())
    listed = jwt.algorithms.ECAlgorithm.to_jwk(signing.public_key(), as_dict=True)
    edge.runtime.key_lookup.issuer_keys["id"] = parse_keys(json.dumps({"keys": [listed]}))
    claims = {"iss": "https://id.example", "aud": "x", "sub": "tokened", "exp": time.time() + 3600}
    token = jwt.encode(claims, signing, "ES256")
    names: dict[str, str | None] = {key: name.decode() for key, name in NAMES_BY_KEY.items()}
    names |= {token: "tokened", "nobodys": None, token[:-4] + "AAAA": None}
    for _ in range(400):
        holder, credential = chance.choice([*clients]), chance.choice([*names, ""])
        expected = names[credential] if credential else {"nobody": None}.get(holder, holder)
        lines = [f"Authorization: Bearer {credential}"] if credential else []
        answer = await chance.choice(clients[holder]).asks(get(chance.choice(("/v1/x", "/v1/y")), *lines))
        assert answer.status == (401 if expected is None else 200), (holder, credential)
        if expected is not None:
            assert answer.body.partition(b"|")[0] == expected.encode(), (holder, credential)
    assert edge.runtime.snapshot.keyed_heads
