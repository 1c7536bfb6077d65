"""An edge that ships batches while something happens to the collector or its database."""

import threading
from functools import partial

from edgeproxy.wire.batch import Batch
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import Collector
from loadtest.testbed.waiting import until


class BatchShipper(threading.Thread):
    """Ships batches one after the other, each until the collector has it."""

    def __init__(self, collector: Collector) -> None:
        super().__init__()
        self._collector = collector
        self._ended = threading.Event()
        self.chain = Chain()
        self.shipped = 0
        self.statuses: set[int] = set()

    def run(self) -> None:
        while not self._ended.is_set():
            until(partial(self._is_stored, self.chain.next()), "the batch is stored", seconds=120)
            self.shipped += 1

    def _is_stored(self, batch: Batch) -> bool:
        status = self._collector.post(batch).status
        self.statuses.add(status)
        return status == 200

    def wait_for_next(self) -> None:
        """Wait until a batch that does not exist yet is stored."""
        before = self.shipped
        until(lambda: self.shipped > before + 1, "another batch is stored", seconds=120)

    def end(self) -> None:
        self._ended.set()
        self.join()
