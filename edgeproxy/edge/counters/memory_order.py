"""Memory barriers: they keep the order of one process's stores for other processes, on processors that reorder them.

On x86-64 every process sees stores in their order; only a load may overtake an earlier store. On ARMv8 stores and loads
overtake each other freely, unless a barrier is between them. docs/design/memory-order.md lists the places whose order
matters, and a litmus test for each.
"""

import platform
from threading import Lock

STRONG_MACHINES = ("x86_64", "AMD64")
MACHINES = (*STRONG_MACHINES, "aarch64", "arm64")
"""Machines whose order of every store and load of the tables has been examined."""

IS_WEAK = platform.machine() not in STRONG_MACHINES
"""True if a store may be seen before an earlier one. It guards barriers that only such machines need, so that they cost
others nothing.
"""


def fence() -> None:
    """Order all loads and stores before this call with all after it, for every process.

    Python has no barrier, but a lock has half of one at each end: nothing moves up across its acquisition, nothing down
    across its release. A release that an acquisition follows is a whole barrier, because ARMv8 keeps these two in
    order.
    """
    # A new one each time, so that nothing waits: neither another thread nor a signal handler in the middle of this.
    lock = Lock()
    lock.acquire()
    lock.release()
    lock.acquire()
