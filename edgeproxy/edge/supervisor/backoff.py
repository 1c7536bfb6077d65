"""The back-off before a worker is replaced: none after a long life, longer after each short one."""

FIRST_WAIT_SECONDS = 0.1
MAX_WAIT_SECONDS = 5.0
LONG_LIFE_SECONDS = 10.0
"""A worker that lived for these seconds dies without a back-off."""


def compute_backoff(early: int, lived: float) -> tuple[int, float]:
    """Return the number of early deaths in a row and the seconds to wait before the next start.

    `early` is the number that this function returned for the death before, 0 at first; `lived` is in seconds. The waits
    after early deaths are 0.1, 0.2, 0.4 … and never more than 5 s.
    """
    if lived >= LONG_LIFE_SECONDS:
        return 0, 0.0
    # The exponent is held down so that a worker that has been failing for a year does not overflow a float.
    return early + 1, min(MAX_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** min(early, 16))
