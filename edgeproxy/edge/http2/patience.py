"""The accounting of floods: frames that are allowed one by one, and in large numbers are an attack.

RFC 9113 section 10.5 lets an endpoint end a connection for them; CVE-2019-9511 to 9518, CVE-2023-44487 (Rapid Reset)
and CVE-2025-8671 (MadeYouReset) are about those who did not.
"""

from typing import Final

from edgeproxy.edge.http2.errors import create_calm_error

PATIENCE_MAX: Final = 1000
"""What a connection begins with, and never has more of."""

IDLE_FRAME: Final = 1
"""The cost of a frame that carries nothing: settings, a ping, a priority, a window, empty data, a type of nobody's."""

RESET: Final = 10
"""The cost of a stream that is reset, by either side: whoever makes the edge reset streams has begun them all."""

ANSWER: Final = 8
"""What an answer that was sent whole gives back."""

DATA_FRAME: Final = 2
"""What a DATA frame gives back that was not cut short by a window: two windows may be opened again for it."""

SWEEP: Final = 50
"""What is given back twice a second."""


class Patience:
    """What a connection may still send that is of no use."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = PATIENCE_MAX

    def spend(self, cost: int = IDLE_FRAME) -> None:
        """Take this much. Raises Http2ConnectionError where there is no more."""
        self.left -= cost
        if self.left < 0:
            raise create_calm_error("too many frames that carry nothing, or streams that are reset")

    def regain(self, amount: int) -> None:
        """Give this much back."""
        if self.left < PATIENCE_MAX:
            self.left = min(PATIENCE_MAX, self.left + amount)
