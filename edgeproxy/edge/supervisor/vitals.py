"""Resources of workers as the kernel reports them (memory, descriptors), and the clients of each worker.

A worker is labelled by its place, from 0, so that there are as many label values as workers over any time.
"""

import asyncio
import os
import resource
from collections.abc import Iterable
from typing import NamedTuple, TypedDict

from edgeproxy.base import log
from edgeproxy.edge.metrics import Series
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.supervisor.workers import Workers

SAMPLE_SECONDS = 5.0
"""Seconds between two checks for scarce descriptors."""

DESCRIPTORS_SCARCE, DESCRIPTORS_AMPLE = 0.9, 0.8
"""Shares of a process's descriptors. A warning is logged above the first, and again only after falling below the
second.
"""

PAGE_BYTES = resource.getpagesize()


class ProcessUsage(NamedTuple):
    """The resident bytes and open descriptors of a process, and its limit of descriptors."""

    resident: int
    descriptors: int
    limit: int


def fetch_usage(pid: int) -> ProcessUsage | None:
    """Return the usage of a process of this user; None if it is gone.

    Takes a millisecond with thousands of descriptors.
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            resident = int(statm.read().split()[1]) * PAGE_BYTES
        return ProcessUsage(
            resident, len(os.listdir(f"/proc/{pid}/fd")), resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
        )
    except (OSError, IndexError):  # The entry of a process that has just ended may be empty.
        return None


def fetch_usages(pids: Iterable[int]) -> dict[int, ProcessUsage]:
    """Return the usage of each living process."""
    usages = {pid: fetch_usage(pid) for pid in pids}
    return {pid: usage for pid, usage in usages.items() if usage is not None}


class WorkerReport(TypedDict):
    """A living worker. `started_at` is in Unix seconds.

    `config` is the number of the configuration that it serves. It is equal for all workers except during a reload.
    """

    place: int
    pid: int
    config: int
    started_at: float
    connections: int
    resident_bytes: int
    descriptors: int


class Vitals:
    """The resources of one supervisor's workers."""

    def __init__(self, workers: Workers, table_reader: TableReader) -> None:
        self._workers = workers
        self._table_reader = table_reader
        self._warned: set[int] = set()
        """The workers that a warning was logged for."""
        self._log = log.get_logger()

    async def watch(self) -> None:
        """Check for scarce descriptors, for ever."""
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Log, once, each worker that is about to run out of descriptors."""
        usages = await self._vitals()
        self._warned &= usages.keys()
        for pid, usage in usages.items():
            if usage.descriptors >= DESCRIPTORS_SCARCE * usage.limit and pid not in self._warned:
                self._warned.add(pid)
                self._log.warning("worker runs out of descriptors", pid=pid, open=usage.descriptors, limit=usage.limit)
            elif usage.descriptors < DESCRIPTORS_AMPLE * usage.limit:
                self._warned.discard(pid)

    async def series(self) -> list[Series]:
        """Return the metrics of serving workers: without serving workers there are none, whatever is being started."""
        serving = {worker.pid for worker in self._workers.workers if worker.ready}
        metrics: list[Series] = [("edge_descriptor_limit", (), (resource.getrlimit(resource.RLIMIT_NOFILE)[0],))]
        for worker in await self.report():
            if worker["pid"] not in serving:
                continue
            place = (str(worker["place"]),)
            metrics += [
                ("edge_worker_resident_bytes", place, (worker["resident_bytes"],)),
                ("edge_worker_open_descriptors", place, (worker["descriptors"],)),
                ("edge_worker_connections", place, (worker["connections"],)),
            ]
        return metrics

    async def report(self) -> list[WorkerReport]:
        """Return the living workers by place, the field `workers` of `GET /status`."""
        workers = self._workers.by_place
        columns = [worker.column for worker in workers.values() if worker.column is not None]
        connections = await self._table_reader.connections(columns)
        usages = await self._vitals()
        unknown = ProcessUsage(0, 0, 0)
        return [
            {
                "place": place,
                "pid": worker.pid,
                "config": worker.number,
                "started_at": worker.started_at,
                "connections": 0 if worker.column is None else connections.get(worker.column, 0),
                "resident_bytes": usages.get(worker.pid, unknown).resident,
                "descriptors": usages.get(worker.pid, unknown).descriptors,
            }
            for place, worker in workers.items()
        ]

    async def _vitals(self) -> dict[int, ProcessUsage]:
        return await asyncio.to_thread(fetch_usages, [worker.pid for worker in self._workers.workers])
