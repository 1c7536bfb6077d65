"""The nodes of a hub, and the node of each key: one Redis has all keys, and in a Redis Cluster each slot has a node.

Any answering node of a cluster is asked for the slots: at intervals, and whenever a node redirects a key or is lost.
There is one Node for each primary. Replicas are not used until they become primaries.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import NamedTuple, Protocol

from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisError, ResponseError

from edgeproxy.base.tasks import Tasks
from edgeproxy.config.addresses import Address, split_address
from edgeproxy.config.hub_settings import CLUSTERS, SENTINELS, HubUrl
from edgeproxy.hub.bounds import format_invalid_answer
from edgeproxy.hub.breaker import Breaker
from edgeproxy.hub.calls import RedisAnswer
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.node import Node
from edgeproxy.hub.redis import ANSWER_SECONDS_MAX, HOSTS_KEY, PARSE_ERRORS, Link, Tls, find_primary, format_error

SLOTS_REFRESH_SECONDS = 10.0
"""Seconds between two queries of the slots, plus or minus half."""
LOST_NODE_REFRESH_SECONDS = 1.0
"""The same while a node is lost, because a replica may have replaced it."""
SLOTS_REFRESH_SECONDS_MIN = 0.2
"""The minimum seconds between two queries, for any reason."""
IS_CLUSTER_NODE = "it is one node of a Redis Cluster: write redis+cluster:// as the hub's URL"
IS_NO_CLUSTER = "it is no Redis Cluster: write redis:// as the hub's URL"

NodeFactory = Callable[[str], Node]
"""Creates the node of a URL, not yet connected."""


class Nodes(Protocol):
    """The nodes of a hub, and the node of each key."""

    why: str | None
    """The reason why the nodes are unknown. None: they are known."""

    @property
    def all(self) -> Sequence[Node]:
        """All known nodes."""

    def find_node(self, key: bytes) -> Node | None:
        """Return the node of this key, or None."""

    def heartbeat_key(self, node: Node) -> bytes:
        """Return the key for heartbeats on this node."""

    def follow_redirect(self, node: Node, redirect: AskError) -> Node | None:
        """Return the target of this node's redirect. None: it is unknown. Raises HubUnavailableError."""

    def refresh_soon(self) -> None:
        """Refresh the nodes soon, because one was lost or redirects a key."""

    async def run(self) -> None:
        """Connect to the nodes, and reconnect, until cancelled."""


class SingleNode:
    """One Redis."""

    def __init__(self, url: str, make: NodeFactory) -> None:
        self.why: str | None = None
        self._node = make(url)
        self.all: Sequence[Node] = (self._node,)

    def find_node(self, key: bytes) -> Node:
        """Return the one node."""
        return self._node

    def heartbeat_key(self, node: Node) -> bytes:
        """Return the key of the hosts."""
        return HOSTS_KEY

    def follow_redirect(self, node: Node, redirect: AskError) -> None:
        """Raise HubUnavailableError, because the node belongs to a cluster and cannot be used by itself."""
        if node.link is not None:
            node.link.lose(IS_CLUSTER_NODE)
        raise HubUnavailableError(IS_CLUSTER_NODE)

    def refresh_soon(self) -> None:
        """Do nothing, because there is no other node."""

    async def run(self) -> None:
        """Connect to the node, and reconnect, until cancelled."""
        await self._node.run()


class SlotRange(NamedTuple):
    """Adjacent slots, both ends included, and their primary."""

    first: int
    last: int
    at: Address


def parse_slot_ranges(answer: RedisAnswer, answering_host: str) -> list[SlotRange]:
    """Parse the answer to CLUSTER SLOTS. `answering_host`: the host of a node that does not know its own address.

    Raises one of PARSE_ERRORS if the answer is invalid.
    """
    slot_ranges = []
    for first, last, (host, port, *_), *_ in answer:
        name = (host or b"").decode()
        if not (0 <= first <= last < SLOTS and 0 < port < 1 << 16):
            raise ValueError("there are no such slots, or ports")
        slot_ranges.append(SlotRange(first, last, Address(answering_host if name in ("", "?") else name.lower(), port)))
    return slot_ranges


