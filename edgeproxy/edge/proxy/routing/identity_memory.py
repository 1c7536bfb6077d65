"""The identities that a worker caches, with their bindings on routes, up to a bound of memory.

The identity that was unused longest is dropped first. Nothing is lost, because counts are in the tables: the next
request looks the key up again.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from typing import Generic, Protocol, TypeVar

from edgeproxy.config.edge.customer_store import HeldKey
from edgeproxy.edge.proxy.routing.binding import Route, RouteBinding

IDENTITY_BYTES = 1228
"""Bytes of a customer on a route, with the name, the key, and all counters. A test measures them
(tests/edge/proxy/routing/test_identity_memory.py). The default of `limits.remembered` has room for 100,000 of them.
"""
BINDING_BYTES = 320
"""Bytes of a customer on each further route with the same limits."""


class RouteBindings:
    """The part of an identity that has its binding on each route, created at first use.

    A route that it may not use raises RejectedError every time. Most identities use one route, and need no dictionary.
    """

    __slots__ = ("_all", "_make", "binding", "key", "memory", "route")

    def __init__(self, make: Callable[..., RouteBinding], key: HeldKey | None = None) -> None:
        """`key` is passed to `make` if there is one, so that all keys of the files share one function."""
        self._make, self.key = make, key
        self.memory: Memory | None = None
        """The memory that the identity is in."""
        self.route: Route | None = None
        """The latest used route. A request reads it and `binding` before it calls anything."""
        self.binding: RouteBinding | None = None
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
            key = self.key
            binding = self._make(route) if key is None else self._make(route, key)
            if now is not None:
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


class IdentityMemory(OrderedDict[K, Who], Generic[K, Who]):
    """Identities by key, the longest unused first. A user of an identity moves it to the end if `keeps_order`."""

    def __init__(self, bytes_max: int, on_release: Callable[[Who], None] | None = None) -> None:
        """`bytes_max` is the bound for all bindings together. One binding always fits.

        `on_release` is called with each identity that is dropped. It must not refer to the owner of this memory.
        """
        super().__init__()
        self._on_release = on_release
        self._most = max(1, bytes_max)
        self._order_from = self._most // 2
        self._further = 0
        """Bindings beyond the first of each identity."""
        self.keeps_order = False
        """True while more than half of the memory is used. Before, nothing is dropped soon, so the order does not
        matter, and it would cost each request 600 instructions.
        """
        self.evicted = 0
        """Identities that were dropped for lack of memory."""

    def remember(self, key: K, identity: Who) -> None:
        """Cache an identity, replace an earlier one of that key, and drop others if the memory is full."""
        before = self.get(key)
        if before is not identity:
            if before is not None:
                self._release(before)
                self.move_to_end(key)
            self[key] = identity
            identity.memory = self
            self._further += identity.count_further()
        else:
            self.move_to_end(key)
        self._make_room()

    def add_binding(self) -> None:
        """Count one more binding of an identity that has one."""
        self._further += 1
        self._make_room()

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

    def _make_room(self) -> None:
        used = len(self) * IDENTITY_BYTES + self._further * BINDING_BYTES
        self.keeps_order = used > self._order_from
        while used > self._most and len(self) > 1:
            self._release(self.popitem(last=False)[1])
            self.evicted += 1
            used = len(self) * IDENTITY_BYTES + self._further * BINDING_BYTES

    def _release(self, identity: Who) -> None:
        identity.memory = None
        self._further -= identity.count_further()
        if self._on_release is not None:
            self._on_release(identity)
