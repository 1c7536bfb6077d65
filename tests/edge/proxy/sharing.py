"""A limit that hosts share, and a supervisor whose answers a test gives."""

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.messages import LimitRow
from tests.edge.proxy.asking import request
from tests.support.transcript import Edge, ok
from tests.support.wire import Wire

LIMIT = 10


class Shared:
    """An edge with a limit that another host shares; the test is its supervisor."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge

    @property
    def table(self) -> LimitTable:
        """As the supervisor has it."""
        assert self.edge._supervisor is not None
        return self.edge._supervisor.customers

    async def begins(self) -> Wire:
        """An upstream's connection, free again, after the request that nobody has to ask for."""
        await self.edge.starts()
        self.table.words[at.HOSTS] = 2
        client = await self.edge.client()
        await client.sends(request())
        upstream = await self.edge.upstream.takes()
        assert (await upstream.tells(client, ok())).status == 200
        client.closes()
        return upstream

    def gates(self) -> list[Gate]:
        """Where requests wait."""
        return [gate for gate, waiting in self.edge.runtime.claim_waiter._waiting.items() if waiting]

    async def waits(self, many: int = 1) -> Gate:
        """So many requests wait at one gate."""
        await self.edge.until(lambda: sum(gate.waiting for gate in self.gates()) == many, "they wait")
        (gate,) = self.gates()
        return gate

    async def asked(self, data: bytes) -> tuple[Wire, Gate]:
        """A client whose request waits, and where."""
        client = await self.edge.client()
        await client.sends(data)
        return client, await self.waits()

    def grants(self, gate: Gate, many: int = 1) -> None:
        """Claims come."""
        self.gives(gate, many)
        self.edge.runtime.claim_waiter.on_hub_answer()

    def gives(self, gate: Gate, many: int = 1) -> None:
        """An answer with so many claims is written, of which the worker is still to be told."""
        worker = self.edge.worker.store.customers
        self.table.words[gate.row + worker.head_at + at.GIVEN] += many
        self.table.words[gate.row + at.ROW_SYNC] += 1

    def says_unused(self, gate: Gate) -> None:
        """The supervisor says that nobody has used the claims of this row for a while."""
        table = self.table
        place = LimitRow("customers", table.file.generation, gate.row, table.words[gate.row + at.ROW_GENERATION])
        self.edge.runtime.claim_waiter.return_claims([place])

    def wanted(self, gate: Gate) -> int:
        """Claims that the worker would like to have beyond those that it was given."""
        own = gate.row + self.edge.worker.store.customers.head_at
        return self.table.words[own + at.WANT] - self.table.words[own + at.GIVEN]
