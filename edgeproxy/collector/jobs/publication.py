"""The publication of the customer directory and of the hub's quota counts, as configured by the last reload."""

from collections.abc import Callable

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.directory.publisher import Publisher
from edgeproxy.collector.jobs.hub_quota_counts import HubQuotaCopy
from edgeproxy.collector.jobs.quotas import QuotaMonitor
from edgeproxy.config.collector.settings import Published


class Publication:
    """The publisher of one collector, if configured, with its tasks.

    `use` is called with each new publisher, or with None if there is none.
    """

    def __init__(self, database: Database, quotas: QuotaMonitor, use: Callable[[Publisher | None], None]) -> None:
        self._database = database
        self._quotas = quotas
        self._use = use
        self._publisher: Publisher | None = None
        self._tasks = Tasks()

    def prepare(self, settings: Published | None) -> Publisher | None:
        """Return the publisher for these settings: the current one if key and hub are unchanged.

        Raises InvalidSigningKeyError.
        """
        if settings is None:
            return None
        new, serving = Publisher(self._database, settings), self._publisher
        return serving if serving is not None and serving.is_alike(new) else new

    async def begin(self, publisher: Publisher | None) -> None:
        """Publish with this publisher from now on, instead of the previous one."""
        if publisher is self._publisher:
            return
        await self.end()
        self._publisher = publisher
        self._use(publisher)
        if publisher is None:
            log.get_logger().info("the directory is not published any more")
            return
        log.get_logger().info("the directory is published", signed_by=publisher.public_key)
        self._tasks.start("directory", publisher.run())
        if publisher.hub is not None:
            self._tasks.start("quotas to the hub", HubQuotaCopy(publisher.hub, self._quotas).run())

    def release_waiters(self) -> None:
        """Answer every edge that waits for changes."""
        if self._publisher is not None:
            self._publisher.release_waiters()

    async def end(self) -> None:
        """Stop publishing."""
        self.release_waiters()
        await self._tasks.cancel()
