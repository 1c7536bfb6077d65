"""Customers of two residencies behind edges of two regions: each customer's usage comes to its own collector, once."""

import hashlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.regions.relay import Link
from loadtest.testbed.collector import ADMIN, EDGE, Collector, checked
from loadtest.testbed.customers import TIERS, key_line, key_of
from loadtest.testbed.edge import Edge, total
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.redis import Redis
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

NAMES = ("eu", "us")
PAUSE_SECONDS = 0.25
"""Seconds between two rounds of requests during a move. Each round makes batches, which take a core from the move."""
KILLS = 16
"""The number of API calls of a move; the command is killed after each of them in turn. The last calls wait for
edges.
"""
KILLED_COMMAND = """
import os, signal, sys
from edgeproxy.cli import api, main
calls, call = int(sys.argv.pop(1)), api.Api.call
def call_and_die(*arguments, **options):
    global calls
    answer = call(*arguments, **options)
    calls -= 1
    if not calls:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
api.Api.call = call_and_die
main()
"""
"""Runs `edgeproxy` and sends it SIGKILL after this many API calls; 0: never."""


def planted(what: str) -> str:
    """Return a text that only the residency eu may hold."""
    return f"planted-{what}"


ANNA = planted("name")
"""A customer of eu. The key is made of the name, so it has the text too."""


DIRECTED = ("203.0.113.77", "directed-message")
"""Data that edges need to serve a customer, so every directory holds it, and no other place may."""


class World:
    """A collector and an edge for each of the residencies eu and us. Each edge has its own residency as its home."""

    def __init__(self, folder: Path, databases: dict[str, str], upstream: int, ends: ExitStack) -> None:
        self.folder, self.upstream = folder, upstream
        (folder / "hub").mkdir()
        self.hub = ends.enter_context(Redis(folder / "hub", "--rdbcompression", "no"))
        """The hub that all edges share. Its content can be written to a file."""
        self.answered: Counter[tuple[str, str]] = Counter()
        """Billable answers that clients got, by residency and customer."""
        self.lost = 0
        """Requests that clients sent without an answer."""
        self.signers = {}
        self.collectors: dict[str, Collector] = {}
        for name in NAMES:
            key = folder / f"{name}.key"
            directory_signatures.create_key_file(key)
            self.signers[name] = Signer.load(key)
            made = Collector(
                folder / f"{name}-collector",
                databases[name],
                residency=name,
                privacy={"pseudonyms": "true"},
                directory={"key": str(key)},
                tiers=TIERS,
                customers={},
            )
            self.collectors[name] = ends.enter_context(closing(made)).start()
        self.links = {
            (region, residency): ends.enter_context(Link(self.collectors[residency].port, 0.0))
            for region, residency in (NAMES, NAMES[::-1])
        }
        """An edge's link to the collector of the other residency."""
        self.edges: dict[str, Edge] = {}
        for name in NAMES:
            log = {"file": str(folder / f"{name}-edge/access.log")}
            edge = Edge(
                folder / f"{name}-edge",
                upstream,
                region=f"{name}-1",
                workers=1,
                hub=self.hub.url,
                access_log=log,
                **self.settings(name),
            )
            self.edges[name] = ends.enter_context(closing(edge))

    def settings(self, home: str) -> dict[str, Any]:
        """Return the residencies in an edge's settings with this home, and its own customer."""
        residencies = {}
        for name, collector in self.collectors.items():
            port = collector.port if name == home else self.links[home, name].port
            usage = {"collector": f"http://{HOST}:{port}", "token": EDGE, "every": "100ms"}
            directory = {"from": "collector", "trust": self.signers[name].public_key}
            residencies[name] = {"usage": usage, "directory": directory, **({"home": "true"} if name == home else {})}
        local = f"{home}-local"
        return {
            "residency": residencies,
            "tiers": TIERS,
            "customers": {local: {"tier": "own"}},
            "keys": [key_line(local)],
        }

    def create(self, residency: str, customer: str, **more: object) -> None:
        """Create a customer with a key in the database of a residency."""
        collector = self.collectors[residency]
        assert collector.send("POST", "/v1/customers", {"name": customer, "tier": "pro", **more}).status == 201
        digest = hashlib.sha256(key_of(customer).encode()).hexdigest()
        assert collector.send("POST", f"/v1/customers/{customer}/keys", {"sha256": digest}).status == 201

    def ask(self, region: str, customer: str, residency: str) -> int:
        """Send one request in a region; a billable answer is counted."""
        try:
            status = self.edges[region].ask(fields={"Authorization": f"Bearer {key_of(customer)}"}).status
        except OSError:
            self.lost += 1
            return 0
        if status == 200:
            self.answered[residency, customer] += 1
        return status

    def known(self, region: str, customer: str, residency: str) -> None:
        """Wait until an edge serves a customer."""
        until(lambda: self.ask(region, customer, residency) == 200, f"{region} knows {customer}")

    def ledger(self, residency: str) -> dict[str, int]:
        """Return the requests in the ledger of a residency, by customer."""
        rows = self.collectors[residency].usage(by="customer", meter="requests")["rows"]
        return {row["customer"]: row["value"] for row in rows if row["value"]}

    def expected(self, residency: str) -> dict[str, int]:
        """Return the requests that the ledger should hold if nothing was killed."""
        return {customer: count for (where, customer), count in self.answered.items() if where == residency}

    def settle(self) -> None:
        """Wait until each ledger holds all answered requests, and verify both."""
        for name in NAMES:
            until(lambda name=name: self.ledger(name) == self.expected(name), f"the ledger of {name} is complete")
            code, said = checked(self.collectors[name])
            assert code == 0, said

    def end(self) -> None:
        """Stop everything except the hub."""
        for part in (*self.edges.values(), *self.collectors.values()):
            part.end()

    def start(self) -> None:
        """Start the stopped parts."""
        for part in (*self.collectors.values(), *self.edges.values()):
            part.start()

    def status(self, region: str) -> dict[str, Any]:
        usage: dict[str, Any] = self.edges[region].status()["usage"]
        return usage


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, postgresql: Postgresql) -> Iterator[World]:
    """A world that tests share and leave settled; eu is on PostgreSQL, us on SQLite."""
    folder = tmp_path_factory.mktemp("world")
    with ExitStack() as ends:
        databases = {"eu": postgresql.database(), "us": f"sqlite:///{folder}/us-data/ledger.db"}
        made = World(folder, databases, upstream.port, ends)
        told = {"external_id": planted("external-id"), "metadata": {"note": planted("metadata")}}
        networks = {"allow": ["127.0.0.0/8", f"{DIRECTED[0]}/32"]}
        made.create("eu", ANNA, **told, networks=networks, message=DIRECTED[1])
        contact = {"emails": [f"{planted('contact')}@example.eu"]}
        assert made.collectors["eu"].send("PUT", f"/v1/customers/{ANNA}/contacts", contact).status == 200
        made.create("us", "bob")
        for edge in made.edges.values():
            edge.start()
        for region in NAMES:
            made.known(region, ANNA, "eu")
            made.known(region, "bob", "us")
        yield made


