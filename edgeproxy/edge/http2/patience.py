"""The flood budget of one HTTP/2 connection: it bounds frames that are harmless alone but an attack in numbers.

RFC 9113 section 10.5 lets an endpoint close a connection for such frames. CVE-2019-9511 to 9518, CVE-2023-44487 (Rapid
Reset) and CVE-2025-8671 (MadeYouReset) describe attacks on endpoints that did not.

The budget has two parts, `frames` and `resets`. Costly frames spend them; sent answers and time restore them.
"""

from typing import Final

from edgeproxy.edge.http2.errors import create_calm_error

PATIENCE_MAX: Final = 1000
"""The initial value of each part of the budget, and its maximum."""

IDLE_FRAME: Final = 1
"""The cost of a frame without content for a request: SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA, or a frame of
an unknown type."""

RESET: Final = 10
"""The cost of a stream that either side resets. A client that makes the edge reset streams has opened them itself.

Resets have their own part of the budget. Other frames do not spend it, and ordinary answers restore little of it.
Otherwise a client could open and reset any number of requests between answers that cost it little, for example 404."""

ANSWER: Final = 8
"""The amount that a completely sent answer adds to `frames`."""

ANSWER_RESETS: Final = 1
"""The amount that a completely sent answer adds to `resets`. So a client may always cancel one request for each
ten that are answered."""

DATA_FRAME: Final = 2
"""The amount that a sent DATA frame adds to `frames`, unless a window cut the frame short. It pays for two
WINDOW_UPDATE frames of the client."""

SWEEP: Final = 50
"""The amount that is added to each part of the budget twice a second."""

TRUSTED_SCALE: Final = 50
"""The factor of a trusted proxy's budget, and of the amount that time restores. A trusted proxy's connection carries
many clients, and one client must not end the streams of the others."""


class Patience:
    """The rest of a connection's budget for frames without content and for resets."""

    __slots__ = ("_scale", "frames", "maximum", "resets")

    def __init__(self) -> None:
        self._scale = 1
        self.frames = self.resets = self.maximum = PATIENCE_MAX
        """The rest of each part, and the maximum."""

    def set_scale(self, scale: int) -> None:
        """Multiply the maximum by this factor from now on. A new factor also refills the budget."""
        if scale != self._scale:
            self._scale = scale
            self.frames = self.resets = self.maximum = scale * PATIENCE_MAX

    def spend(self) -> None:
        """Spend the cost of a frame without content. Raises Http2ConnectionError if the budget is exhausted."""
        self.frames -= IDLE_FRAME
        if self.frames < 0:
            raise create_calm_error("too many frames that carry nothing")

    def spend_reset(self) -> None:
        """Spend the cost of a stream reset. Raises Http2ConnectionError if the budget is exhausted."""
        self.resets -= RESET
        if self.resets < 0:
            raise create_calm_error("too many streams that are reset")

    def regain(self, frames: int, resets: int = 0) -> None:
        """Restore these amounts, up to the maximum."""
        most = self.maximum
        if self.frames < most:
            self.frames = min(most, self.frames + frames)
        if self.resets < most:
            self.resets = min(most, self.resets + resets)

    def sweep(self) -> None:
        """Restore the amounts for elapsed time; called twice a second."""
        self.regain(self._scale * SWEEP, self._scale * SWEEP)
