"""The order in which processes see each other's stores, where the processor does not keep it.

On x86-64 every process sees stores in the order in which they were made; only a load may overtake an earlier store. On
ARMv8 stores and loads overtake each other freely, unless a barrier is between them. docs/design/memory-order.md has the
places where order matters, and a litmus test for each.
"""

import platform
from threading import Lock

STRONG_MACHINES = ("x86_64", "AMD64")
MACHINES = (*STRONG_MACHINES, "aarch64", "arm64")
"""Machines for which the order of every store and load of the tables has been argued."""

IS_WEAK = platform.machine() not in STRONG_MACHINES
"""Whether a store may be seen before an earlier one. Barriers that only such machines need are behind it, so that they
cost others nothing.
"""


def fence() -> None:
    """Order all loads and stores before this call with all after it, for every process.

    Python has no barrier, but a lock has half of one at each end: nothing moves up across its acquisition, nothing down
    across its release. A release that an acquisition follows is a whole barrier, for ARMv8 keeps these two in order.
    """
    # A new one each time, so that nothing waits: neither another thread nor a signal's handler in the midst of this.
    lock = Lock()
    lock.acquire()
    lock.release()
    lock.acquire()
