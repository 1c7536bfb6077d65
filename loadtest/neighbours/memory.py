"""The resident memory of processes, watched for its peak."""

import threading
from pathlib import Path

from loadtest.bench.child import tree

_EVERY_SECONDS = 0.1
_PAGE_BYTES = 4096


def resident(pid: int) -> int:
    """Return the bytes of resident memory, 0 if the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


class Watch:
    """Watches a process and its descendants from now on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = {each: resident(each) for each in tree(pid)}
        self._peaks = dict(self._before)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def growth(self) -> int:
        """Stop. Return the growth in bytes of the process that grew most."""
        self._done.set()
        self._thread.join()
        return max((peak - self._before[pid] for pid, peak in self._peaks.items()), default=0)

    def _watch(self) -> None:
        while not self._done.wait(_EVERY_SECONDS):
            for pid in self._peaks:
                self._peaks[pid] = max(self._peaks[pid], resident(pid))
