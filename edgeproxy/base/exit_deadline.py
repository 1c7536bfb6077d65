"""A deadline for the exit after a signal: the process ends even if a peer, a thread, a disk or its own log hangs."""

import faulthandler
import os
import signal
import threading
from collections.abc import Callable, Iterable

from edgeproxy.base import log

LAST_LINE_SECONDS = 1.0
"""Seconds for writing the last line to the log. The pipe of the log may hang, too."""


def end_within(seconds: float, before: Callable[[], None] = lambda: None) -> None:
    """Exit with code 0 after these seconds if the process still runs then. The log gets the stack of every thread.

    `before` runs just before the exit, in another thread than the event loop.
    """

    def leave() -> None:
        before()
        writing = threading.Thread(target=report, name="last line", daemon=True)
        writing.start()
        writing.join(LAST_LINE_SECONDS)
        os._exit(0)

    def report() -> None:
        log.get_logger().error("the process is ended, as something in it does not end", seconds=seconds)
        faulthandler.dump_traceback(all_threads=True)

    timer = threading.Timer(seconds, leave)
    timer.name, timer.daemon = "exit deadline", True
    timer.start()


def end_after_signals(
    signals: Iterable[int], get_seconds: Callable[[], float], before: Callable[[], None] = lambda: None
) -> None:
    """End the process within `get_seconds()` of the first of these signals. Call it after `loop.add_signal_handler`.

    This handler runs even while the event loop hangs in a system call. A hanging loop cannot run its own handlers. A
    loop that does not hang still runs them, because a file descriptor wakes it.
    """
    is_ending = False

    def handle(*_: object) -> None:
        nonlocal is_ending
        if not is_ending:
            is_ending = True
            end_within(get_seconds(), before)

    for number in signals:
        signal.signal(number, handle)
