"""More addresses, keys and customers than table rows: paying customers keep their limits, and memory is bounded."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge, StartEdge, total
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import memory_of
from loadtest.testbed.waiting import until
from tests.support.asking import Asking, at_work
from tests.support.service import Service

WORKERS = 2
EXCESS = 2 * (WORKERS - 1)
PEOPLE, ADDRESSES = 40, 64
"""Rows of the tables."""
LIMIT = 50
PAYERS: dict[str, dict[str, Any]] = {
    "window": {"limits": [{"rate": f"{LIMIT}/day"}]},
    "bucket": {"limits": [{"rate": f"{LIMIT}/day", "algorithm": "token_bucket"}]},
    "hybrid": {"limits": [{"rate": f"{LIMIT}/day", "algorithm": "hybrid", "burst": LIMIT}]},
    "quota": {"quotas": [{"meter": "requests", "per": "month", "included": LIMIT, "cap": "hard"}]},
}
LATE = {f"late-{name}": terms for name, terms in PAYERS.items()}
"""Paying customers whose first request comes during the flood."""
CROWD = 50
"""Customers with two limits each, more than the table has rows."""
BATCH = 25
"""Requests pipelined on a connection."""
EACH, ALL = 16 << 10, 256 << 20
"""Bytes of all workers' memory that an address without a row may take, and that all such addresses may take."""


def settings() -> dict[str, Any]:
    """Return paying customers with each kind of limit, a crowd, and an open path with all limits by address."""
    crowd = [f"one-{number}" for number in range(CROWD)]
    described = people(**dict.fromkeys([*PAYERS, *LATE, *crowd], "free"))
    for name, terms in (PAYERS | LATE).items():
        described["customers"][name] |= terms
    for name in crowd:
        described["customers"][name]["limits"] = [{"rate": f"{LIMIT}/day"}, {"rate": "100/h"}]
    anonymous = {
        "limits": [{"rate": "5/min"}, {"rate": "5/min", "algorithm": "token_bucket"}],
        "concurrency": 2,
        "burst_credits": {"earn": "1/min", "max": 2},
    }
    described["tiers"] = {**described["tiers"], "anonymous": anonymous}
    routes = [
        {"name": "open", "path": "/open/*", "upstream": "api", "auth": "optional"},
        {"name": "all", "path": "/*", "upstream": "api"},
    ]
    return {
        **described,
        "routes": routes,
        "trusted_proxies": ["127.0.0.1"],
        "per_ip": {"rate": "5000/s"},
        "tables": {"customers": PEOPLE, "addresses": ADDRESSES},
    }


def strangers(chance: random.Random, count: int) -> Iterator[bytes]:
    """Yield requests from `count` addresses of IPv4 and IPv6, each without a key or with an unknown one."""
    for number in range(count):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        if number & 1:
            address = f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::{chance.getrandbits(16):x}"
        path, key = (
            ("/open/", "") if chance.random() < 0.7 else ("/quick", f"X-API-Key: {chance.getrandbits(64):x}\r\n")
        )
        yield f"GET {path} HTTP/1.1\r\nHost: a\r\n{key}X-Forwarded-For: {address}\r\n\r\n".encode()


async def flood(port: int, requests: Iterator[bytes], connections: int = 6) -> Counter[bytes]:
    """Send all requests as fast as answers come. Return the number of answers by status."""
    statuses: Counter[bytes] = Counter()

    async def send() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        while batch := list(islice(requests, BATCH)):
            writer.write(b"".join(batch))
            for _ in batch:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                statuses[head[9:12]] += 1
        writer.close()
        await writer.wait_closed()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(send())
    return statuses


def used_up(edge: Edge, names: list[str]) -> dict[str, int]:
    """Return the number of admitted requests of each customer until its limit refuses."""
    everyone = [Asking(edge.port, name, connections=4, pause=0.005) for name in names]
    with at_work(*everyone):
        until(lambda: all(asking.statuses[429] > 10 for asking in everyone), "all customers are refused")
    assert not any(asking.lost for asking in everyone)
    return {asking.customer: asking.statuses[200] for asking in everyone}


@pytest.mark.parametrize("addresses", [3000, pytest.param(80_000, marks=pytest.mark.soak)])
def test_a_flood_of_addresses_and_keys_changes_no_limit_of_paying_customers(
    start_edge: StartEdge, service: Service, seed: int, addresses: int
) -> None:
    chance = random.Random(seed)
    edge = start_edge(port=service.port, workers=WORKERS, **settings())
    some = [Asking(edge.port, name, connections=1, pause=0.1) for name in PAYERS]
    with at_work(*some):
        until(lambda: all(asking.statuses[200] >= 5 for asking in some), "paying customers have begun")
        asyncio.run(flood(edge.port, strangers(chance, 500)))
        workers = edge.worker_pids()
        before = memory_of(workers)
        statuses = asyncio.run(flood(edge.port, strangers(chance, addresses)))
        grown = memory_of(workers) - before
        late = used_up(edge, [*LATE])
    early = used_up(edge, [*PAYERS])
    for asking in some:
        early[asking.customer] += asking.statuses[200]
    samples = edge.metrics()
    full = total(samples, "edge_table_full_total", table="addresses")
    print(f"{dict(statuses)}, {grown >> 10} KiB, {full:.0f} times full, payers {early | late}")
    assert statuses[b"200"] > 0.6 * addresses
    assert statuses[b"401"] > 0.2 * addresses
    # No address is refused because the table is full.
    assert sum(statuses.values()) == statuses[b"200"] + statuses[b"401"] == addresses
    for name, passed in (early | late).items():
        assert LIMIT <= passed <= LIMIT + EXCESS, name
    assert full > addresses
    assert total(samples, "edge_table_full_total", table="customers") == 0
    assert total(samples, "edge_table_rows", table="addresses") == ADDRESSES
    assert grown < min(EACH * addresses, ALL)


def test_customers_without_a_row_are_limited_to_shares(start_edge: StartEdge, service: Service) -> None:
    edge = start_edge(port=service.port, workers=WORKERS, **settings())
    (first,) = used_up(edge, ["window"]).values()
    assert LIMIT <= first <= LIMIT + EXCESS
    crowd = {}
    for start in range(0, CROWD, 10):
        crowd |= used_up(edge, [f"one-{number}" for number in range(start, start + 10)])
    samples = edge.metrics()
    assert total(samples, "edge_table_full_total", table="customers") > 0
    assert total(samples, "edge_table_rows", table="customers") == PEOPLE
    whole = [name for name, passed in crowd.items() if passed >= LIMIT]
    print(f"{len(whole)} have all of it; the others {sorted({*crowd.values()})}")
    # Without a row, each worker admits its share, and some customers may not have reached every worker.
    assert all(LIMIT // WORKERS <= passed <= LIMIT + EXCESS for passed in crowd.values())
    assert len(whole) >= (PEOPLE - 2) // 2
    # A customer with a row keeps the row.
    assert edge.ask("/quick", key=key_of("window")).status == 429
