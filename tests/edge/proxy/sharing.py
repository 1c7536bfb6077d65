"""A limit shared by hosts, and a supervisor whose answers the test gives."""

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.messages import LimitRow
from tests.edge.proxy.asking import request
from tests.support.transcript import Edge, ok
from tests.support.wire import Wire

LIMIT = 10


class Shared:
    """An edge with a limit shared with another host. The test acts as its supervisor."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge

    @property
    def table(self) -> LimitTable:
        """The table as the supervisor sees it."""
        assert self.edge._supervisor is not None
        return self.edge._supervisor.customers

    async def begins(self) -> Wire:
        """Serve the request that passes without a claim. Return the upstream's connection, which is idle then."""
        await self.edge.starts()
        self.table.words[at.HOSTS] = 2
        client = await self.edge.client()
        await client.sends(request())
        upstream = await self.edge.upstream.takes()
        assert (await upstream.tells(client, ok())).status == 200
        client.closes()
        return upstream

    def gates(self) -> list[Gate]:
        """Return the gates with waiting requests."""
        return [gate for gate, waiting in self.edge.runtime.claim_waiter._waiting.items() if waiting]

    async def waits(self, many: int = 1) -> Gate:
        """Wait until `many` requests wait at one gate. Return the gate."""
        await self.edge.until(lambda: sum(gate.waiting for gate in self.gates()) == many, "the requests wait")
        (gate,) = self.gates()
        return gate

    async def asked(self, data: bytes) -> tuple[Wire, Gate]:
        """Send a request that has to wait. Return its client and its gate."""
        client = await self.edge.client()
        await client.sends(data)
        return client, await self.waits()

    def grants(self, gate: Gate, many: int = 1) -> None:
        """Grant claims and tell the worker."""
        self.gives(gate, many)
        self.edge.runtime.claim_waiter.on_hub_answer()

    def gives(self, gate: Gate, many: int = 1) -> None:
        """Write an answer of the hub with claims, without telling the worker."""
        worker = self.edge.worker.store.customers
        self.table.words[gate.row + worker.head_at + at.GIVEN] += many
        self.table.words[gate.row + at.ROW_SYNC] += 1

    def says_unused(self, gate: Gate) -> None:
        """Tell the worker that the claims of this row are unused."""
        table = self.table
        place = LimitRow("customers", table.file.generation, gate.row, table.words[gate.row + at.ROW_GENERATION])
        self.edge.runtime.claim_waiter.return_claims([place])

    def wanted(self, gate: Gate) -> int:
        """Return the number of claims that the worker wants beyond the granted ones."""
        own = gate.row + self.edge.worker.store.customers.head_at
        return self.table.words[own + at.WANT] - self.table.words[own + at.GIVEN]