def test_usage_reaches_the_residency_collector_from_each_region(world: World) -> None:
    for region in NAMES:
        for _ in range(3):
            assert world.ask(region, ANNA, "eu") == world.ask(region, "bob", "us") == 200
            assert world.ask(region, f"{region}-local", region) == 200
    world.settle()
    for region in NAMES:
        chains = world.status(region)["residencies"]
        assert len({chain["edge"] for chain in chains.values()}) == 2
        assert {chain["shipping"]["state"] for chain in chains.values()} <= {"idle", "shipping"}
        samples = world.edges[region].metrics()
        assert total(samples, "edge_residency_shipping_ok", residency="eu") == 1
        assert total(samples, "edge_residency_shipping_ok", residency="us") == 1
    # Neither chain has a row of the other residency's customers.
    assert set(world.ledger("us")) == {"bob", "us-local"}
    assert set(world.ledger("eu")) == {ANNA, "eu-local"}


def test_limits_in_use_are_reported_by_both_regions_to_the_customers_own_collector(world: World) -> None:
    path = f"/v1/customers/{ANNA}/limits"
    for region in NAMES:
        world.known(region, ANNA, "eu")

    def live() -> dict[str, int]:
        edges = world.collectors["eu"].get(path).json()["live"]
        return {edge["region"]: max(limit["peak"] for limit in edge["limits"]) for edge in edges if edge["limits"]}

    live()
    until(lambda: len(live()) == len(NAMES), "both regions have reported", seconds=30.0)
    for region in NAMES:
        world.ask(region, ANNA, "eu")
    until(lambda: min(live().values()) > 0, "the usage is reported", seconds=30.0)
    assert world.collectors["us"].get(path).status == 404


def test_unreachable_collector_does_not_delay_other_residencies(world: World) -> None:
    world.settle()
    world.collectors["eu"].end()
    for region in NAMES:
        for _ in range(5):
            assert world.ask(region, ANNA, "eu") == world.ask(region, "bob", "us") == 200
    expected = world.expected("us")
    until(lambda: world.ledger("us") == expected, "the other ledger goes on")
    assert world.status("us")["residencies"]["eu"]["batches"] > 0
    world.collectors["eu"].start()
    world.settle()


