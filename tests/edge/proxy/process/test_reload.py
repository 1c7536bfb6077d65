"""Reloads during requests: each request sees one configuration, the next sees the new one, and counts are kept."""

import asyncio
import base64
import gc
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
import pytest

from edgeproxy.base.client_tls import ClientTls
from edgeproxy.config.directory import KeyOwner
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.messages import EndpointAddresses, KeysLookedUp
from edgeproxy.edge.proxy.exchange.forwarding import Forwarding
from edgeproxy.edge.proxy.exchange.snapshot import Snapshot
from edgeproxy.edge.proxy.observation.access_log import AccessLog
from edgeproxy.edge.proxy.observation.log_file import LogFile
from edgeproxy.edge.proxy.process import revocation
from edgeproxy.edge.proxy.process.revocation import end_exchange
from edgeproxy.edge.proxy.routing.binding import Route, RouteBinding
from edgeproxy.edge.proxy.routing.identity import Directory, Identity, KeyHolder
from edgeproxy.edge.proxy.routing.router import Router
from edgeproxy.edge.proxy.transport.address import Addresses
from edgeproxy.edge.proxy.upstreams.endpoint_states import DOWN, EJECTED
from edgeproxy.edge.proxy.upstreams.pool import Endpoint, Service
from tests.edge.proxy.asking import asks, left, limited
from tests.edge.proxy.authority import Authority
from tests.edge.proxy.tunnels import tunnel
from tests.support.transcript import KEY, READER, UNLIMITED, Edge, Upstream, chunks, get, head, ok, post

SECRET = "$2y$04$BhcHImMsKbDAAOGc3deSe.HQ3dIENz/jf9NZ374dsBkzWKDWFdx92"
"""The hash of `secret`."""
GOODBYE = b"\x88\x02\x03\xf0"
"""The frame that closes a WebSocket with the status 1008."""
STILL = b"\x81\x05still"
"""A frame with text."""

# ---- one request sees one configuration


async def test_reload_applies_from_the_next_request(edge: Edge) -> None:
    client, upstream = await edge.forwards()
    edge.config["security_headers"] = True
    edge.config["routes"] = [{"name": "other", "path": "/other/*", "upstream": "api", "auth": "none"}]
    await edge.reloads()
    answer = await upstream.tells(client, ok(b"late"))
    assert (answer.status, answer.body) == (200, b"late")
    assert "X-Frame-Options" not in answer
    answer = await asks(client, "/public/")
    assert answer.status == 404
    assert answer["X-Frame-Options"]
    await client.sends(get("/other/x"))
    assert (await upstream.serves(client, ok()))["X-Frame-Options"]
    assert edge.count("edge_requests_total", "public", "-", "200") == 1
    assert edge.count("edge_requests_total", "other", "-", "200") == 1


async def test_a_half_sent_head_is_read_by_the_new_configuration(answering: Edge) -> None:
    client = await answering.client()
    request = get("/v1/x", f"X-API-Key: {KEY}")
    await client.sends(request[:30])
    await answering.settles()
    answering.config["routes"][0]["auth"] = "none"
    await answering.reloads()
    answer = await client.asks(request[30:])
    assert answer.status == 200
    assert "RateLimit" not in answer


