"""Quarantine limit per token: no token can fill the disk with unreadable batches of its edges."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import NOT_COUNTED, QUARANTINED, batches, edges

BATCHES_MAX = 1000
"""The most quarantined batches of all edges of a token."""
BYTES_MAX = 256 << 20
"""The most bytes of their bodies as received."""


class QuarantineCapacity:
    """Quarantine usage of some tokens' edges, within one transaction."""

    def __init__(self, used: dict[str, tuple[int, int]]) -> None:
        self._used = used

    @classmethod
    async def fetch(cls, connection: AsyncConnection, tokens: Iterable[str]) -> "QuarantineCapacity":
        """Fetch the tokens' quarantine usage; without tokens, run no query."""
        names = sorted(set(tokens))
        if not names:
            return cls({})
        rows = await connection.execute(
            sa.select(edges.c.token, sa.func.count(), sa.func.sum(sa.func.length(batches.c.body)))
            .join_from(batches, edges, batches.c.edge == edges.c.edge)
            .where(NOT_COUNTED, batches.c.state == QUARANTINED, edges.c.token.in_(names))
            .group_by(edges.c.token)
        )
        return cls({token: (count, int(size)) for token, count, size in rows})

    def admit(self, token: str, size: int) -> bool:
        """Count one more batch of this size. Return False and count nothing if there is no room for it."""
        count, held = self._used.get(token, (0, 0))
        if count >= BATCHES_MAX or held + size > BYTES_MAX:
            return False
        self._used[token] = count + 1, held + size
        return True
