"""A hub of several nodes: hosts find each key in its node, and report again the counts that a node loses."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import RedisError

from edgeproxy.config.addresses import Address
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rate_terms import RateTerms
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.sync.shared import RowUse, SharedRate, SharedRates
from edgeproxy.hub.calls import build_rate_call
from edgeproxy.hub.cluster import (
    IS_CLUSTER_NODE,
    IS_NO_CLUSTER,
    SlotRange,
    load_functions,
    open_link,
    parse_slot_ranges,
)
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.hub import Hub
from edgeproxy.hub.redis import HOSTS_KEY, Link, Tls
from edgeproxy.hub.report import Cell, Gauge, Period, Report, Window
from loadtest.testbed.authority import Authority
from loadtest.testbed.redis import SERVER, SLOTS, Cluster, Redis, free_port
from loadtest.testbed.waiting import turned
from tests.support.hosts import LAYOUT
from tests.support.hub_rights import documented
from tests.support.hub_state import HOST_BYTES, sum_cells
from tests.support.reached_hub import reached, tried
from tests.support.tables import limits, make

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

RULE = Rule("basic", 600, 60.0)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three primaries."""
    with Cluster(tmp_path_factory.mktemp("three")) as cluster:
        yield cluster


def report(key: bytes, seq: int, used: int, instance: int = 1) -> Report:
    window = Window(10, 28, 1000, (Cell(1000, used, 0),))
    return Report(key, instance, seq, 1, 2142.0, 60.0, used, window=window)


def totals_of(key: bytes) -> bytes:
    return build_rate_call(report(key, 1, 1))[0][0]


class Host:
    """A supervisor and a worker with one row for each customer, on a real hub. No request is refused."""

    def __init__(self, folder: Path, hub: Hub, instance: int, customers: list[bytes]) -> None:
        folder.mkdir()
        path = make(folder, LAYOUT)
        self.hub = hub
        self.table, self._worker = limits(path), limits(path, 0)
        self._policies = Policies(self._worker, hosts=2)
        self._seqs = itertools.count(1 << 32)
        self.shared = SharedRates(self.table, instance)
        self.shared.hosts = 2
        self.used = {customer: self._policies.get_policy(RULE, customer) for customer in customers}
        self.counted: Counter[bytes] = Counter()
        self.away: Counter[str] = Counter()
        """Counts of reports without an answer, by error."""

    @staticmethod
    def now() -> float:
        return 50_000_000 + monotonic()

    def count(self, customer: bytes) -> None:
        """Let a request of the customer pass and count it."""
        assert self.used[customer].left(self.now()) >= 1
        self.used[customer].charge(1)
        self.counted[customer] += 1
        row = self._worker.readers[RULE.key(customer)].row
        terms = RateTerms(RULE.limit, RULE.window, LAYOUT.cells)
        self.shared.record_use(RowUse(row, self.table.words[row + at.ROW_GENERATION], terms), self.now())

    def turn(self) -> None:
        """Send the due reports to the hub."""
        for row, said in self.shared.build_reports(self.now(), self._seqs):
            self.hub.report_rate(said).add_done_callback(partial(self._answered, row, said))

    def _answered(self, row: SharedRate, said: Report, answer: Any) -> None:
        if answer.exception() is not None:
            self.away[str(answer.exception())] += 1
            self.shared.hold_row(row, self.now(), "share")
        else:
            self.shared.apply_answer(row, self.now(), said.seq, answer.result())

    def held(self) -> set[bytes]:
        """Return the customers whose limits this host applies without the hub at present."""
        held = {row.plan.key for row in self.shared._rows.values() if row.held is not None}
        return {customer for customer in self.used if RULE.key(customer) in held}


