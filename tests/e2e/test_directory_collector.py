"""Customers of the collector's database: real edges that follow the collector, or a hub that it publishes to.

A test requests its edge after its collector, so that the edge stops first. A stopping edge waits for a collector
that accepts its counts.
"""

import asyncio
import hashlib
import json
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis as Client
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import documents
from edgeproxy.collector.accounts import flags as accounts_flags
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.database.quota_tables import limit_raises
from edgeproxy.collector.database.schema import customers, keys
from edgeproxy.config.customers import Flag
from edgeproxy.edge.directory.cache import FILE
from edgeproxy.hub.cluster import load_functions
from edgeproxy.hub.redis import Tls
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.testbed.collector import ADMIN, EDGE, READ, Collector
from loadtest.testbed.customers import TIERS, UNLIMITED, key_of
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.http_client import ask
from loadtest.testbed.process import ROOT
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector
from tests.support.hub_rights import documented, documented_for_directory, documented_for_push
from tests.support.writing import changes


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    directory_signatures.create_key_file(tmp_path / "directory.key")
    return Signer.load(tmp_path / "directory.key")


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def adds(collector: Collector, *names: str) -> None:
    """Create customers of a tier without limits, each with a key."""

    async def add(connection: AsyncConnection) -> None:
        own = {"tier": "own", "metadata": "{}", "created_at": 1, "version": 1, "settings": json.dumps({"tier": "own"})}
        made: list[dict[str, Any]] = [{"id": generate_id(), "name": name, **own} for name in names]
        await connection.execute(sa.insert(customers), made)
        of = {"start": "x", "created_at": 1, "version": 1}
        given = [
            {"id": f"key-{row['name']}", "customer": row["id"], "sha256": hashed(key_of(row["name"])), **of}
            for row in made
        ]
        await connection.execute(sa.insert(keys), given)
        await documents.enqueue_changes(connection, "customer", names)

    changes(collector, add)


def flags(collector: Collector, **said: Any) -> None:
    """Set the flag `new`."""

    async def put(connection: AsyncConnection) -> None:
        await accounts_flags.put_flag(connection, Caller("test"), "new", Flag.model_validate(said))

    changes(collector, put)