def test_kills_between_seals_count_each_row_in_one_residency_chain(world: World) -> None:
    for turn in range(4):
        edge = world.edges[NAMES[turn % 2]]
        for _ in range(10):
            world.ask(NAMES[turn % 2], ANNA, "eu")
            world.ask(NAMES[turn % 2], "bob", "us")
        edge.supervisor.kill_all()
        edge.supervisor.wait(10)
        if turn == 1:
            world.collectors["us"].kill()
            world.collectors["us"].start()
        edge.start()
    assert world.lost == 0
    world.settle()
    for region in NAMES:
        world.edges[region].end()
        for residency in NAMES:
            state = str(world.folder / f"{region}-edge/state")
            done = CliRunner().invoke(cli.app, ["spool", "verify", "--state", state, "--residency", residency])
            assert done.exit_code == 0, done.output
        world.edges[region].start()


def test_batch_of_another_residency_is_refused_unread(world: World) -> None:
    answer = world.collectors["us"].send("POST", "/v1/batches", b"{}", token=EDGE, Edge_Residency="eu")
    assert answer.status == 422  # Its other header fields are missing.
    fields = {"Edge_Id": "edge-1", "Edge_Seq": "1", "Edge_Hash": "0" * 64, "Edge_Residency": "eu"}
    answer = world.collectors["us"].send("POST", "/v1/batches", b"{}", token=EDGE, **fields)
    assert answer.status == 403
    assert "this collector is of us" in answer.body.decode()


def test_a_customer_moves_without_a_refusal_and_without_a_count_in_two_ledgers(world: World) -> None:
    world.create("eu", "mara", tier="free")
    for region in NAMES:
        world.known(region, "mara", "eu")
    before = sum(world.answered.values())
    world.create("us", "mara", tier="free")
    answer = world.collectors["eu"].patch("/v1/customers/mara", b'{"moved": "us"}')
    assert answer.status == 200, answer
    served = Counter[str]()

    def is_over(region: str) -> bool:
        """Return whether the latest request was counted in us."""
        assert world.ask(region, "mara", "moving") == 200
        served[region] += 1
        return world.edges[region].usage().get(counted_as("us", region, world), 0) > 0

    for region in NAMES:
        until(lambda region=region: is_over(region), f"{region} serves mara as a customer of us")
    moving = world.answered.pop(("moving", "mara"))
    assert moving == sum(served.values())
    there = world.expected("eu")["mara"] + moving

    def is_complete() -> bool:
        return world.ledger("eu")["mara"] + world.ledger("us").get("mara", 0) == there

    until(is_complete, "both ledgers together have each request once")
    world.answered["us", "mara"] = world.ledger("us")["mara"]
    world.answered["eu", "mara"] = world.ledger("eu")["mara"]
    world.settle()
    assert sum(world.answered.values()) == before + moving


@contextmanager
def asking(world: World, customer: str, *others: tuple[str, str]) -> Iterator[Counter[int]]:
    """Send a customer's requests in both regions continuously, beside others in their residencies. Yields the
    statuses.
    """
    statuses, stop = Counter[int](), Event()

    def ask_on() -> None:
        while not stop.wait(PAUSE_SECONDS):
            for region in NAMES:
                statuses[world.ask(region, customer, "moving")] += 1
                for name, residency in others:
                    world.ask(region, name, residency)

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(ask_on)
        try:
            yield statuses
        finally:
            stop.set()
            work.result()


def run_move(world: World, customer: str, calls: int, *, wait: int = 200) -> tuple[int, str]:
    """Move a customer from eu to us with a command that is killed after this many calls. Returns its exit and
    output.
    """
    urls = {name: f"http://{HOST}:{collector.port}" for name, collector in world.collectors.items()}
    command = ["residency", "move", customer, "--from", urls["eu"], "--to", urls["us"], "--quiet", "3"]
    command += ["--wait", str(wait)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_COMMAND, str(calls), *command],
        env=os.environ | {"EDGEPROXY_FROM_TOKEN": ADMIN, "EDGEPROXY_TO_TOKEN": ADMIN},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_move_with_kills_refuses_no_request_and_counts_each_once(world: World) -> None:
    """The command is killed after each of its calls, and with it a collector, eu and us in turn."""
    lost = world.lost
    for calls in range(1, KILLS + 1):
        customer = f"killed-{calls}"
        world.create("eu", customer, tier="free")
        for region in NAMES:
            world.known(region, customer, "eu")
        with asking(world, customer, (ANNA, "eu"), ("bob", "us")) as statuses:
            code, text = run_move(world, customer, calls)
            assert code == -signal.SIGKILL, text
            collector = world.collectors[NAMES[calls % 2]]
            collector.kill()
            collector.begin()  # The command waits until it listens.
            code, text = run_move(world, customer, 0)
            assert code == 0, text
            for region in NAMES:
                until(lambda one=(region, customer): is_counted_in_us(*one, world), f"{region} is over")
        assert statuses.keys() == {200}
        await_each_once(world, customer)
    assert world.lost == lost
    world.settle()


