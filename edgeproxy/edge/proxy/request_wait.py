"""The wait of a request before it can be forwarded: for claims of the hub, or to hear whose its key is.

Few requests wait, so what belongs to waiting is an object of its own, made when a request first has to. Each wait has
an end of its own (claim_waiter.py, key_lookup.py), after which the request is decided anew.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.edge.limits.gate import Gate
    from edgeproxy.edge.proxy.runtime import Runtime
    from edgeproxy.edge.proxy.supervisor_requests import Waiter


class Wait:
    """The waiting of one request. `waiter` is the request itself."""

    __slots__ = ("_waiter", "claims_seconds", "data", "end", "gate", "key_digest")

    def __init__(self, waiter: "Waiter") -> None:
        self._waiter = waiter
        self.data, self.end = b"", 0
        """The bytes of the request when it began to wait, as `Exchange.begin` was given them."""
        self.gate: Gate | None = None
        """The gate at which it waits for claims."""
        self.key_digest: bytes | None = None
        """The digest of the key for whose owner it waits."""
        self.claims_seconds: float | None = None
        """Seconds for which it has waited for claims before; None where it never did."""

    def leave(self, runtime: "Runtime") -> None:
        """Wait no longer: the request is over."""
        if self.gate is not None:
            runtime.claim_waiter.remove_waiter(self.gate, self._waiter)
            self.gate = None
        if self.key_digest is not None:
            runtime.key_lookup.remove_waiter(self.key_digest, self._waiter)
            self.key_digest = None
