"""Replayed traffic of a real site: each address is held to its own limit, in any order and mix."""

import asyncio
import gzip
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import StartEdge, total
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import ROOT
from loadtest.testbed.upstream import Upstream

RECORDED = ROOT.parent / "shared" / "data" / "access.log.gz"
"""10,000 requests in Apache's combined format, if available. Its addresses belong to people and are never printed."""
LINE = re.compile(r'(\S+) \S+ \S+ \[[^]]*\] "(GET|HEAD|POST|OPTIONS|PUT|DELETE) (/\S*) HTTP/[\d.]+" .*?(?:"([^"]*)")?$')

Request = tuple[str, str, str, str]
"""Address, method, target, User-Agent."""


def recorded() -> list[Request]:
    """Return the requests of the log, in order."""
    lines = gzip.decompress(RECORDED.read_bytes()).decode("latin-1").splitlines()
    found = (LINE.match(line) for line in lines)
    return [(one[1], one[2], one[3], one[4] or "-") for one in found if one]


def generated(seed: int) -> list[Request]:
    """Return similar traffic: some addresses send hundreds of requests, most of them two or three."""
    draw = random.Random(seed)
    requests = []
    for _ in range(10_000):
        number = min(int(draw.paretovariate(0.4)), 1800)
        target = f"/section-{draw.randrange(30)}/page-{draw.randrange(200)}?n={draw.randrange(9)}"
        requests.append(
            (f"198.51.{number >> 8}.{number & 255}", draw.choice(("GET", "GET", "HEAD")), target, "tests/1")
        )
    return requests


async def replay(port: int, requests: list[Request], connections: int) -> Counter[tuple[str, int]]:
    """Send all requests over these connections, as a proxy in front of the edge would. Returns answers by (address,
    status).
    """
    answers: Counter[tuple[str, int]] = Counter()
    rest = iter(requests)

    async def drive() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        for address, method, target, agent in rest:
            writer.write(
                f"{method} {target} HTTP/1.1\r\nHost: site.test\r\nX-API-Key: {key_of(UNLIMITED)}\r\n"
                f"X-Forwarded-For: {address}\r\nUser-Agent: {agent}\r\n\r\n".encode("latin-1")
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\ncontent-length: (\d+)", head)
            if method != "HEAD" and length:
                await reader.readexactly(int(length[1]))
            answers[address, int(head[9:12])] += 1
            if b"\r\nConnection: close\r\n" in head:
                writer.close()
                reader, writer = await asyncio.open_connection(HOST, port)
        writer.close()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(drive())
    return answers


@pytest.mark.parametrize("source", ["recorded", "generated"])
def test_each_address_of_real_traffic_is_held_to_its_own_limit(
    source: str, start_edge: StartEdge, tmp_path: Path, seed: int
) -> None:
    if source == "recorded" and not RECORDED.exists():
        pytest.skip("the recorded log is not at hand")
    requests = recorded() if source == "recorded" else generated(seed)
    assert len(requests) > 9000
    most = 25
    upstream = Upstream(tmp_path / "upstream")
    edge = start_edge(
        port=upstream.port,
        trusted_proxies=["127.0.0.0/8"],
        per_ip={"rate": f"{most}/min"},
        tables={"customers": 2000, "addresses": 5000},
    )
    answers = asyncio.run(replay(edge.port, requests, 32))
    assert answers.total() == len(requests)
    counts = Counter(address for address, *_ in requests)
    # Malformed requests (with an escaped slash, for example) are refused with 400.
    malformed = Counter(address for address, status in answers.elements() if status == 400)
    assert malformed.total() < len(requests) / 100
    wrong = 0
    for address, count in counts.items():
        passed = answers[address, 200] + malformed[address]
        wrong += not min(count, most) <= passed <= min(count, most + 2)
    assert wrong == 0, f"{wrong} of {len(counts)} addresses were let through too often or too seldom"
    passed = sum(count for (_, status), count in answers.items() if status == 200)
    seen = upstream.seen()
    assert edge.usage() == {UNLIMITED: passed} == seen["received"]
    assert total(edge.metrics(), "edge_requests_total", code="429") == sum(
        count for (_, status), count in answers.items() if status == 429
    )
    assert not seen["odd"]
    upstream.stop()
