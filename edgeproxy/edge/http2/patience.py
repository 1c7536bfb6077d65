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

TRUSTED_SCALE: Final = 50
"""How many times the patience a trusted proxy has, and gets back with time: it carries many clients over one
connection, and one of them must not end the streams of the others."""


class Patience:
    """What a connection may still send that is of no use."""

    __slots__ = ("_scale", "frames", "resets")

    def __init__(self) -> None:
        self._scale = 1
        self.frames = self.resets = PATIENCE_MAX

    def set_scale(self, scale: int) -> None:
        """Have so many times the patience from here on."""
        if scale != self._scale:
            self._scale = scale
            self.frames = self.resets = scale * PATIENCE_MAX

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
        most = self._scale * PATIENCE_MAX
        if self.frames < most:
            self.frames = min(most, self.frames + frames)
        if self.resets < most:
            self.resets = min(most, self.resets + resets)

    def sweep(self) -> None:
        """Give back what comes with time; called twice a second."""
        self.regain(self._scale * SWEEP, self._scale * SWEEP)