class Cluster:
    """A Redis Cluster with some nodes known in advance. `url`: redis[s]+cluster://HOST:PORT,HOST:PORT."""

    def __init__(self, url: str, tls: Tls, make: NodeFactory, changed: Callable[[], None]) -> None:
        """`changed` is called when the nodes change or become unknown."""
        self._url = HubUrl.parse(url)
        self._tls = tls
        self._make = make
        self._changed = changed
        self._nodes: dict[str, Node] = {}
        """Nodes by HOST:PORT."""
        self._owners: list[Node | None] = [None] * SLOTS
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks = Tasks()
        self._stale = asyncio.Event()
        self.why: str | None = "not reached yet"

    @property
    def all(self) -> Sequence[Node]:
        """The primaries that have slots."""
        return tuple(self._nodes.values())

    def find_node(self, key: bytes) -> Node | None:
        """Return the primary of the key's slot."""
        return self._owners[key_slot(key)]

    def heartbeat_key(self, node: Node) -> bytes:
        """Return the key of the hosts if the node has it, or else a similar key that the node has."""
        keys = itertools.chain([HOSTS_KEY], (b"%b:%d" % (HOSTS_KEY, number) for number in range(SLOTS)))
        return next((key for key in keys if self.find_node(key) is node), HOSTS_KEY)

    def follow_redirect(self, node: Node, redirect: AskError) -> Node | None:
        """Return the node of the key. If the key has MOVED, remember it."""
        self.refresh_soon()
        target = self._nodes.get(str(Address((redirect.host or _parse_host(node.at)).lower(), redirect.port)))
        if target is not None and isinstance(redirect, MovedError):
            self._owners[redirect.slot_id] = target
        return target

    def refresh_soon(self) -> None:
        """Refresh the slots of the nodes soon."""
        self._stale.set()

    async def run(self) -> None:
        """Find the nodes, connect to them and reconnect, until cancelled."""
        breaker = Breaker()
        try:
            while True:
                self._stale.clear()
                breaker.probe()
                try:
                    self._apply_slots(await self._fetch_slots())
                except HubUnavailableError as error:
                    self.why = str(error)
                    self._changed()
                    await asyncio.sleep(breaker.open(monotonic()))
                    continue
                breaker.close(monotonic())
                self.why = None
                self._changed()
                pause = SLOTS_REFRESH_SECONDS if all(node.link for node in self.all) else LOST_NODE_REFRESH_SECONDS
                try:
                    async with asyncio.timeout(pause * random.uniform(0.5, 1.5)):
                        await self._stale.wait()
                except TimeoutError:
                    pass
                await asyncio.sleep(SLOTS_REFRESH_SECONDS_MIN * random.uniform(1.0, 1.5))
        finally:
            await self._tasks.cancel()

    async def _fetch_slots(self) -> list[SlotRange]:
        """Return the slots of each node, as reported by the first answering node.

        Raises HubUnavailableError with the last node's error.
        """
        last_error = HubUnavailableError("no node answers")
        for node in random.sample(self.all, len(self.all)):
            try:
                if node.link is not None:
                    return await _fetch_slots_from(node.link, _parse_host(node.at))
            except HubUnavailableError as error:
                last_error = error
        # Known nodes that are lost are tried by their Node. The nodes in the URL may have new addresses.
        try:
            return await _fetch_slots_from_seeds(self._url, self._tls)
        except HubUnavailableError as error:
            raise HubUnavailableError(f"{last_error}; {error}" if self.all else str(error)) from error

    def _apply_slots(self, ranges: Sequence[SlotRange]) -> None:
        """Replace the map of slots to nodes."""
        addresses = {str(range_.at) for range_ in ranges}
        for at in [at for at in self._nodes if at not in addresses]:
            del self._nodes[at]
            self._running.pop(at).cancel()
        for at in addresses - self._nodes.keys():
            node = self._nodes[at] = self._make(node_url(self._url, at))
            self._running[at] = self._tasks.start(f"hub node {at}", node.run())
        owners: list[Node | None] = [None] * SLOTS
        for first, last, where in ranges:
            owners[first : last + 1] = [self._nodes[str(where)]] * (last + 1 - first)
        self._owners = owners