def revokes(collector: Collector, name: str) -> None:
    async def revoke(connection: AsyncConnection) -> None:
        ids = sa.select(customers.c.id).where(customers.c.name == name)
        own = sa.update(keys).where(keys.c.customer.in_(ids))
        await connection.execute(own.values(revoked_at=time.time_ns() // 1_000_000))
        await documents.enqueue_changes(connection, "customer", [name])

    changes(collector, revoke)


def pauses(collector: Collector, name: str, status: int) -> None:
    async def pause(connection: AsyncConnection) -> None:
        said = json.dumps({"tier": "own", "paused": {"why": "so", "status": status}}, separators=(",", ":"))
        await connection.execute(sa.update(customers).where(customers.c.name == name).values(settings=said))
        await documents.enqueue_changes(connection, "customer", [name])

    changes(collector, pause)


def asks(edge: Edge, customer: str) -> int:
    return edge.ask(fields={"Authorization": f"Bearer {key_of(customer)}"}).status


def each(edge: Edge, customer: str, status: int, what: str) -> None:
    """Wait until all workers answer with this status."""
    until(lambda: {asks(edge, customer) for _ in range(8)} == {status}, what)


def reported_and_restored(collector: Collector, edge: Edge) -> None:
    """Serve a customer's key, report it as leaked until it is refused, and restore it."""
    key = collector.send("POST", "/v1/customers/dora/keys", {}).json()
    bearer = {"Authorization": f"Bearer {key['secret']}"}

    def answered(status: int) -> None:
        until(lambda: {edge.ask(fields=bearer).status for _ in range(8)} == {status}, f"all workers answer {status}")

    answered(200)
    assert collector.send("POST", "/v1/keys/leaked", {"key": key["secret"]}, token=None).status == 202
    answered(401)
    assert collector.send("POST", f"/v1/keys/{key['id']}/restore").status == 200
    answered(200)


def follows(collector: Collector, signer: Signer) -> dict[str, Any]:
    """Return the settings of an edge that follows this collector."""
    return {
        "usage": {"collector": f"http://127.0.0.1:{collector.port}", "token": EDGE},
        "directory": {"from": "collector", "trust": signer.public_key},
    }


def test_an_edge_without_a_hub_follows_the_collector(
    start_collector: StartCollector, start_edge: StartEdge, signer: Signer, tmp_path: Path
) -> None:
    collector = start_collector(directory={"key": str(tmp_path / "directory.key")})
    adds(collector, "dora")
    edge = start_edge(**follows(collector, signer), cache_key="00" * 32)
    each(edge, "dora", 200, "she is known")
    adds(collector, "eve")
    each(edge, "eve", 200, "a new customer is served")
    revokes(collector, "dora")
    each(edge, "dora", 401, "a revoked key is refused")
    said = edge.status()["directory"]
    assert (said["from"], said["state"], said["signed"], said["refused"]) == ("collector", "current", True, None)
    assert said["signed_age_s"] < 60
    # Killed with a change in its outbox: it is published once there is a collector again.
    collector.kill()
    adds(collector, "fay")
    assert [asks(edge, name) for name in ("eve", "fay")] == [200, 401], "known customers are served"
    collector.start()
    each(edge, "fay", 200, "nothing was lost")
    with closing(sqlite3.connect(Path(edge.settings["state"]) / FILE)) as db:
        assert b"eve" not in b"".join(row[0] for row in db.execute("SELECT said FROM customers"))
    # Only edges' tokens may read it.
    for token, status in ((READ, 403), ("nobody", 401), (EDGE, 200)):
        answer = ask(collector.port, "/v1/directory", fields={"Authorization": f"Bearer {token}"})
        assert answer.status == status
    for path in (f"parts/{'0' * 32}/0", "parts/../0", "parts/x/y"):
        assert ask(collector.port, f"/v1/directory/{path}", fields={"Authorization": f"Bearer {EDGE}"}).status == 404
    bad = ask(collector.port, "/v1/directory?after=x", fields={"Authorization": f"Bearer {EDGE}"})
    assert bad.status == 400


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_flag_flips_at_the_edge_without_a_deploy(
    start_collector: StartCollector, start_edge: StartEdge, signer: Signer, tmp_path: Path
) -> None:
    collector = start_collector(directory={"key": str(tmp_path / "directory.key")})
    adds(collector, "dora", "eve")
    routes = [{"path": "/*", "upstream": "api", "flag": "new"}]
    edge = start_edge(**follows(collector, signer), routes=routes)
    until(lambda: edge.status()["directory"]["state"] == "current", "the directory is read")
    assert (asks(edge, "dora"), asks(edge, UNLIMITED)) == (404, 404), "an undefined flag is off for each customer"
    flags(collector, customers=["dora"])
    each(edge, "dora", 200, "she has it")
    assert (asks(edge, "eve"), asks(edge, UNLIMITED)) == (404, 404)
    flags(collector, percent=100)
    each(edge, "eve", 200, "everybody has it")
    each(edge, UNLIMITED, 200, "customers of the files have it too")
    flags(collector, percent=0)
    each(edge, "dora", 404, "nobody has it any more")
    each(edge, UNLIMITED, 404, "nor those of the files")
    # A flag in the edge's own files applies there, and the edge keeps its data in a restart without the collector.
    flags(collector, customers=["dora"])
    each(edge, "dora", 200, "she has it again")
    collector.kill()
    edge.end()
    edge.start()
    each(edge, "dora", 200, "she has it still")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_edges_serve_unpaid_customers_while_charging_is_off(
    start_collector: StartCollector, start_edge: StartEdge, signer: Signer, tmp_path: Path
) -> None:
    sold = {"plans": str(ROOT / "loadtest/testbed/plans.yaml")}
    collector = start_collector(directory={"key": str(tmp_path / "directory.key")}, billing=sold)
    adds(collector, "dora", "eve")
    edge = start_edge(**follows(collector, signer))
    each(edge, "dora", 200, "she is known")
    for name, status in (("dora", 402), ("eve", 403)):
        pauses(collector, name, status)
        each(edge, name, status, "she is paused")
    began = time.monotonic()
    assert collector.send("PUT", "/billing/rollout", {"charging": False, "why": "a wrong price"}).status == 200
    each(edge, "dora", 200, "she is served though she has not paid")
    print(f"served {time.monotonic() - began:.2f} s after the switch")
    assert asks(edge, "eve") == 403, "a customer paused for another reason stays paused"
    assert collector.send("PUT", "/billing/rollout", {"charging": True, "why": "mended"}).status == 200
    each(edge, "dora", 402, "she has to pay again")


def make_users(redis: Redis) -> tuple[str, str]:
    """Create the documented users of edges and of the collector, load the functions, and return their URLs."""
    users = {"edge": (*documented(), *documented_for_directory()), "push": documented_for_push()}
    with closing(Client(port=redis.port)) as operator:
        for user, rights in users.items():
            operator.execute_command("ACL", "SETUSER", user, "on", ">s3cret", *rights)
    asyncio.run(load_functions(f"redis://127.0.0.1:{redis.port}/0", Tls()))
    edge, push = (f"redis://{user}:s3cret@127.0.0.1:{redis.port}/0" for user in users)
    return edge, push


@pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_collector_republishes_after_the_hub_loses_its_data(
    start_collector: StartCollector, start_edge: StartEdge, signer: Signer, tmp_path: Path
) -> None:
    redis = Redis(tmp_path)
    try:
        hub, publisher = make_users(redis)
        collector = start_collector(directory={"key": str(tmp_path / "directory.key"), "hub": publisher})
        adds(collector, "dora")
        edge = start_edge(hub=hub, directory={"from": "hub", "trust": signer.public_key})
        each(edge, "dora", 200, "she is known")
        until(lambda: edge.status()["hub"]["state"] == "up", "the hub has the functions for edges")
        revokes(collector, "dora")
        each(edge, "dora", 401, "a revoked key is refused")
        reported_and_restored(collector, edge)
        redis.kill()
        adds(collector, "eve")
        redis.start()  # It has no data on disk, so the collector copies everything again.
        make_users(redis)
        each(edge, "eve", 200, "the copy is whole again")
        until(lambda: edge.status()["hub"]["state"] == "up", "the functions are there again")
        assert edge.status()["directory"]["refused"] is None
        assert asks(edge, UNLIMITED) == 200
    finally:
        redis.kill()


def readiness(edge: Edge) -> tuple[int, str | None]:
    """Return the answer of the admin listener: the status, and the reason for not being ready."""
    answer = ask(edge.admin, "/readyz")
    return answer.status, answer.json()["reason"]


def test_edge_becomes_ready_after_loading_its_customers(
    start_collector: StartCollector, upstream: Upstream, signer: Signer, tmp_path: Path
) -> None:
    """The edge states the reason for its wait, then serves every first request. It knows the data on its disk at
    once.
    """
    collector = start_collector()
    adds(collector, "dora")
    collector.kill()
    collector.settings["directory"] = {"key": str(tmp_path / "directory.key")}
    with closing(Edge(tmp_path / "edge", upstream.port, **follows(collector, signer))) as edge:
        edge.begin()
        until(lambda: "edge serving" in edge.output, "its workers serve")
        status, why = readiness(edge)
        assert (status, (why or "").partition(":")[0]) == (503, "the directory is not read yet")
        collector.start()
        until(edge.ready, "the edge is ready")
        assert {asks(edge, "dora") for _ in range(8)} == {200}
        edge.end()
        collector.kill()
        edge.start()
        assert asks(edge, "dora") == 200
        collector.start()  # It accepts the edge's counts.


def test_a_reload_of_each_side_turns_the_directory_on_and_changes_its_key(
    start_collector: StartCollector, start_edge: StartEdge, signer: Signer, tmp_path: Path
) -> None:
    """The edge stays ready meanwhile, and no change needs a restart."""
    collector = start_collector()
    adds(collector, "dora")
    edge = start_edge(usage=follows(collector, signer)["usage"])
    assert asks(edge, "dora") == 401

    def publishes(directory: dict[str, str] | None) -> None:
        collector.settings.pop("directory", None)
        collector.settings |= {} if directory is None else {"directory": directory}
        collector.write()
        before = collector.output.count('"reloaded"')
        assert collector.process is not None
        collector.process.send_signal(signal.SIGHUP)
        until(lambda: collector.output.count('"reloaded"') > before, "the collector has reloaded")
        assert json.loads(collector.output.splitlines()[-1]).get("needs_restart", []) == []

    assert edge.reload(directory=follows(collector, signer)["directory"]).json()["needs_restart"] == []
    assert readiness(edge) == (200, None), "the edge keeps serving before the first version"
    publishes({"key": str(tmp_path / "directory.key")})
    each(edge, "dora", 200, "the directory is followed")
    directory_signatures.create_key_file(tmp_path / "other.key")
    trust = [signer.public_key, Signer.load(tmp_path / "other.key").public_key]
    assert edge.reload(directory={"from": "collector", "trust": trust}).status == 200
    publishes({"key": str(tmp_path / "other.key")})
    assert edge.reload(directory={"from": "collector", "trust": trust[1:], "max_age": "1h"}).status == 200
    adds(collector, "eve")
    each(edge, "eve", 200, "what the new key has signed is followed")
    # An invalid file changes nothing, and the published directory stays valid.
    collector.settings["directory"] = {"key": str(tmp_path / "none.key")}
    collector.write()
    assert collector.process is not None
    collector.process.send_signal(signal.SIGHUP)
    until(lambda: "the configuration was refused" in collector.output, "the configuration is refused")
    adds(collector, "fay")
    each(edge, "fay", 200, "changes are published still")
    publishes(None)
    del edge.settings["directory"]
    assert edge.reload().status == 200
    each(edge, "dora", 401, "nobody of the directory is known any more")


def test_limits_are_raised_within_seconds_and_fall_back_without_a_collector(
    start_collector: StartCollector, start_edge: StartEdge, signer: Signer, tmp_path: Path
) -> None:
    """The edge ends the raise by itself. A killed collector ends it once it runs again."""
    collector = start_collector(directory={"key": str(tmp_path / "directory.key")})
    edge = start_edge(tiers={**TIERS, "own": {"limits": [{"rate": "100/day"}]}}, **follows(collector, signer))
    adds(collector, "dora")
    path = "/v1/customers/dora/limits/raise"

    def limits() -> set[str]:
        answers = [edge.ask(fields={"Authorization": f"Bearer {key_of('dora')}"}) for _ in range(8)]
        policies = [dict(answer.fields).get("ratelimit-policy", "") for answer in answers]
        return {policy.partition("q=")[2].partition(";")[0] for policy in policies}

    until(lambda: limits() == {"100"}, "the tier's limit holds")
    began = time.monotonic()
    assert collector.send("POST", path, {"factor": 5, "for": "1h", "why": "night"}).status == 201
    until(lambda: limits() == {"500"}, "all workers have the raised limit")
    assert time.monotonic() - began < 15, "within seconds"

    ends = time.time() + 6.0

    async def bring_end_forward(connection: AsyncConnection) -> None:
        await connection.execute(sa.update(limit_raises).values(ends_at=int(ends * 1000)))
        await documents.enqueue_changes(connection, "customer", ["dora"])

    version = edge.status()["directory"]["version"]
    changes(collector, bring_end_forward)
    until(lambda: edge.status()["directory"]["version"] != version, "the edge knows of the new end")
    collector.kill()
    until(lambda: limits() == {"100"}, "no collector serves, and the usual limit holds again", seconds=30)
    assert time.time() >= ends
    collector.start()

    def reverts() -> list[str]:
        entries = collector.get("/v1/audit", token=ADMIN, target="dora", limit="1000").json()["entries"]
        return [entry["actor"] for entry in entries if entry["action"] == "limits.revert"]

    until(lambda: reverts() == ["collector"], "the collector takes it out of the database", seconds=30)
    assert limits() == {"100"}


def test_customer_token_changes_the_preferred_region(
    start_collector: StartCollector, start_edge: StartEdge, upstream: Upstream, signer: Signer, tmp_path: Path
) -> None:
    """Other regions execute its requests within seconds, as each answer states. Other customers stay."""
    regions = {"names": ["eu-test", "us-east", "moon"]}
    directory = {"key": str(tmp_path / "directory.key")}
    collector = start_collector(directory=directory, regions=regions, tiers={"own": {}, "basic": {}})
    adds(collector, "dora", "eve")
    tokens = {
        name: collector.send("POST", "/v1/tokens", {"name": f"of-{name}", "customer": name}).json()["secret"]
        for name in ("dora", "eve")
    }
    path = "/v1/customers/dora/preferred-region"
    near = f"http://127.0.0.1:{upstream.port}"
    endpoints: list[Any] = [near, {"url": near.replace("127.0.0.1", "localhost"), "region": "us-east"}]
    edge = start_edge(
        **follows(collector, signer), upstreams={"api": {"endpoints": endpoints}}, region_fields=["X-Edge-Region"]
    )

    def executes(customer: str) -> set[str | None]:
        fields = {"Authorization": f"Bearer {key_of(customer)}"}
        return {dict(edge.ask(fields=fields).fields).get("x-edge-region") for _ in range(8)}

    until(lambda: executes("dora") == {"eu-test"}, "dora is served in her region")
    assert collector.send("PUT", path, {"region": "us-east"}, token=tokens["eve"]).status == 403
    assert collector.send("PUT", path, {"region": "mars"}, token=tokens["dora"]).status == 422
    answer = collector.send("PUT", path, {"region": "us-east"}, token=tokens["dora"])
    assert (answer.status, answer.json().get("regions")) == (200, {"prefer": "us-east"}), answer
    until(lambda: executes("dora") == {"us-east"}, "dora has moved")
    assert executes("eve") == {"eu-test"}
    assert collector.get("/v1/regions/best", token=READ, customer="dora").json()["because"] == "prefer"
    # If the operator allows only some regions, the customer can choose among those only, and the choice keeps them.
    allowed = {"regions": {"allow": ["eu-test", "moon"]}}
    assert collector.send("PATCH", "/v1/customers/dora", allowed).status == 200
    assert collector.send("PUT", path, {"region": "us-east"}, token=tokens["dora"]).status == 422
    for region, regions in (("eu-test", {**allowed["regions"], "prefer": "eu-test"}), (None, allowed["regions"])):
        answer = collector.send("PUT", path, {"region": region}, token=tokens["dora"])
        assert answer.json()["regions"] == regions