class Pair:
    """Two hosts on a cluster, and the counts that the cluster has from them."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self._folder = cluster, folder
        self.hosts: list[Host] = []
        self.customers = [f"{folder.name}-{number}".encode() for number in range(12)]

    async def __aenter__(self) -> "Pair":
        self._ends = AsyncExitStack()
        for instance in (1, 2):
            hub = await self._ends.enter_async_context(reached(self.cluster.url, instance, renewed=self._renewed))
            self.hosts.append(Host(self._folder / f"host-{instance}", hub, instance, self.customers))
        await turned(lambda: all(host.hub.hosts == 2 for host in self.hosts), "both are on the hub")
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._ends.aclose()

    def _renewed(self, has: Callable[[bytes], bool]) -> None:
        for host in self.hosts:
            host.shared.schedule_renewal(has, host.now())

    def count(self) -> None:
        """Count a request of every customer at each host."""
        for host in self.hosts:
            for customer in self.customers:
                host.count(customer)

    def turn(self) -> bool:
        for host in self.hosts:
            host.turn()
        return True

    def at_hub(self, customer: bytes) -> int:
        """Return the total of all hosts in the customer's node, or -1 if the node does not answer."""
        key = totals_of(RULE.key(customer))
        try:
            return int(sum_cells(self.cluster.tell(self.cluster.owner(key), "GET", key)))
        except RedisError:
            return -1

    def counted(self, customer: bytes) -> int:
        return sum(host.counted[customer] for host in self.hosts)

    def is_told(self, customers: list[bytes] | None = None) -> bool:
        """Return whether the hub has every count exactly once."""
        self.turn()
        return all(self.at_hub(customer) == self.counted(customer) for customer in customers or self.customers)

    async def told(self, customers: list[bytes] | None = None) -> None:
        await turned(lambda: self.is_told(customers), "the hub has every count")

    def customers_of(self, node: Redis) -> list[bytes]:
        """Return the customers whose counts are in this node."""
        there = [customer for customer in self.customers if self.cluster.owner(totals_of(RULE.key(customer))) is node]
        assert there
        return there


# ---- the node of a key


def test_cluster_hub_routes_keys_to_nodes_and_reads_one_clock(three: Cluster) -> None:
    async def play() -> None:
        async with reached(three.url) as one, reached(three.url, 2) as other:
            keys = [b"agree-%d" % number for number in range(30)]
            assert {(await one.report_rate(report(key, 1, 3))).known for key in keys} == {False}
            told = [await other.report_rate(report(key, 1, 1, 2)) for key in keys]
            assert {(sum(each.foreign.values()), each.hosts) for each in told} == {(3, 2)}
            assert len({each.where for each in told}) == 3, "the keys are in all three nodes"
            await one.report_period(Period(b"q", 1, 7, 5))
            assert await other.report_period(Period(b"q", 2, 7, 1)) == (7, 5)
            await one.report_gauge(Gauge(b"g", 1, 3, 1000.0, 1005.0))
            assert await other.report_gauge(Gauge(b"g", 2, 1, 1001.0, 1006.0)) == (3, 2)
            await one.ask("RPUSH", b"dir:{people}:log", "x")
            assert await other.ask("LRANGE", b"dir:{people}:log", 0, -1) == [b"x"]
            await turned(lambda: one.hosts == other.hosts == 2, "both hosts count two hosts")
            clock = one._nodes.find_node(HOSTS_KEY)
            assert clock is not None
            assert clock.link is not None
            assert clock.link.number == one._sampled_link
            assert one.status()["breaker"] == "closed"
            assert [node["state"] for node in one.status()["nodes"]] == ["up"] * 3
            assert one.errors == other.errors == 0

    asyncio.run(play())


def test_key_with_a_brace_digest_is_in_one_slot() -> None:
    for key in (b"}" + bytes(15), b"}{}", b"a}b", b"{}", b"{"):
        assert len({key_slot(bytes(each)) for each in build_rate_call(report(key, 1, 1))[0]}) == 1, key


@pytest.mark.parametrize("host", [None, b"", b"?"])
def test_a_node_without_an_address_of_its_own_has_the_queried_address(host: bytes | None) -> None:
    answer = [[0, 99, [host, 7000, b"id", []]], [100, 200, [b"Other", 7001, b"id"], [b"replica", 7002, b"id"]]]
    assert parse_slot_ranges(answer, "here") == [
        SlotRange(0, 99, Address("here", 7000)),
        SlotRange(100, 200, Address("other", 7001)),
    ]


# ---- keys that move to another node


