"""The publication of the customer directory, and in the hub of quotas beside it, as the last reload has it."""

from collections.abc import Callable

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.directory.publisher import Publisher
from edgeproxy.collector.jobs.hub_quota_counts import HubQuotaCopy
from edgeproxy.collector.jobs.quotas import QuotaMonitor
from edgeproxy.config.collector.settings import Published


class Publication:
    """The publisher of one collector, if there is one, and its tasks.

    `use` is called with each publisher that begins, and with None where none does.
    """

    def __init__(self, database: Database, quotas: QuotaMonitor, use: Callable[[Publisher | None], None]) -> None:
        self._database = database
        self._quotas = quotas
        self._use = use
        self._publisher: Publisher | None = None
        self._tasks = Tasks()

    def prepare(self, settings: Published | None) -> Publisher | None:
        """Return the publisher of these settings: the one that publishes, if it has the same key and hub.

        Raises InvalidSigningKeyError.
        """
        if settings is None:
            return None
        new, serving = Publisher(self._database, settings), self._publisher
        return serving if serving is not None and serving.is_alike(new) else new

    async def begin(self, publisher: Publisher | None) -> None:
        """Publish by this publisher from here on, and no longer by the one before."""
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
        """Answer every edge that waits for news."""
        if self._publisher is not None:
            self._publisher.release_waiters()

    async def end(self) -> None:
        """Publish no more."""
        self.release_waiters()
        await self._tasks.cancel()
