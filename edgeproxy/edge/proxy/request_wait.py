"""The wait of a request before it can be forwarded: for claims of the hub, for its body, or to hear whose its key is.

Few requests wait, so what belongs to waiting is an object of its own, made when a request first has to. Each wait has
an end of its own (claim_waiter.py, key_lookup.py), after which the request is decided anew.
"""

from typing import TYPE_CHECKING, Final, Protocol

from edgeproxy.edge.body_usage.prompts import PROMPT_BYTES_MAX, UNKNOWN

if TYPE_CHECKING:
    from edgeproxy.edge.body_usage.prompts import Prompt, PromptReader
    from edgeproxy.edge.http1.request import RequestHead
    from edgeproxy.edge.limits.gate import Gate
    from edgeproxy.edge.proxy.exchange_states import State
    from edgeproxy.edge.proxy.runtime import Runtime
    from edgeproxy.edge.proxy.supervisor_requests import Waiter

BLANK_BYTES: Final = 4


class PromptBinding(Protocol):
    """A customer on a route."""

    @property
    def prompts(self) -> "PromptReader | None":
        """What reads the bodies of its requests."""


class AwaitedRequest(Protocol):
    """A request whose body is read before it is admitted."""

    head: "RequestHead"
    length: int

    @property
    def binding(self) -> PromptBinding | None:
        """Whose it is."""


class Wait:
    """The waiting of one request. `waiter` is the request itself."""

    __slots__ = ("_waiter", "claims_seconds", "data", "end", "gate", "is_input_full", "key_digest", "periods", "prompt")

    def __init__(self, waiter: "Waiter") -> None:
        self._waiter = waiter
        self.data, self.end = b"", 0
        """The bytes of the request when it began to wait, as `Exchange.begin` was given them."""
        self.gate: Gate | None = None
        """The gate at which it waits for claims."""
        self.key_digest: bytes | None = None
        """The digest of the key for whose owner it waits."""
        self.periods: list[tuple[State, float, float]] = []
        """The waits that are over: the state meanwhile, and when each began and ended."""
        self.claims_seconds: float | None = None
        """Seconds for which it has waited for claims before; None where it never did."""

        self.prompt: Prompt | None = None
        """What its body tells of what it will take; None while it was not read."""
        self.is_input_full = False
        """Whether no more of its body is read ahead."""

    def read_prompt(self, request: AwaitedRequest, body: bytes) -> bool:
        """Read the body; return False where it is worth waiting for the rest of it.

        That is of one that is long, or does not say how long it is; nor of one whose client waits for 100.
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
        """Go on once the body is there, or no more of it is read. `buffered_bytes`: what came while it waited."""
        self.is_input_full = is_full
        if is_full or len(self.data) - self.end - BLANK_BYTES + buffered_bytes >= body_bytes:
            self._waiter.resume()

    def end_period(self, state: "State", since: float, now: float) -> bool:
        """Record that a wait is over; return whether it was for claims of the hub."""
        self.periods.append((state, since, now))
        was_at_gate = self.gate is not None
        if was_at_gate:
            assert self.claims_seconds is not None
            self.claims_seconds += now - since
        self.gate = self.key_digest = None
        return was_at_gate

    def leave(self, runtime: "Runtime") -> None:
        """Wait no longer: the request is over."""
        if self.gate is not None:
            runtime.claim_waiter.remove_waiter(self.gate, self._waiter)
            self.gate = None
        if self.key_digest is not None:
            runtime.key_lookup.remove_waiter(self.key_digest, self._waiter)
            self.key_digest = None
