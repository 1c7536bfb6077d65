"""The change from one configuration to another while the edge serves: of workers, upstreams and certificates.

Nothing changes until all serving workers have prepared the new configuration; then they commit it in one step.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from edgeproxy.base import log
from edgeproxy.base.sealed_memory import SealedMemory
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.config.edge.load import dump_settings
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.edge.upstreams import Upstream
from edgeproxy.config.outgoing import use_outgoing
from edgeproxy.edge.channel import Frame
from edgeproxy.edge.messages import LoadCertificates, Prepare, Services, Start, pack_for_workers
from edgeproxy.edge.supervisor.certificates import Certificates
from edgeproxy.edge.supervisor.probe import Prober
from edgeproxy.edge.supervisor.upstreams import Upstreams
from edgeproxy.edge.supervisor.workers import Workers

FIRST_LOOKUP_SECONDS = 2.0
"""Seconds that workers wait at most for the first look-ups and probes of upstreams."""

PREPARE_SECONDS = 15.0
"""Seconds that workers have to prepare: longer than it takes to replace a worker that hangs."""

PREPARED_BYTES_PER_SECOND = 1_000_000
"""Bytes of configuration that give workers one more second to prepare."""

COMMIT_SECONDS = 10.0
"""Seconds of waiting for workers to commit. Later ones still commit."""


class Changeover:
    """The parts of one supervisor that a configuration changes.

    `start` builds a worker's Start message, and the memory for it, from a number and settings.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        start: Callable[[int, EdgeSettings], tuple[Start, SealedMemory | None]],
        workers: Workers,
        upstreams: Upstreams,
        certificates: Certificates,
        prober: Prober,
    ) -> None:
        self._serving = settings
        self._start = start
        self._workers = workers
        self._upstreams = upstreams
        self._certificates = certificates
        self._prober = prober
        self._number = workers.number
        """Number of the configuration offered last."""
        self._begun = asyncio.Event()
        self._renewed = False
        """True if certificates have changed since the change-over began."""
        self._log = log.get_logger()

    async def begin(self) -> None:
        """Start the workers, once the addresses of upstreams are known."""
        await self._certificates.check()
        await self._upstreams.begin(FIRST_LOOKUP_SECONDS)
        self._workers.start()
        self._begun.set()

    def renew(self) -> None:
        """Make workers load changed certificates."""
        self._renewed = True
        self._prober.renew()
        self._workers.send(LoadCertificates())

    async def __call__(self, settings: EdgeSettings) -> list[str]:
        """Apply `settings` everywhere. Return the reasons if this fails; then nothing has changed.

        One change-over runs at a time, and none before the workers are started.
        """
        await self._begun.wait()
        self._number += 1
        self._renewed = False
        try:
            whys = await self._change(settings)
        finally:
            if self._workers.number != self._number:
                self._workers.discard(self._number)
                self._upstreams.drop()
            self._prober.follow(_list_probed(self._serving))
        if whys:
            return whys
        if self._renewed:
            self.renew()  # Some certificates may have been read before they changed.
        if late := await self._workers.wait_until_followed(COMMIT_SECONDS):
            self._log.warning("workers still serve the configuration before", pids=late)
        return []

    async def _change(self, settings: EdgeSettings) -> list[str]:
        certificates = await self._certificates.consider(settings)
        follow = partial(self._prober.follow, _list_probed(self._serving), _list_probed(settings))
        await run_in_thread("load certificates for probes", follow)
        services = await self._upstreams.consider(settings.upstreams, FIRST_LOOKUP_SECONDS, settings.trust.files)
        start, whys = await self._prepare(settings, services)
        if self._workers.lack_memory(self._number):
            # For example, clients hold all descriptors of a worker. A message of bytes needs none.
            self._number += 1
            start, whys = await self._prepare(settings, services, whole=True)
        if not whys:
            # In one step with the workers' answers.
            self._workers.commit(self._number, start)
            use_outgoing(settings)
            self._upstreams.adopt(self._number)
            self._certificates.adopt(certificates)
            self._serving = settings
        return whys

    async def _prepare(
        self, settings: EdgeSettings, services: Services, *, whole: bool = False
    ) -> tuple[Frame[Start], list[str]]:
        """Make the workers prepare `settings`. Return the message for workers that start later, and why any cannot.

        `whole`: the message has everything, and no memory belongs to it.
        """
        start, prepare = await asyncio.to_thread(self._pack, settings, services, whole)
        within = PREPARE_SECONDS + len(prepare.data) / PREPARED_BYTES_PER_SECOND
        return start, await self._workers.prepare(self._number, prepare, within)

    def _pack(self, settings: EdgeSettings, services: Services, whole: bool) -> tuple[Frame[Start], Frame[Prepare]]:
        """Return the messages for workers that start and for workers that prepare. Takes seconds with many keys."""
        start, memory = self._start(self._number, settings)
        prepare = Prepare(self._number, dump_settings(settings) if whole else start.settings, services)
        return pack_for_workers(start, memory), pack_for_workers(prepare, None if whole else memory)


def _list_probed(settings: EdgeSettings) -> tuple[Mapping[str, Upstream], tuple[Path, ...]]:
    """Return the upstreams of a configuration, and the files that it trusts."""
    return settings.upstreams, settings.trust.files