def moving(cluster: Cluster, slot: int, source: Redis, target: Redis) -> None:
    """Move all keys of a slot as `redis-cli --cluster reshard` does, without the final assignment of the slot."""
    cluster.tell(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.name(source))
    cluster.tell(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.name(target))
    while keys := cluster.tell(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
        cluster.tell(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)


def moved(cluster: Cluster, slot: int, target: Redis) -> None:
    """Assign the slot to the target on all nodes."""
    for node in (target, *(node for node in cluster.nodes if node is not target)):
        cluster.tell(node, "CLUSTER", "SETSLOT", slot, "NODE", cluster.name(target))


def test_cluster_hub_follows_a_moving_slot(three: Cluster) -> None:
    for node in three.nodes:
        three.tell(node, "ACL", "SETUSER", "edge", "on", ">s3cret", *documented())

    async def play() -> None:
        assert await load_functions(three.url, Tls()) == 3
        async with reached(three.url.replace("//", "//edge:s3cret@")) as hub:
            key = totals_of(b"wanders")
            source = three.owner(key)
            target = next(node for node in three.nodes if node is not source)
            there = {node.at: node.link.number for node in hub._nodes.all if node.link}[f"127.0.0.1:{target.port}"]
            before = await hub.report_rate(report(b"wanders", 1, 1))
            assert before.where != there
            moving(three, key_slot(key), source, target)
            asked = await hub.report_rate(report(b"wanders", 2, 2))
            assert (asked.known, asked.where) == (True, there), "ASK"
            with pytest.raises(HubUnavailableError, match="TRYAGAIN"):
                await hub.report_rate(report(b"wanders", 1, 1, instance=7))
            moved(three, key_slot(key), target)
            answers = [hub.report_rate(report(b"wanders", seq, seq)) for seq in range(3, 50)]
            told = [await answer for answer in answers]
            assert {(each.known, each.where) for each in told} == {(True, there)}, "MOVED"
            assert hub._nodes.find_node(key).at == f"127.0.0.1:{target.port}"
            assert hub.is_up

    asyncio.run(play())


def test_moving_slots_loses_no_counts(three: Cluster, tmp_path: Path) -> None:
    async def play() -> None:
        async with Pair(three, tmp_path) as pair:
            pair.count()
            await pair.told()
            for customer in pair.customers[:6]:
                key = totals_of(RULE.key(customer))
                source = three.owner(key)
                target = next(node for node in three.nodes if node is not source)
                pair.count()
                pair.turn()
                moving(three, key_slot(key), source, target)
                pair.count()
                pair.turn()
                moved(three, key_slot(key), target)
            await pair.told()
            assert all(host.hub.is_up for host in pair.hosts)

    asyncio.run(play())


# ---- nodes that fail


def test_a_killed_primary_without_a_replica_affects_only_its_own_keys(three: Cluster, tmp_path: Path) -> None:
    async def play() -> None:
        async with Pair(three, tmp_path) as pair:
            pair.count()
            await pair.told()
            for host in pair.hosts:
                host.away.clear()
            clock = three.owner(HOSTS_KEY)
            offsets = [host.hub.offset for host in pair.hosts]
            gone = pair.customers_of(clock)
            others = [customer for customer in pair.customers if customer not in gone]
            clock.kill()
            pair.count()
            await turned(
                lambda: pair.turn() and all(host.held() == set(gone) for host in pair.hosts),
                "the lost customers' limits are applied without the hub",
            )
            pair.count()
            await pair.told(others)
            for host, offset in zip(pair.hosts, offsets, strict=True):
                assert host.hub.is_up
                assert host.hub.hosts == 2
                assert host.hub.offset == offset
                assert [node["state"] for node in host.hub.status()["nodes"]].count("away") == 1
                assert host.hub.nodes_away == 1
                assert host.hub.errors >= 1, "the loss and each later attempt count as errors"
                assert all("Connection closed" in why or "Connect call failed" in why for why in host.away)
            clock.start()
            await pair.told()
            await turned(
                lambda: pair.turn() and not any(host.held() for host in pair.hosts), "all limits are shared again"
            )
            await turned(
                lambda: three.tell(clock, "STRLEN", HOSTS_KEY) == 2 * HOST_BYTES, "the node counts the hosts again"
            )

    asyncio.run(play())


def test_hosts_report_again_the_counts_that_a_replica_missed(tmp_path: Path) -> None:
    async def play() -> None:
        async with Pair(cluster, tmp_path) as pair:
            pair.count()
            await pair.told()
            primary = cluster.owner(HOSTS_KEY)
            assert pair.customers_of(primary)
            # From here on the replica receives nothing: the junk fills its connection before later commands.
            replica = cluster.replica(primary)
            replica.stop()
            cluster.tell(primary, "SET", b"{%b}:junk" % HOSTS_KEY, bytes(64 << 20))
            pair.count()
            await pair.told()
            primary.kill()
            replica.go_on()
            await turned(lambda: pair.turn() and cluster.owner(HOSTS_KEY) is not primary, "the replica is the primary")
            await pair.told()
            assert all(host.hub.is_up for host in pair.hosts)
            await turned(lambda: all(host.hub.hosts == 2 for host in pair.hosts), "the new primary counts the hosts")

    with Cluster(tmp_path, replicas=1) as cluster:
        asyncio.run(play())


def test_cluster_connects_through_one_answering_node(three: Cluster) -> None:
    living = f"127.0.0.1:{three.nodes[1].port}"
    dead = f"127.0.0.1:{free_port()}"

    async def play() -> None:
        async with reached(f"redis+cluster://{dead},{living}") as hub:
            assert len(hub.status()["nodes"]) == 3
        for number in range(9):
            key = b"dir:{%d}:log" % number
            link = await open_link(key, f"redis+cluster://{living},{dead}", Tls())
            assert await link.ask("LLEN", key) == 0
            await link.close()
        with pytest.raises(HubUnavailableError, match=dead):
            await open_link(b"k", f"redis+cluster://{dead}", Tls())
        async with tried(f"redis+cluster://{dead}") as hub:
            await turned(lambda: dead in (hub.why or ""), "the status names the node that does not answer")
            assert hub.status()["nodes"] == []

    asyncio.run(play())


# ---- a Redis without a cluster, and TLS


def test_a_single_redis_and_a_cluster_node_are_told_from_each_other(three: Cluster, redis_port: int) -> None:
    async def play() -> None:
        async with tried(f"redis+cluster://127.0.0.1:{redis_port}") as hub:
            await turned(lambda: IS_NO_CLUSTER in (hub.why or ""), "the hub reports that this is no cluster")
            assert not hub.is_up
            assert (hub.errors > 0, hub.nodes_away) == (True, 1)
        for node in three.nodes:
            async with tried(node.url) as hub:
                if three.owner(HOSTS_KEY) is node:
                    await turned(lambda hub=hub: hub.is_up, "the node has the key of the hosts")  # type: ignore[misc]
                    for number in range(30):
                        hub.report_rate(report(b"%d" % number, 1, 1)).add_done_callback(asyncio.Future.exception)
                await turned(lambda hub=hub: hub.why == IS_CLUSTER_NODE, "the hub reports a node of a cluster")  # type: ignore[misc]
                assert not hub.is_up

    asyncio.run(play())


def test_a_cluster_of_one_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    files = ("--tls-cert-file", str(issued.cert), "--tls-key-file", str(issued.key), "--tls-auth-clients", "no")
    port = free_port()
    given = ("--port", "0", "--tls-port", str(port), "--tls-ca-cert-file", str(authority.file), "--tls-cluster", "yes")
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--requirepass", "s3cret")
    tls = Tls(ca=str(authority.file))

    async def play() -> None:
        operator = await Link.open(f"rediss://:s3cret@localhost:{port}/0", tls)
        await operator.ask("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        await operator.close()
        # The node knows no address of its own, so the hub uses the address in the URL.
        async with reached(f"rediss+cluster://:s3cret@localhost:{port}", tls=tls) as hub:
            assert (await hub.report_rate(report(b"k", 1, 1))).hosts == 1
            assert hub.status()["nodes"] == [{"node": f"localhost:{port}", "state": "up", "breaker": "closed"}]
            assert "s3cret" not in str(hub.status())
        async with tried(f"redis+cluster://:s3cret@localhost:{port}") as hub:
            await turned(lambda: hub.why != "not reached yet", "the hub has tried to connect")
            assert not hub.is_up

    with Redis(tmp_path, *files, *given, *cluster):
        asyncio.run(play())