async def test_an_upload_keeps_its_original_body_limit(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(head("POST /public/ HTTP/1.1", "Host: edge.test", "Transfer-Encoding: chunked"))
    await client.sends(b"5\r\nhello\r\n")
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    edge.config["limits"] = {"body": "8B"}
    await edge.reloads()
    await client.sends(b"5\r\nworld\r\n0\r\n\r\n")
    await upstream.gets_until(b"0\r\n\r\n")
    assert (await upstream.tells(client, ok())).status == 200
    assert (await client.asks(post(b"x" * 9))).status == 413


# ---- keys


async def test_a_revoked_key_is_unknown_at_once_on_an_open_connection(answering: Edge) -> None:
    client = await answering.client()
    for _ in range(3):
        assert (await asks(client)).status == 200
    key = answering.config["keys"].pop(0)
    await answering.reloads()
    for _ in range(3):
        assert (await asks(client)).status == 401
        assert (await asks(client, key=UNLIMITED)).status == 200
    answering.config["keys"].append(key)
    await answering.reloads()
    assert left(await asks(client))[:2] == ("basic", 56)


async def test_reassigned_key_counts_for_its_new_customer_from_the_next_request(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(request["X-Customer-Id"].encode()))
    client = await edge.client()
    assert (await asks(client)).body == b"acme"
    edge.config["keys"][0]["customer"] = "free"
    await edge.reloads()
    answer = await asks(client)
    assert answer.body == b"free"
    assert "RateLimit" not in answer


async def test_reload_ends_only_tunnels_whose_key_was_removed(edge: Edge) -> None:
    edge.config["directory"] = {"from": "hub", "revoked": "finish"}
    edge.config["hub"] = "redis://127.0.0.1:1"
    client, upstream = await tunnel(edge, "/v1/ws", f"X-API-Key: {KEY}")
    other, others_upstream = await tunnel(edge, "/v1/ws", f"X-API-Key: {UNLIMITED}")
    del edge.config["keys"][0]
    await edge.reloads()
    await upstream.sends(STILL)
    await client.gets_until(STILL)
    for name in ("directory", "hub"):
        del edge.config[name]
    edge.config["customers"]["free"]["paused"] = {"why": "unpaid"}
    edge.config["routes"].reverse()
    await edge.reloads()
    for wire in (client, other):
        await wire.gets_until(GOODBYE)
    for wire in (client, other, upstream, others_upstream):
        await wire.gets_cut()


async def test_key_that_moves_from_the_files_to_the_directory_keeps_its_tunnel(edge: Edge) -> None:
    client, upstream = await tunnel(edge, "/v1/ws", f"X-API-Key: {KEY}")
    key = edge.config["keys"].pop(0)
    del edge.config["customers"]["acme"]
    edge.config |= {"hub": "redis://127.0.0.1:1", "directory": {"from": "hub"}}
    await edge.reloads()
    await edge.until(lambda: edge.inquiries, "the key is asked for")
    digest = bytes.fromhex(key["sha256"])
    edge.runtime.key_lookup.on_answer(KeysLookedUp({digest: KeyOwner("acme", '{"tier": "basic"}', "{}")}, [], []))
    await upstream.sends(STILL)
    await client.gets_until(STILL)
    edge.worker.generations.forget_customers(["acme"])
    await edge.reloads()


def password_of(user: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:secret'.encode()).decode()}"


async def test_tunnel_ends_with_its_user_or_the_users_password(edge: Edge, tmp_path: Path) -> None:
    file = tmp_path / "users.htpasswd"
    names = ("ada", "bob", "eve")
    file.write_text("".join(f"{name}:{SECRET}\n" for name in names))
    auth = {"basic": str(file)}
    edge.config["routes"].append({"path": "/wiki/*", "upstream": "api", "auth": auth, "upgrade": ["websocket"]})
    ends = {name: await tunnel(edge, "/wiki/ws", password_of(name)) for name in names}
    streaming, upstream = await edge.forwards(get("/wiki/stream", password_of("bob")))
    file.write_text(f"ada:{SECRET}\neve:{SECRET.replace('$04$', '$05$')}\n")
    await edge.reloads()
    refused = await streaming.gets_answer()
    assert (refused.status, orjson.loads(refused.body)["code"]) == (401, "password-invalid")
    assert refused["WWW-Authenticate"].startswith("Basic ")
    await upstream.gets_cut()
    for name in ("bob", "eve"):
        client, upstream = ends[name]
        await client.gets_until(GOODBYE)
        await client.gets_cut()
        await upstream.gets_cut()
    client, upstream = ends["ada"]
    await upstream.sends(STILL)
    await client.gets_until(STILL)


async def test_reload_ends_tunnels_in_many_turns_of_the_loop(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are served between them."""
    tunnels = [await tunnel(edge, "/v1/ws", f"X-API-Key: {KEY}") for _ in range(5)]
    loop, turns, ends = asyncio.get_running_loop(), count(), []

    def end(exchange: Forwarding, why: RejectedError) -> None:
        ends.append(next(turns))
        loop.call_soon(next, turns)
        end_exchange(exchange, why)

    monkeypatch.setattr(revocation, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(revocation, "end_exchange", end)
    del edge.config["keys"][0]
    await edge.reloads()
    for client, upstream in tunnels:
        await client.gets_until(GOODBYE)
        await client.gets_cut()
        await upstream.gets_cut()
    assert ends == [0, 2, 4, 6, 8]


async def test_tunnel_keeps_to_the_users_of_its_own_route(edge: Edge, tmp_path: Path) -> None:
    """A route stays itself if its name changes, or else its path. A label may be that of several routes."""
    file, others_file = tmp_path / "users.htpasswd", tmp_path / "others.htpasswd"
    for each in (file, others_file):
        each.write_text(f"ada:{SECRET}\nbob:{SECRET}\n")
    routes = [
        {"name": "wiki", "path": "/wiki/*", "upstream": "api", "auth": {"basic": str(file)}},
        {"path": "/wiki/*", "upstream": "api", "auth": {"basic": str(others_file)}, "methods": ["POST"]},
    ]
    edge.config["routes"] += routes
    client, upstream = await tunnel(edge, "/wiki/ws", password_of("ada"))
    other, others_upstream = await tunnel(edge, "/wiki/ws", password_of("bob"))
    routes[0]["name"], routes[1]["name"] = "renamed", "wiki"
    file.write_text(f"ada:{SECRET}\n")
    await edge.reloads()
    await other.gets_until(GOODBYE)
    for wire in (other, others_upstream):
        await wire.gets_cut()
    routes[1]["name"], routes[0] = "writers", routes[0] | {"name": "wiki", "path": "/pages/*"}
    edge.config["routes"][-2] = routes[0]
    await edge.reloads()
    await upstream.sends(STILL)
    await client.gets_until(STILL)
    edge.config["routes"].remove(routes[0])
    await edge.reloads()
    await client.gets_until(GOODBYE)
    for wire in (client, upstream):
        await wire.gets_cut()


# ---- usage of limits survives


async def test_a_changed_rate_applies_at_once_and_keeps_usage(answering: Edge) -> None:
    client = await answering.client()
    for _ in range(10):
        await asks(client)
    limited(answering, {"rate": "100/min"})
    await answering.reloads()
    answer = await asks(client)
    assert answer["RateLimit-Policy"] == '"basic";q=100;w=60'
    assert left(answer)[:2] == ("basic", 89)
    limited(answering, {"rate": "5/min"})
    await answering.reloads()
    answer = await asks(client)
    assert answer.status == 429
    assert answer["RateLimit-Policy"] == '"basic";q=5;w=60'
    assert left(answer)[:2] == ("basic", 0)
    limited(answering)
    await answering.reloads()
    answer = await asks(client)
    assert answer.status == 200
    assert "RateLimit" not in answer
    limited(answering, {"rate": "12/min"})
    await answering.reloads()
    # Requests that passed without a limit were not counted.
    assert left(await asks(client))[:2] == ("basic", 0)
    assert (await asks(client)).status == 429


@pytest.mark.usefixtures("uncollected")
async def test_a_limit_without_a_table_row_keeps_its_usage(answering: Edge) -> None:
    answering.config["tables"] = {"customers": 1, "addresses": 1000}
    answering.config["customers"]["free"] = {"tier": "basic"}
    client = await answering.client()
    assert left(await asks(client, key=UNLIMITED))[:2] == ("basic", 59)
    for n in range(5):
        assert left(await asks(client))[1] == 59 - n
    for _ in range(2):
        answering.config["legacy_headers"] = not answering.config.get("legacy_headers", False)
        await answering.reloads()
        gc.collect()
    assert left(await asks(client))[1] == 54
    assert answering.count("edge_table_full_total", "customers") >= 1


# ---- client connections


async def test_changes_of_trusted_proxies_apply_to_open_connections(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(request["X-Forwarded-For"].encode()))
    edge.config["per_ip"] = {"rate": "100/min"}
    client = await edge.client()
    behind = "X-Forwarded-For: 203.0.113.9"

    async def told() -> tuple[bytes, int]:
        answer = await asks(client, "/public/", behind, key="")
        return answer.body, left(answer)[1]

    assert [await told() for _ in range(2)] == [(b"127.0.0.1", 99), (b"127.0.0.1", 98)]
    edge.config["trusted_proxies"] = ["127.0.0.0/8"]
    await edge.reloads()
    assert [await told() for _ in range(2)] == [(b"203.0.113.9, 127.0.0.1", 99), (b"203.0.113.9, 127.0.0.1", 98)]
    edge.config["trusted_proxies"] = ["10.0.0.0/8"]
    await edge.reloads()
    assert await told() == (b"127.0.0.1", 97)


async def test_changed_connection_limits_apply_to_new_connections_and_next_deadlines(edge: Edge) -> None:
    inside = [await edge.client() for _ in range(3)]
    edge.config["limits"] = {"connections_per_ip": 3, "keepalive_idle": "200ms", "header_timeout": "200ms"}
    await edge.reloads()
    refused = await edge.client()
    assert (await refused.gets_answer()).status == 429
    refused.closes()
    await inside[0].sends(get("/nowhere"))
    assert (await inside[0].gets_answer()).status == 404
    await inside[0].gets_eof()  # Its next deadline comes from the new configuration.
    await inside[1].sends(b"GET / HT")
    assert (await inside[1].gets_answer()).status == 408


# ---- upstreams


async def test_an_unchanged_upstream_keeps_its_connections_and_failures(edge: Edge) -> None:
    second = edge.adds_endpoint()
    edge.config["upstreams"]["api"]["eject"] = {"errors": 1, "for": "1h"}
    client = await edge.client()
    service = edge.runtime.snapshot.services["api"]
    endpoint = next(endpoint for endpoint in service.endpoints if endpoint.port == second.port)
    service.record_failure(endpoint, monotonic())
    upstream = await edge.brings(client, get())
    edge.config["upstreams"]["more"] = {"endpoints": [edge.upstream.url]}
    edge.config["routes"].append({"path": "/more/*", "upstream": "more"})
    await edge.reloads()
    assert edge.runtime.snapshot.services["api"] is service
    assert edge.endpoint().outstanding == 1
    await upstream.tells(client, ok())
    for _ in range(5):
        await client.sends(get())
        assert (await upstream.serves(client, ok())).status == 200
    assert not second.is_asked()
    assert edge.count("edge_connections", "upstream") <= 1


async def test_a_changed_upstream_closes_connections_as_they_become_idle(
    edge: Edge,
) -> None:
    idle, kept = await edge.forwards()
    used, busy = await edge.forwards()
    await kept.tells(idle, ok())
    edge.config["upstreams"]["api"]["timeouts"] = {"idle": "59s"}
    await edge.reloads()
    await kept.gets_eof()
    assert (await busy.tells(used, ok(b"still"))).body == b"still"
    await busy.gets_eof()
    upstream = await edge.brings(used, get())
    assert (await upstream.tells(used, ok(b"new"))).body == b"new"


async def test_a_request_is_retried_at_the_upstream_of_its_own_configuration(edge: Edge) -> None:
    """The new configuration has another upstream. The request is retried at the old one and served."""
    second = edge.adds_endpoint()
    client = await edge.client()
    await client.sends(get())
    await edge.until(lambda: any(endpoint.outstanding for endpoint in edge.endpoints()))
    asked, other = (edge.upstream, second) if edge.endpoint(0).outstanding else (second, edge.upstream)
    first = await asked.takes()
    edge.config["upstreams"] = {"api": {"endpoints": ["http://127.0.0.1:9"]}}
    await edge.reloads()
    first.aborts()
    upstream = await other.takes()
    assert (await upstream.tells(client, ok(b"saved"))).body == b"saved"
    await upstream.gets_eof()


# ---- TLS with upstreams


def speaks_tls(edge: Edge, authority: Authority, *upstreams: Upstream) -> None:
    """Let these upstreams speak TLS, and configure the edge for it."""
    for upstream in upstreams:
        upstream.tls = authority.serving("127.0.0.1")
    edge.config["upstreams"]["api"]["endpoints"] = [upstream.url for upstream in upstreams]
    edge.config["upstreams"]["api"]["tls"] = {"ca": str(authority.file)}


async def test_a_retry_uses_tls_with_an_upstream_that_was_removed(edge: Edge, tmp_path: Path) -> None:
    second = edge.adds_endpoint()
    speaks_tls(edge, Authority(tmp_path), edge.upstream, second)
    client = await edge.client()
    await client.sends(get())
    await edge.until(lambda: any(endpoint.outstanding for endpoint in edge.endpoints()))
    asked, other = (edge.upstream, second) if edge.endpoint(0).outstanding else (second, edge.upstream)
    end, _ = await asyncio.get_running_loop().sock_accept(asked.listening)
    edge.config["upstreams"] = {"more": {"endpoints": ["http://127.0.0.1:9"]}}
    edge.config["routes"] = [{"path": "/more/*", "upstream": "more"}]
    await edge.reloads()
    end.close()  # During the handshake: the request was not sent, so the edge tries the other endpoint.
    upstream = await other.takes()
    assert (await upstream.tells(client, ok(b"saved"))).body == b"saved"
    await upstream.gets_eof()


async def test_equal_tls_settings_share_their_tls_context(edge: Edge, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    speaks_tls(edge, authority, edge.upstream)
    client, upstream = await edge.forwards()
    worker = edge.worker
    outward = worker.runtime.snapshot.upstream_tls["api"]
    edge.config["upstreams"]["api"]["pool"] = 7
    await edge.prepares()
    prepared = worker.generations._prepared
    assert prepared is not None
    assert prepared.snapshot.upstream_tls["api"] is outward
    edge.config["upstreams"]["api"]["tls"] = {"ca": str(authority.file), "server_name": "127.0.0.1"}
    number = await edge.prepares()
    prepared = worker.generations._prepared
    assert prepared is not None
    other = prepared.snapshot.upstream_tls["api"]
    contexts = {outward.context, other.context}
    await worker.reload_certificates()
    assert not contexts & {outward.context, other.context}, "the files of both configurations are read again"
    assert worker.generations.commit(number)
    context = outward.context
    await worker.reload_certificates()
    assert outward.context is not context, "a request in progress may still need the old context"
    await upstream.tells(client, ok())
    await upstream.gets_eof()


# ---- messages of the supervisor


def listing(address: str, up: bool = True) -> list[EndpointAddresses]:
    return [EndpointAddresses([address], [address] if up else [])]


async def test_endpoint_updates_apply_to_the_configuration_that_they_name(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["endpoints"] = [f"http://localhost:{edge.upstream.port}"]
    client = await edge.client()
    generations = edge.worker.generations
    assert generations.update_endpoints(1, {"api": listing("127.0.0.1")})
    edge.config["upstreams"]["next"] = edge.config["upstreams"]["api"] | {"pool": 3}
    edge.config["routes"].append({"path": "/next/*", "upstream": "next", "auth": "none"})
    number = await edge.prepares({"api": listing("127.0.0.2"), "next": listing("127.0.0.3")})
    services = edge.runtime.snapshot.services
    assert [endpoint.address for endpoint in services["api"].endpoints] == ["127.0.0.1"], (
        "the served configuration is unchanged"
    )
    assert not generations.update_endpoints(number, {"api": listing("127.0.0.4"), "next": listing("127.0.0.5")})
    assert not generations.update_endpoints(number + 1, {"api": listing("127.0.0.9")})
    assert generations.update_endpoints(1, {"api": listing("127.0.0.1", up=False)})
    assert (await client.asks(get())).status == 503
    assert generations.commit(number)
    services = edge.runtime.snapshot.services
    # An upstream present in both configurations keeps its last reported status.
    assert [(endpoint.address, endpoint.state) for endpoint in services["api"].endpoints] == [("127.0.0.1", DOWN)]
    assert [endpoint.address for endpoint in services["next"].endpoints] == ["127.0.0.5"]
    assert not generations.update_endpoints(1, {"next": listing("127.0.0.9")})
    assert generations.update_endpoints(number, {"api": listing("127.0.0.1")})


async def test_a_lost_supervisors_last_report_does_not_disable_endpoints_for_good(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["endpoints"] = [f"http://localhost:{edge.upstream.port}"]
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    generations = edge.worker.generations
    edge.config["upstreams"]["next"] = edge.config["upstreams"]["api"] | {"pool": 3}
    number = await edge.prepares({"next": listing("127.0.0.1", up=False)})
    generations.on_supervisor_lost()
    assert generations.update_endpoints(1, {"api": listing("127.0.0.1", up=False)})
    assert (await client.asks(get())).status == 200
    assert generations.commit(number)
    assert [endpoint.state for endpoint in edge.runtime.snapshot.services["next"].endpoints] == [EJECTED]


async def test_commit_serves_only_the_last_prepared_configuration(answering: Edge) -> None:
    client = await answering.client()
    generations = answering.worker.generations
    assert not generations.commit(1)
    assert not generations.commit(2)
    answering.config["routes"][0]["auth"] = "none"
    number = await answering.prepares()
    assert (await asks(client, key="")).status == 401, "the configuration is only prepared"
    generations.discard(number + 1)
    generations.discard(number)
    assert not generations.commit(number)
    assert (await asks(client, key="")).status == 401
    await answering.prepares()
    answering.config["routes"][0]["auth"] = "optional"
    answering.config["routes"][1]["auth"] = "required"
    assert generations.commit(await answering.prepares())
    assert not generations.commit(number)
    assert (await asks(client, key="")).status == 200
    assert (await asks(client, "/public/", key="")).status == 401


# ---- the access log


def written(file: Path) -> list[dict[str, Any]]:
    """Return the lines of an access log."""
    return [orjson.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


async def lines(edge: Edge, file: Path, n: int) -> list[dict[str, Any]]:
    """Wait for `n` lines of an access log and return them. More lines are an error."""
    await edge.until(lambda: len(written(file)) >= n, f"{n} lines")
    found = written(file)
    assert len(found) == n
    return found


def threads(edge: Edge) -> list[LogFile]:
    """Return the log files that are open."""
    return [log._to for log in edge.worker.generations.list_access_logs() if log._to._thread is not None]


async def test_a_request_is_logged_in_the_log_of_its_configuration(edge: Edge, tmp_path: Path) -> None:
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    edge.config["access_log"] = str(old)
    client, upstream = await edge.forwards()
    before = edge.runtime.snapshot.access_log
    edge.config["access_log"] = str(new)
    await edge.reloads()
    other = await edge.client()
    await other.asks(get("/nowhere"))
    assert [line["path"] for line in await lines(edge, new, 1)] == ["/nowhere"]
    assert edge.worker.generations.list_access_logs() == [edge.runtime.snapshot.access_log, before]
    await upstream.tells(client, ok())
    assert [line["path"] for line in await lines(edge, old, 1)] == ["/public/"]
    await edge.until(lambda: edge.worker.generations.list_access_logs() == [edge.runtime.snapshot.access_log])
    assert len(threads(edge)) == 1
    edge.config["access_log"] = "off"
    await edge.reloads()
    await edge.until(lambda: not edge.worker.generations.list_access_logs())
    await other.asks(get("/nowhere"))
    await lines(edge, new, 1)


# ---- memory of old configurations

MADE = (
    Snapshot,
    Directory,
    Identity,
    KeyHolder,
    RouteBinding,
    Route,
    Router,
    Service,
    Endpoint,
    Addresses,
    AccessLog,
    LogFile,
    ClientTls,
)
"""The objects that a served configuration consists of."""


def there() -> dict[str, int]:
    """Count the objects of each class in MADE that this test created, including uncollected garbage."""
    counts = Counter(type(object_).__name__ for object_ in gc.get_objects())
    return {made.__name__: counts[made.__name__] for made in MADE}


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Turn off the garbage collector, so that only reference counts free memory. Ignore objects of other tests."""
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("uncollected")
async def test_an_old_configuration_is_freed_after_its_last_request(edge: Edge, tmp_path: Path) -> None:
    """The last reference frees all of an old configuration, without the garbage collector."""
    edge.config["access_log"] = str(tmp_path / "0.log")
    edge.config["upstreams"]["api"]["breaker"] = {"pending": 100}
    edge.config["upstreams"]["tls"] = {"endpoints": ["https://127.0.0.1:9"]}
    edge.config["tiers"]["anonymous"] = {"limits": [{"rate": "1000/min"}]}
    outset = there()
    client, upstream = await edge.forwards(get("/v1/x", f"X-API-Key: {KEY}"))
    other = await edge.client()
    one = there()
    for n in range(1, 6):
        for path, key in (("/nowhere", READER), ("/nowhere", ""), ("/v1/x", ""), ("/read/x", "nobody")):
            await asks(other, path, key=key)
        edge.config["upstreams"]["api"]["timeouts"] = {"idle": f"{60 - n}s"}
        edge.config["upstreams"]["tls"]["tls"] = {"server_name": f"edge-{n}.test"}
        edge.config["access_log"] = str(tmp_path / f"{n}.log")
        edge.config["per_ip"] = {"rate": f"{1000 + n}/s"}
        await edge.prepares()
        await edge.reloads()
    await edge.until(
        lambda: len(edge.worker.generations.list_access_logs()) == 2, "only the first and the last access log are open"
    )
    two = there()
    for made in (Snapshot, Service, Endpoint, Addresses, AccessLog, ClientTls):
        name = made.__name__
        assert two[name] - outset[name] == 2 * (one[name] - outset[name]), name
    await upstream.tells(client, ok())
    await upstream.gets_eof()
    generations = edge.worker.generations
    await edge.until(lambda: not (generations._previous or generations._services or generations._logs))
    await edge.settles()
    last = there()
    # The first configuration had one customer bound to a route. The last one has none yet.
    assert last == one | {"RouteBinding": one["RouteBinding"] - 1, "KeyHolder": one["KeyHolder"] - 1}


@pytest.mark.usefixtures("uncollected")
async def test_a_continued_access_log_holds_no_old_configuration(answering: Edge, tmp_path: Path) -> None:
    answering.config["access_log"] = str(tmp_path / "access.log")
    client = await answering.client()
    none = there()["RouteBinding"]
    await asks(client)
    await lines(answering, tmp_path / "access.log", 1)
    assert there()["RouteBinding"] == none + 1
    answering.config["legacy_headers"] = True
    await answering.reloads()
    await answering.until(lambda: there()["RouteBinding"] == none)


@pytest.mark.usefixtures("uncollected")
async def test_cached_addresses_hold_no_old_configuration(answering: Edge) -> None:
    """This includes bindings created while the next configuration was already prepared."""
    answering.config["tiers"]["anonymous"] = {"limits": [{"rate": "1000/min"}]}
    answering.config["tiers"]["basic"] = {"limits": [{"rate": "1000/min", "scope": "ip"}]}
    client = await answering.client()
    none = there()
    addresses = answering.worker.runtime.snapshot.addresses
    for n in range(3):
        number = await answering.prepares()
        assert left(await asks(client, "/public/x", key=""))[:2] == ("anonymous", 999 - 2 * n)
        assert left(await asks(client))[:2] == ("basic", 998 - 2 * n)
        assert there()["RouteBinding"] == none["RouteBinding"] + 2
        assert answering.worker.generations.commit(number)
        await answering.until(lambda: there()["RouteBinding"] == 0)
        assert (there()["Snapshot"], there()["Route"]) == (none["Snapshot"], none["Route"])
    assert answering.worker.runtime.snapshot.addresses is addresses


async def test_chunks_of_two_configurations_do_not_mix(edge: Edge) -> None:
    """Three reloads happen while a slow upstream answers the first of two pipelined requests in chunks."""
    client, upstream = await edge.forwards(get() + get("/public/2"))
    for n in range(3):
        edge.config["limits"] = {"keepalive_idle": f"{n + 1}min"}
        await edge.reloads()
    assert (
        await upstream.tells(client, head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), chunks(b"a", b"b"))
    ).body == b"ab"
    assert (await upstream.serves(client, ok(b"two"))).body == b"two"
