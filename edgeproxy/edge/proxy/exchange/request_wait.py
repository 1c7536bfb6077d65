"""The wait of a request before it can be forwarded: for claims of the hub, for its body, or for the owner of its key.

Few requests wait, so the data of a wait is an object of its own, created at the first wait. Each wait has its own end
(claim_waiter.py, key_lookup.py). After it the request is decided again.
"""

from typing import TYPE_CHECKING, Final, Protocol

from edgeproxy.edge.body_usage.prompts import PROMPT_BYTES_MAX, UNKNOWN

if TYPE_CHECKING:
    from edgeproxy.edge.body_usage.prompts import Prompt, PromptReader
    from edgeproxy.edge.http1.request import RequestHead
    from edgeproxy.edge.limits.gate import Gate
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.observation.exchange_states import State
    from edgeproxy.edge.proxy.routing.preauth_policy import PreAuthPolicy
    from edgeproxy.edge.proxy.routing.supervisor_requests import Waiter

BLANK_BYTES: Final = 4


class PromptBinding(Protocol):
    """A customer on a route."""

    @property
    def prompts(self) -> "PromptReader | None":
        """The reader of its requests' bodies."""


class AwaitedRequest(Protocol):
    """A request whose body is read before it is admitted."""

    head: "RequestHead"
    length: int

    @property
    def binding(self) -> PromptBinding | None:
        """The customer on the route."""


class Wait:
    """The waiting of one request. `waiter` is the request itself."""

    __slots__ = (
        "_waiter",
        "claims_seconds",
        "data",
        "end",
        "gate",
        "is_input_full",
        "key_digest",
        "periods",
        "policy",
        "prompt",
    )

    def __init__(self, waiter: "Waiter") -> None:
        self._waiter = waiter
        self.data, self.end = b"", 0
        """The arguments of `Exchange.begin` when it began to wait: the request's bytes, and the end of its head."""
        self.gate: Gate | None = None
        """The gate that it waits at for claims."""
        self.key_digest: bytes | None = None
        """The digest of the key whose owner is being looked up, or of the password that is being checked."""
        self.policy: PreAuthPolicy | None = None
        """The route's policy that has admitted the request before its key was looked up, and is not asked again."""
        self.periods: list[tuple[State, float, float]] = []
        """The past waits: the state during each, and when it began and ended."""
        self.claims_seconds: float | None = None
        """Seconds that it has waited for claims before; None if it never did."""

        self.prompt: Prompt | None = None
        """The amounts that its body states; None while it was not read."""
        self.is_input_full = False
        """True if no more of its body is read ahead."""

    def read_prompt(self, request: AwaitedRequest, body: bytes) -> bool:
        """Read the body. Return False if the rest of it is worth waiting for.

        The edge does not wait for a long body or one of unknown length, nor for a client that waits for 100.
        """
        head, size = request.head, request.length
        is_waited_for = 0 < size <= PROMPT_BYTES_MAX and not (head.chunked or head.expect)
        if is_waited_for and len(body) < size and not self.is_input_full:
            return False
        reader = None if request.binding is None else request.binding.prompts
        is_read = is_waited_for and len(body) >= size
        self.prompt = reader.read(body[:size]) if is_read and reader is not None else UNKNOWN
        return True

    def on_input(self, buffered_bytes: int, body_bytes: int, *, is_full: bool) -> None:
        """Continue once the body is complete or no more of it is read.

        `buffered_bytes`: the bytes that came during the wait.
        """
        self.is_input_full = is_full
        if is_full or len(self.data) - self.end - BLANK_BYTES + buffered_bytes >= body_bytes:
            self._waiter.resume()

    def end_period(self, state: "State", since: float, now: float) -> bool:
        """Record that a wait is over. Return whether it was for claims of the hub."""
        self.periods.append((state, since, now))
        was_at_gate = self.gate is not None
        if was_at_gate:
            assert self.claims_seconds is not None
            self.claims_seconds += now - since
        self.gate = self.key_digest = None
        return was_at_gate

    def leave(self, runtime: "Runtime") -> None:
        """Stop waiting: the request is over."""
        if self.gate is not None:
            runtime.claim_waiter.remove_waiter(self.gate, self._waiter)
            self.gate = None
        if self.key_digest is not None:
            runtime.key_lookup.remove_waiter(self.key_digest, self._waiter)
            runtime.passwords.remove_waiter(self.key_digest, self._waiter)
            self.key_digest = None
