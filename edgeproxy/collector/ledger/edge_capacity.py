"""The limit on the edges that a token may introduce, so that its holder cannot invent more than allowed."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import edges
from edgeproxy.collector.ledger.edges import SERVING


class EdgeCapacity:
    """Edge counts of some tokens within one transaction. Retired edges do not count."""

    def __init__(self, counts: dict[str, int], most: int) -> None:
        self._counts = counts
        self._most = most

    @classmethod
    async def fetch(
        cls, database: Database, connection: AsyncConnection, tokens: Iterable[str], most: int
    ) -> "EdgeCapacity":
        """Fetch the tokens' edge counts, and lock out other collectors' additions until the transaction ends."""
        names = sorted(set(tokens))
        for name in names:
            await database.hold(connection, f"edges of {name}")
        count = sa.select(edges.c.token, sa.func.count()).where(SERVING, edges.c.token.in_(names))
        rows = await connection.execute(count.group_by(edges.c.token))
        return cls({row[0]: row[1] for row in rows}, most)

    def admit(self, token: str) -> bool:
        """Count one more edge. Return False and count nothing if the limit is reached."""
        count = self._counts.get(token, 0)
        if count >= self._most:
            return False
        self._counts[token] = count + 1
        return True