@pytest.mark.parametrize(("region", "residency"), [NAMES, NAMES[::-1]])
def test_move_waits_for_an_unreachable_collector_and_counts_requests_once(
    world: World, region: str, residency: str
) -> None:
    customer, lost = f"cut-off-{region}", world.lost
    world.create("eu", customer, tier="free")
    for name in NAMES:
        world.known(name, customer, "eu")
    with asking(world, customer) as statuses:
        world.links[region, residency].cut()
        code, text = run_move(world, customer, 0, wait=5)
        assert (code, "not all edges are over" in text) == (1, True), text
        assert world.collectors["eu"].get(f"/v1/customers/{customer}", token=ADMIN).json()["state"] == "active"
        world.links[region, residency].heal()
        code, text = run_move(world, customer, 0)
        assert code == 0, text
        for name in NAMES:
            until(lambda name=name: is_counted_in_us(name, customer, world), f"{name} is over")
    assert (statuses.keys(), world.lost) == ({200}, lost)
    await_each_once(world, customer)
    world.settle()


def await_each_once(world: World, customer: str) -> None:
    """Wait until both ledgers together hold each request of a moved customer."""
    expected = world.answered.pop(("moving", customer)) + world.answered["eu", customer]
    until(lambda: count_in_both(world, customer) == expected, "each request is counted once")
    for name in NAMES:
        world.answered[name, customer] = world.ledger(name)[customer]


def count_in_both(world: World, customer: str) -> int:
    """Return the requests of a customer in both ledgers together."""
    return sum(world.ledger(name).get(customer, 0) for name in NAMES)


def is_counted_in_us(region: str, customer: str, world: World) -> bool:
    """Return whether an edge counts a customer as one of us."""
    return world.edges[region].usage().get(counted_as("us", region, world, customer), 0) > 0


def counted_as(residency: str, region: str, world: World, customer: str = "mara") -> str:
    """Return the name under which an edge counts a customer of a residency."""
    collector = world.collectors[residency]
    pseudonym = f"c-{collector.get(f'/v1/customers/{customer}', token=ADMIN).json()['id']}"
    return pseudonym if region == residency else f"{residency}:{pseudonym}"


def find_planted(folder: Path) -> list[str]:
    """Return the files below a folder that contain a planted text."""
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and b"planted-" in path.read_bytes()]


def test_no_byte_of_a_person_is_in_anything_of_the_other_side(world: World) -> None:
    for region in NAMES:
        for _ in range(5):
            assert world.ask(region, ANNA, "eu") == 200
        assert world.ask(region, ANNA + "-mistyped", "eu") == 401
    world.settle()
    shown = {region: repr((edge.status(), edge.metrics(), edge.usage())) for region, edge in world.edges.items()}
    world.end()
    with redis.Redis(port=world.hub.port) as client:
        assert any(b"c-" in key for key in client.keys("*"))
        client.save()
    # The other side: its collector, database and log, its edge with state, spool, caches and logs; and the hub.
    assert "planted-" not in shown["us"]
    for name in ("us-collector", "us-data", "us-edge", "hub"):
        assert [path for path in (world.folder / name).rglob("*") if path.is_file()], name
        assert find_planted(world.folder / name) == []
    directed = {
        path.relative_to(world.folder).parts[0] + "/" + path.name
        for path in world.folder.rglob("*")
        if path.is_file() and any(text.encode() in path.read_bytes() for text in DIRECTED)
    }
    assert {place for place in directed if place.startswith(("us-", "hub"))} == {"us-edge/directory.db"}, directed
    # Edges of every region know only a pseudonym.
    assert find_planted(world.folder / "eu-edge") == []
    assert "planted-" not in shown["eu"]
    # The text is present in its own residency, so the search works.
    world.start()
    assert b"planted-name" in world.collectors["eu"].get(f"/v1/customers/{ANNA}", token=ADMIN).body
    assert world.collectors["us"].get(f"/v1/customers/{ANNA}", token=ADMIN).status == 404


def test_a_home_is_for_life(world: World) -> None:
    edge = world.edges["us"]
    edge.end()
    edge.start(**world.settings("eu"))
    until(lambda: world.status("us")["sealing"] is not None, "sealing has stopped")
    assert "of the residency us, and eu is configured" in world.status("us")["sealing"]["why"]
    edge.end()
    edge.start(**world.settings("us"))
    world.ask("us", ANNA, "eu")
    world.settle()
