"""Burst credits shared by hosts: the hosts that ask for them, and the payment if the hub's limit is used up."""

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.limits.gate import Gate
from tests.edge.proxy.asking import asks, is_limited, request
from tests.edge.proxy.sharing import LIMIT, Shared
from tests.support.transcript import Edge, ok

UNHEARD = 2
"""Credits that are spent before anything was heard of another host."""


@pytest.fixture
def shared(edge: Edge) -> Shared:
    edge.uses = []
    edge.config["tiers"]["basic"] = {
        "limits": [{"name": "basic", "rate": f"{LIMIT}/min"}],
        "burst_credits": {"earn": "1/min", "max": 20},
    }
    edge.upstream.answers(lambda request: ok())
    return Shared(edge)


def says_nothing_is_left(shared: Shared, gate: Gate) -> None:
    """The hub refuses a claim."""
    words = shared.table.words
    words[gate.row + shared.table.layout.head(shared.table.layout.columns - 1) + at.NO_USE_UNTIL] = 1 << 50
    words[gate.row + at.ROW_SYNC] += 1
    shared.edge.runtime.claim_waiter.on_hub_answer()


def spent(edge: Edge) -> int:
    return edge.count("edge_burst_credits_spent_total", "basic")


async def uses_up(edge: Edge, shared: Shared, requests: int) -> None:
    """So many pass, more than the limit, while there is no other host; then there is one."""
    await edge.starts()
    client = await edge.client()
    for _ in range(requests):
        assert (await asks(client)).status == 200
    shared.table.words[at.HOSTS] = 2


async def test_beyond_the_limit_credits_are_asked_for(edge: Edge, shared: Shared) -> None:
    await uses_up(edge, shared, LIMIT + UNHEARD)
    client = await edge.client()
    await client.sends(request())
    gate = await shared.waits()
    assert shared.wanted(gate) == 1
    assert edge.count("edge_limit_waits_total", "burst-credits") == 1
    assert edge.count("edge_limit_waits_total", "basic") == 0
    shared.grants(gate)
    assert (await client.gets_answer()).status == 200
    assert gate.unspent_claims == gate.waiting == 0
    assert edge.used() == {"basic": LIMIT, "burst-credits": UNHEARD + 1}
    assert spent(edge) == UNHEARD + 1


async def test_request_without_shared_credits_is_refused_by_the_limit(edge: Edge, shared: Shared) -> None:
    await uses_up(edge, shared, LIMIT + UNHEARD)
    client = await edge.client()
    await client.sends(request())
    says_nothing_is_left(shared, await shared.waits())
    answer = await client.gets_answer()
    is_limited(answer, "basic")
    assert answer["RateLimit"].startswith('"basic";r=0;')
    assert spent(edge) == UNHEARD
    assert not shared.gates()


async def test_credits_pay_once_the_hub_has_nothing_left_of_the_limit(edge: Edge, shared: Shared) -> None:
    await uses_up(edge, shared, 1)
    client = await edge.client()
    await client.sends(request())
    gate = await shared.waits()
    says_nothing_is_left(shared, gate)
    answer = await client.gets_answer()
    assert answer.status == 200
    assert answer["RateLimit"].startswith('"basic";r=0;')
    assert edge.used() == {"basic": 1, "burst-credits": 1}
    # Nobody waits again for what there is not.
    assert (await asks(client)).status == 200
    assert edge.count("edge_limit_waits_total", "basic") == 1
    # Then for credits.
    await client.sends(request())
    shared.grants(await shared.waits())
    assert (await client.gets_answer()).status == 200
    assert edge.used() == {"basic": 1, "burst-credits": 3}


async def test_worker_without_a_supervisor_spends_the_credits_it_knows(edge: Edge, shared: Shared) -> None:
    await uses_up(edge, shared, LIMIT + UNHEARD)
    edge.runtime.claim_waiter.on_supervisor_lost()
    client = await edge.client()
    assert (await asks(client)).status == 200
    assert spent(edge) == UNHEARD + 1


async def test_answer_costs_are_reported_to_the_supervisor(edge: Edge, shared: Shared) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"name": "tokens", "rate": "100/min", "cost_header": "X-Cost"}]}
    edge.upstream.answers(lambda request: ok(b"", "X-Cost: 60"))
    await edge.starts()
    shared.table.words[at.HOSTS] = 2
    client = await edge.client()
    assert (await asks(client)).status == 200
    await edge.until(lambda: bool(edge.uses), "the supervisor is told")
    assert edge.uses is not None
    said = edge.uses[0].rates[0]
    assert (said.limit, said.span) == (100, 60.0)
    assert (said.mode, said.refused) == ("eventual", True), "the edge reads the use of other hosts before the charge"
    told = len(edge.uses)
    await edge.until(lambda: edge.used()["tokens"] == 60, "the tokens are charged")
    assert (await asks(client)).status == 200, "no matter that the hub was never asked"
    await edge.until(
        lambda: edge.used()["tokens"] == 120 and len(edge.uses or ()) > told, "the usage is reported again"
    )
    is_limited(await asks(client), "tokens")
