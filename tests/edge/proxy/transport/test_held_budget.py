"""The memory budget of a worker: its accounts of held bytes, and the holders that end beyond a bound."""

from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.proxy.transport.held_budget import Account, HeldBudget, Holding
from tests.edge.proxy.asking import is_problem
from tests.edge.proxy.failing import is_fault
from tests.support.transcript import Edge, get, head, ok, post

KIB, MIB = 1 << 10, 1 << 20
MINE, OTHER = b"\x7f\0\0\1", b"\x7f\0\0\2"


@dataclass(eq=False)
class Payer:
    subject: bytes


@dataclass(eq=False)
class Holder:
    address: Payer
    held_account: Account | None = None
    holding: Holding | None = None
    size: int = 0
    ended: list[str] = field(default_factory=list)
    budget: HeldBudget | None = None

    def update_held(self) -> None:
        assert self.budget is not None
        self.budget.hold(self, self.size)

    def on_held_exhausted(self, share: str) -> None:
        self.ended.append(share)


def hold(budget: HeldBudget, subject: bytes, size: int, account: Account | None = None) -> Holder:
    holder = Holder(Payer(subject), account, budget=budget)
    budget.hold(holder, size)
    return holder


def test_address_above_half_of_the_budget_loses_its_largest_holders() -> None:
    budget = HeldBudget(8 * MIB)
    large, small, other = hold(budget, MINE, 3 * MIB), hold(budget, MINE, MIB), hold(budget, OTHER, 3 * MIB)
    budget.hold(small, MIB + 1)
    assert (large.ended, small.ended, other.ended) == (["address"], [], [])
    assert budget.held_bytes == 4 * MIB + 1


def test_connection_above_half_of_the_budget_loses_its_largest_streams() -> None:
    budget, account = HeldBudget(8 * MIB), Account()
    # A trusted proxy's connection carries streams of many addresses.
    streams = [hold(budget, name, 2 * MIB, account) for name in (MINE, OTHER)]
    last, neighbour = hold(budget, MINE, 100, account), hold(budget, MINE, MIB)
    assert [stream.ended for stream in streams] == [["connection"], []]
    assert not last.ended
    assert not neighbour.ended


def test_worker_beyond_its_bound_ends_the_largest_holders() -> None:
    budget = HeldBudget(8 * MIB)
    heavy = [hold(budget, MINE, MIB) for _ in range(4)]
    crowd = [hold(budget, b"%d" % number, 512 * KIB) for number in range(9)]
    assert sum(len(each.ended) for each in heavy) == 2, "an eighth is freed beyond what was too much"
    assert not any(each.ended for each in crowd)


def test_bytes_move_to_the_address_that_a_trusted_proxy_names_next() -> None:
    budget = HeldBudget(8 * MIB)
    holder = hold(budget, MINE, 4 * MIB)
    holder.address = Payer(OTHER)
    budget.hold(holder, 4 * MIB)
    fresh = hold(budget, MINE, 4 * MIB)
    assert not fresh.ended
    assert not holder.ended


def test_pressure_counts_the_holders_own_connection_and_address() -> None:
    budget, account = HeldBudget(8 * MIB), Account()
    holder = hold(budget, OTHER, MIB // 2, account)
    hold(budget, MINE, MIB // 2 + 1, account)
    beside, elsewhere = Holder(Payer(MINE)), Holder(Payer(OTHER))
    assert budget.is_pressed(holder)
    assert not budget.is_pressed(beside)
    hold(budget, MINE, MIB // 2)
    assert budget.is_pressed(beside)
    assert not budget.is_pressed(elsewhere)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(0, 3 * MIB)), max_size=60))
def test_held_sums_equal_the_holders_and_exceed_no_bound(steps: list[tuple[int, int, int]]) -> None:
    budget, accounts = HeldBudget(8 * MIB), [None, Account(), None, Account()]
    holders = [Holder(Payer(b"%d" % (number % 3)), accounts[number % 4], budget=budget) for number in range(8)]
    for which, subject, size in steps:
        holder = holders[which]
        holder.address, holder.size = Payer(b"%d" % subject), size
        budget.hold(holder, size)
        held = {holder: holder.holding.held_bytes for holder in holders if holder.holding is not None}
        assert budget.held_bytes == sum(held.values()) <= budget.bytes_max
        for subject_held in {each.holding.subject for each in held if each.holding is not None}:
            account = budget._addresses[subject_held]
            assert account.held_bytes == sum(
                size for each, size in held.items() if each.holding and each.holding.subject == subject_held
            )
            assert account.held_bytes <= budget.bytes_max // 2
        for connection in accounts:
            if connection is not None:
                assert connection.held_bytes <= budget.bytes_max // 2
    for holder in holders:
        budget.hold(holder, 0)
    assert not budget.held_bytes
    assert not budget._addresses


