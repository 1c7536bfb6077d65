"""The accounting of floods: frames that are allowed one by one, and in large numbers are an attack.

RFC 9113 section 10.5 lets an endpoint end a connection for them; CVE-2019-9511 to 9518, CVE-2023-44487 (Rapid Reset)
and CVE-2025-8671 (MadeYouReset) are about those who did not.
"""

from typing import Final

from edgeproxy.edge.http2.errors import create_calm_error

PATIENCE_MAX: Final = 1000
"""What a connection begins with of either kind, and never has more of."""

IDLE_FRAME: Final = 1
"""The cost of a frame that carries nothing: settings, a ping, a priority, a window, empty data, a type of nobody's."""

RESET: Final = 10
"""The cost of a stream that is reset, by either side: whoever makes the edge reset streams has begun them all. It is
of a kind of its own, which other frames do not use up and ordinary answers hardly restore: between answers that cost
the client nothing, such as 404, any number of requests could be begun and reset."""

ANSWER: Final = 8
"""What an answer that was sent whole gives back of frames."""

ANSWER_RESETS: Final = 1
"""What it gives back of resets: a client may cancel one request of ten for ever."""

DATA_FRAME: Final = 2
"""What a DATA frame gives back that was not cut short by a window: two windows may be opened again for it."""

SWEEP: Final = 50
"""What is given back of either twice a second."""


class Patience:
    """What a connection may still send that is of no use."""

    __slots__ = ("frames", "resets")

    def __init__(self) -> None:
        self.frames = self.resets = PATIENCE_MAX

    def spend(self) -> None:
        """Take what a frame costs that carries nothing. Raises Http2ConnectionError where there is no more."""
        self.frames -= IDLE_FRAME
        if self.frames < 0:
            raise create_calm_error("too many frames that carry nothing")

    def spend_reset(self) -> None:
        """Take what a stream costs that is reset. Raises Http2ConnectionError where there is no more."""
        self.resets -= RESET
        if self.resets < 0:
            raise create_calm_error("too many streams that are reset")

    def regain(self, frames: int, resets: int = 0) -> None:
        """Give this much back."""
        if self.frames < PATIENCE_MAX:
            self.frames = min(PATIENCE_MAX, self.frames + frames)
        if self.resets < PATIENCE_MAX:
            self.resets = min(PATIENCE_MAX, self.resets + resets)