async def open_link(key: bytes, url: str, tls: Tls, *, deadline: float = ANSWER_SECONDS_MAX) -> Link:
    """Open a connection to the node of a hub that has this key. Raises HubUnavailableError."""
    parts = HubUrl.parse(url)
    if parts.scheme not in CLUSTERS:
        return await Link.open(url, tls, deadline=deadline)
    slot = key_slot(key)
    for first, last, at in await _fetch_slots_from_seeds(parts, tls, deadline):
        if first <= slot <= last:
            return await Link.open(node_url(parts, str(at)), tls, deadline=deadline)
    raise HubUnavailableError(f"no node of the cluster has slot {slot}")


async def load_functions(url: str, tls: Tls, *, deadline: float = ANSWER_SECONDS_MAX) -> int:
    """Load the functions of this version into all primaries of a hub, and return their number. Replicas copy them.

    Raises FunctionsMissingError if the user may not load them, HubUnavailableError, and ResponseError.
    """
    parts = HubUrl.parse(url)
    urls = [url]
    if parts.scheme in CLUSTERS:
        primaries = {str(at) for _, _, at in await _fetch_slots_from_seeds(parts, tls, deadline)}
        urls = [node_url(parts, at) for at in sorted(primaries)]
    for each in urls:
        link = await Link.open(each, tls, deadline=deadline)
        try:
            await link.load_functions()
        finally:
            await link.close()
    return len(urls)


async def list_open_nodes(url: str, tls: Tls, *, deadline: float = ANSWER_SECONDS_MAX) -> list[str]:
    """Return the nodes of a hub's URL, as HOST:PORT, that answer without a password. Faulty nodes are left out."""
    parts, open_nodes = HubUrl.parse(url), []
    if parts.scheme in SENTINELS:
        with suppress(RedisError, OSError):
            parts = HubUrl.parse(await find_primary(url, tls))
    scheme = CLUSTERS.get(parts.scheme, parts.scheme)
    for at in parts.where:
        with suppress(HubUnavailableError, ResponseError):
            link = await Link.open(f"{scheme}://{at}/0", tls, deadline=deadline)
            try:
                await link.ask("TIME")
                open_nodes.append(at)
            finally:
                await link.close()
    return open_nodes


async def offer_functions(url: str, tls: Tls) -> None:
    """Load the functions into all primaries of a hub, if possible, for edges whose users may not do so."""
    with suppress(HubUnavailableError, ResponseError):
        await load_functions(url, tls)


def node_url(url: HubUrl, at: str) -> str:
    """Return the URL of one node of a cluster."""
    who = f"{url.who}@" if url.who else ""
    return f"{CLUSTERS[url.scheme]}://{who}{at}/0"


async def _fetch_slots_from_seeds(url: HubUrl, tls: Tls, deadline: float = ANSWER_SECONDS_MAX) -> list[SlotRange]:
    """Return the slots of each node, as reported by the first answering node of the URL.

    Raises HubUnavailableError with the last error.
    """
    last_error = HubUnavailableError("it has no node")
    for seed in random.sample(url.where, len(url.where)):
        try:
            link = await Link.open(node_url(url, seed), tls, deadline=deadline)
            try:
                return await _fetch_slots_from(link, _parse_host(seed))
            finally:
                await link.close()
        except HubUnavailableError as error:
            last_error = HubUnavailableError(f"{seed}: {error}")
    raise last_error


async def _fetch_slots_from(link: Link, host: str) -> list[SlotRange]:
    """Return the slots of each node, as reported by one node. Raises HubUnavailableError if it does not know them."""
    try:
        answer = await link.ask("CLUSTER", "SLOTS")
    except ResponseError as error:
        raise HubUnavailableError(
            IS_NO_CLUSTER if "cluster support disabled" in str(error) else format_error(error)
        ) from error
    try:
        slot_ranges = parse_slot_ranges(answer, host)
    except PARSE_ERRORS as error:
        link.lose(why := format_invalid_answer(answer, "CLUSTER SLOTS"))
        raise HubUnavailableError(why) from error
    if not slot_ranges:
        raise HubUnavailableError("no node of the cluster has any slots")
    return slot_ranges


def _parse_host(at: str) -> str:
    address = split_address(at)
    assert address is not None
    return address.host