# ---- on sockets


BEGINNING = b"GET /public/ HTTP/1.1\r\nHost: h\r\nX-Long: "
"""The beginning of a long request head."""


def has_received(edge: Edge, size: int) -> bool:
    """Return whether request bodies of `size` bytes in total have arrived."""
    clients = edge.runtime.connections.clients
    return sum(exchange.bytes_in for client in clients for exchange in client.list_exchanges()) == size


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["limits"] = {"held": "1MiB", "head": "1MiB"}
    return edge


async def test_endless_heads_cost_only_their_sender_503(edge: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    part = BEGINNING + b"x" * 200 * KIB
    flood = [await edge.client("127.0.0.2") for _ in range(3)]
    for client in flood:
        await client.sends(part)
    await edge.until(lambda: edge.count("edge_held_exhausted_total", "address"))
    assert edge.runtime.held.held_bytes <= 512 * KIB
    await edge.until(lambda: [client for client in flood if client.has()])
    for client in [client for client in flood if client.has()]:
        answer = await client.gets_answer()
        assert "limits.held" in str(is_problem(answer, 503)["detail"])
        assert answer["Retry-After"] == "1"
        await client.gets_eof()
    assert "".join(capsys.readouterr()).count("it holds too many bytes") == 1
    for client in flood:
        client.closes()
    client, upstream = await edge.forwards()
    assert (await upstream.tells(client, ok())).status == 200


async def test_bodies_go_to_disk_before_anybody_is_refused(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["buffer"] = "4MiB"
    edge.config["limits"]["held"] = "4MiB"
    for number in range(1, 21):
        client = await edge.client()
        await client.sends(head("POST /public/ HTTP/1.1", "Host: h", f"Content-Length: {200 * KIB}"))
        await client.sends(b"x" * 199 * KIB)
        await edge.until(partial(has_received, edge, number * 199 * KIB))
        await edge.until(lambda: edge.runtime.held.held_bytes <= 1.5 * MIB, "the disk has taken what came")
    assert edge.runtime.body_space.used_bytes > 2 * MIB
    assert not edge.metrics("edge_held_exhausted_total")


async def test_requests_that_were_sent_are_dropped_before_anybody_is_refused(edge: Edge) -> None:
    """An office sends many large requests to a slow upstream, for example a model."""
    pairs = [await edge.forwards(post(b"x" * 100 * KIB)) for _ in range(12)]
    assert edge.runtime.held.held_bytes <= 512 * KIB
    assert not edge.metrics("edge_held_exhausted_total")
    for client, upstream in pairs:
        assert (await upstream.tells(client, ok())).status == 200


async def test_request_that_was_dropped_is_not_sent_again(edge: Edge) -> None:
    presser = await edge.client()
    await presser.sends(BEGINNING + b"x" * 300 * KIB)
    await edge.until(lambda: edge.runtime.held.held_bytes > 300 * KIB)
    client, upstream = await edge.forwards(post(b"x" * 60 * KIB).replace(b"POST", b"PUT"))
    upstream.aborts()
    is_fault(await client.gets_answer(), 502, "connection_terminated")
    presser.closes()


async def test_unread_answer_is_reset_when_its_address_holds_too_much(edge: Edge) -> None:
    unread = []
    for _ in range(60):
        client, upstream = await edge.opens()
        unread.append(client)
        try:
            await upstream.sends(head("HTTP/1.1 200 OK", f"Content-Length: {64 * MIB}"))
            await upstream.sends_while_taken(b"x" * MIB, 32 * MIB)
        except ConnectionError:
            pass  # The edge has reset this connection.
        if edge.count("edge_held_exhausted_total", "address"):
            break
    assert edge.runtime.held.held_bytes <= 512 * KIB
    assert edge.count("edge_held_exhausted_total", "address") >= 1
    other, upstream = await edge.forwards(get())
    assert (await upstream.tells(other, ok())).status == 200
    for client in unread:
        client.closes()
