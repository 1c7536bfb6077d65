"""The identities that a worker caches, with their bindings on routes, up to a bound of memory.

The oldest identity that was not used lately is dropped first (the second chance of page replacement). Nothing is lost,
because counts are in the tables: the next request looks the key up again.
"""

from collections.abc import Callable, Collection, Hashable
from typing import Generic, Protocol, TypeVar

from edgeproxy.config import units
from edgeproxy.edge.proxy.routing.binding import Route, RouteBinding

IDENTITY_BYTES, BINDING_BYTES = units.CUSTOMER_BYTES, units.FURTHER_ROUTE_BYTES
TURN_PARTS = 1024
"""A full memory drops this part of it at a time: 139 customers of the default size, in a third of a millisecond."""
SPARED_MAX = 256
"""Identities that are spared at a time, because they were used since the last time."""


class RouteBindings:
    """The part of an identity that has its binding on each route, created at first use.

    A route that it may not use raises RejectedError every time. Most identities use one route, and need no dictionary.
    """

    __slots__ = ("_all", "_make", "binding", "is_recent", "memory", "route")

    def __init__(self, make: Callable[..., RouteBinding]) -> None:
        """`make` gets a route and this object, so that all keys of the files share one function."""
        self._make = make
        self.memory: Memory | None = None
        """The memory that the identity is in."""
        self.is_recent = False
        """True if it was used since the memory last looked."""
        self.route: Route | None = None
        """The latest used route. A request reads it and `binding` before it calls anything."""
        self.binding: RouteBinding | None = None
        """The latest used binding. The next one shares its parts that are equal (access.py)."""
        self._all: dict[Route, RouteBinding] | None = None
        """The bindings by route, once there are several."""

    def bind(self, route: Route, now: float | None = None) -> RouteBinding:
        """Return the binding on this route. `now`: the edge time of the request that it is for; its first decision on
        limits follows at once.
        """
        known, binding = self._all, self.binding
        if known is not None:
            binding = known.get(route)
        elif self.route is not route:
            binding = None
        if binding is None:
            binding = self._make(route, self)
            if now is not None and (self.binding is None or binding.limit_set is not self.binding.limit_set):
                binding.find_rows(now)
            if known is not None:
                known[route] = binding
            elif self.route is not None and self.binding is not None:
                known = self._all = {self.route: self.binding, route: binding}
            if known is not None and self.memory is not None:
                self.memory.add_binding()
        self.route, self.binding = route, binding
        return binding

    def list_bindings(self) -> Collection[RouteBinding]:
        """Return all bindings."""
        if self._all is not None:
            return self._all.values()
        return () if self.binding is None else (self.binding,)

    def count_further(self) -> int:
        """Return the number of bindings beyond the first."""
        return 0 if self._all is None else len(self._all) - 1

    def clear_bindings(self) -> None:
        """Drop all bindings."""
        self.route = self.binding = self._all = None

    def replace_bindings(self, make: Callable[..., RouteBinding]) -> None:
        """Drop all bindings, and create further ones by this function."""
        if self.memory is not None:
            self.memory.remove_bindings(self.count_further())
        self._make = make
        self.clear_bindings()


class Memory(Protocol):
    """The memory that bindings count for."""

    def add_binding(self) -> None:
        """Count one more binding of an identity that has one."""

    def remove_bindings(self, further: int) -> None:
        """Count so many bindings less."""


K = TypeVar("K", bound=Hashable)
Who = TypeVar("Who", bound=RouteBindings)


class IdentityMemory(dict[K, Who], Generic[K, Who]):
    """Identities by key, in the order in which they are dropped.

    A user of an identity sets its `is_recent`, and an identity is spared once for that. An order of all uses would take
    53 bytes of each identity, and 600 instructions of each request.
    """

    def __init__(self, bytes_max: int, on_release: Callable[[Who], None] | None = None) -> None:
        """`bytes_max` is the bound for all bindings together. One binding always fits.

        `on_release` is called with each identity that is dropped. It must not refer to the owner of this memory.
        """
        super().__init__()
        self._on_release = on_release
        self._most = max(1, bytes_max)
        self._rest = self._most - self._most // (TURN_PARTS * IDENTITY_BYTES) * IDENTITY_BYTES
        """Bytes that remain after a turn."""
        self._further = 0
        """Bindings beyond the first of each identity."""
        self.evicted = 0
        """Identities that were dropped for lack of memory."""

    def remember(self, key: K, identity: Who) -> None:
        """Cache an identity, replace an earlier one of that key, and drop others if the memory is full."""
        if key in self and (before := self.pop(key)) is not identity:
            self._release(before)
        if identity.memory is not self:
            identity.memory = self
            if identity.binding is not None:
                self._further += identity.count_further()
        # Before the new one is here, as it would be the first without a recent use.
        if (len(self) + 1) * IDENTITY_BYTES + self._further * BINDING_BYTES > self._most:
            self._make_room(1)
        self[key] = identity

    def add_binding(self) -> None:
        """Count one more binding of an identity that has one."""
        self._further += 1
        self._make_room(0)

    def remove_bindings(self, further: int) -> None:
        """Count so many bindings less."""
        self._further -= further

    def forget(self, key: K) -> None:
        """Drop an identity."""
        self._release(self.pop(key))

    def clear_bindings(self) -> None:
        """Drop all bindings but no identity."""
        for identity in self.values():
            identity.clear_bindings()
        self._further = 0

    def _make_room(self, more: int) -> None:
        """Drop identities if the memory is full with so many `more`."""
        most = self._most
        while self._compute_bytes(more) > most and len(self) + more > 1:
            self._drop_oldest(more)

    def _compute_bytes(self, more: int) -> int:
        return (len(self) + more) * IDENTITY_BYTES + self._further * BINDING_BYTES

    def _drop_oldest(self, more: int) -> None:
        """Drop the oldest identities, for a turn. Those with a recent use become the newest, as far as a turn goes.

        Several are dropped at once, since each turn passes the places of all that were dropped before.
        """
        excess = self._compute_bytes(more) - self._rest
        spared: list[K] = []
        dropped: list[K] = []
        for key, identity in self.items():
            if excess <= 0 or len(dropped) + 1 == len(self) + more:
                break
            if identity.is_recent and len(spared) < SPARED_MAX:
                spared.append(key)
            else:
                dropped.append(key)
                excess -= IDENTITY_BYTES + identity.count_further() * BINDING_BYTES
        for key in spared:
            identity = self[key] = self.pop(key)
            identity.is_recent = False
        for key in dropped:
            self.forget(key)
        self.evicted += len(dropped)

    def _release(self, identity: Who) -> None:
        identity.memory = None
        self._further -= identity.count_further()
        if self._on_release is not None:
            self._on_release(identity)
