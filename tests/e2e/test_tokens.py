"""Token counts from models' answers to the ledger: config/ai.yaml before stand-ins for OpenAI and Anthropic."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from loadtest.testbed.collector import EDGE, Collector, checked
from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge, total
from loadtest.testbed.models import Models
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT, kill
from loadtest.testbed.waiting import until

CHAT, MESSAGES = "/v1/chat/completions", "/anthropic/v1/messages"
KINDS = {"input_tokens": "input", "output_tokens": "output", "cached_tokens": "cached"}
HEADERS = {"Authorization": f"Bearer {key_of('acme')}"}


class Served:
    """An edge with config/ai.yaml and a route for Anthropic. It ships to a collector."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self.ports = ends.enter_context(closing(Ports(1)))
        database = f"sqlite:///{folder}/ledger.db"
        shipped = read_config()
        meters = shipped["meters"]
        self.collector = ends.enter_context(closing(Collector(folder / "collector", database, meters=meters))).start()
        (port,) = self.ports.numbers
        (route,) = shipped["routes"]
        route["rewrite"]["request"]["set"]["Authorization"] = "Bearer none"
        anthropic = {"name": "anthropic", "path": "/anthropic/*", "upstream": "models", "response_usage": "anthropic"}
        settings = {
            "upstreams": {"models": {**shipped["upstreams"]["models"], "endpoints": [f"http://{HOST}:{port}"]}},
            "routes": [route, {**anthropic, "rewrite": {"strip": "/anthropic"}}],
            "meters": meters,
            "usage": {"collector": f"http://{HOST}:{self.collector.port}", "token": EDGE, "every": "100ms"},
            **people(acme="free"),
        }
        self.edge = ends.enter_context(closing(Edge(folder / "edge", port, **settings)))
        self.edge.start()

    def list_counts(self) -> Counter[tuple[str, str]]:
        """Return the edge's counts without estimates, by model and kind."""
        counts: Counter[tuple[str, str]] = Counter()
        for _, meter, _, number, split in self.list_rows():
            if meter in KINDS and split.get("estimated") != "yes":
                counts[split["model"], KINDS[meter]] += number
        return counts

    def list_rows(self) -> list[tuple[str, str, str, int, dict[str, str]]]:
        """Return the edge's rows: customer, meter, route, number, dimensions."""
        rows = self.edge._told("/usage").json()["rows"]
        return [(*row[:4], json.loads(row[4]) if len(row) > 4 and row[4] else {}) for row in rows]

    def list_ledger(self) -> Counter[tuple[str, str]]:
        """Return the ledger's counts without estimates, by model and kind."""
        rows = self.collector.usage(by="meter,model,estimated")["rows"]
        counts: Counter[tuple[str, str]] = Counter()
        for row in rows:
            if row["meter"] in KINDS and row["estimated"] != "yes":
                counts[row["model"], KINDS[row["meter"]]] += row["value"]
        return counts


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with ExitStack() as ends:
        made = Served(tmp_path_factory.mktemp("tokens"), ends)
        yield made
        assert checked(made.collector)[0] == 0, "ledger = batches = the edge's chain"


def read_config() -> dict[str, Any]:
    """Return config/ai.yaml, with a count of requests by key too."""
    shipped: dict[str, Any] = yaml.safe_load((ROOT / "config/ai.yaml").read_text())
    shipped["meters"]["calls"] = {"count": "requests", "dimensions": {"key": 100}}
    return shipped


def build_request(number: int) -> tuple[str, dict[str, Any]]:
    """Return a request of each kind in turn: path and body."""
    path = (CHAT, MESSAGES)[number % 2]
    body: dict[str, Any] = {
        "model": f"{'gpt' if path is CHAT else 'claude'}-{number % 3}",
        "max_tokens": 1 + number % 7,
        "messages": [{"role": "user", "content": "one two three " * (1 + number % 5)}],
    }
    if number % 4 < 2:
        body |= {"stream": True, **({"stream_options": {"include_usage": True}} if path is CHAT else {})}
    return path, body


async def ask(session: aiohttp.ClientSession, edge: Edge, number: int, *, leaves: bool = False) -> int:
    """Send one request. Returns the tokens of the answer, or 0 for an incomplete answer.

    If it `leaves`, the client disconnects once the answer has begun.
    """
    path, body = build_request(number)
    try:
        async with session.post(f"http://{HOST}:{edge.port}{path}", json=body, headers=HEADERS) as answer:
            assert answer.status == 200
            if leaves:
                await answer.content.readany()
                answer.close()
                return 0
            assert (await answer.read()).count(b"word ") >= 1
            return int(body["max_tokens"])
    except aiohttp.ClientError:
        return 0


async def play(served: Served, models: Models, requests: int, *, leaving: bool = False, kills: bool = False) -> int:
    """Send this many requests, ten at a time, and wait until all stated tokens are counted.

    Returns the tokens of complete answers. With `kills`, a worker is killed meanwhile, and only received answers are
    awaited.
    """
    places, before = asyncio.Semaphore(10), served.list_counts()

    async def ask_once(session: aiohttp.ClientSession, number: int) -> int:
        async with places:
            if kills and number == requests // 2:
                kill(served.edge.worker_pids()[0])
            return await ask(session, served.edge, number, leaves=leaving and number % 3 == 0)

    (port,) = served.ports.numbers
    async with asyncio.timeout(60), models.open(port):
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            got = sum(await asyncio.gather(*[ask_once(session, number) for number in range(requests)]))
        while not kills and served.list_counts() != before + models.stated:  # noqa: ASYNC110, of another process
            await asyncio.sleep(0.05)
    return got


def sum_output(counts: Counter[tuple[str, str]]) -> int:
    return sum(number for (_, kind), number in counts.items() if kind == "output")


def test_stated_tokens_reach_the_edges_counts_and_the_ledger(served: Served) -> None:
    """The edge also reads the whole answer if the client disconnects."""
    before, models = served.list_counts(), Models(pause=0.005)
    got = asyncio.run(play(served, models, 48, leaving=True))
    counts = served.list_counts()
    assert counts == before + models.stated
    assert len(models.stated) == 18, "each model and each kind of token"
    assert sum_output(models.stated) > got, "some had left"
    until(lambda: served.list_ledger() == counts, "the ledger has it all")


def test_usage_by_key_reaches_the_ledger(served: Served) -> None:
    asyncio.run(play(served, Models(), 4))
    usage_key = hashlib.sha256(key_of("acme").encode()).hexdigest()[:16]
    edge = Counter[str]()
    for _, meter, _, number, split in served.list_rows():
        if meter == "calls":
            edge[split["key"]] += number
    assert set(edge) == {usage_key}
    until(
        lambda: (
            served.collector.usage(by="key", meter="calls")["rows"] == [{"key": usage_key, "value": edge[usage_key]}]
        ),
        "the ledger has it by key",
    )


def test_complete_answers_are_counted_despite_kills(served: Served) -> None:
    before, models = sum_output(served.list_counts()), Models(pause=0.005)
    got = asyncio.run(play(served, models, 48, kills=True))
    counts = served.list_counts()
    assert got <= sum_output(counts) - before <= sum_output(models.stated)
    assert got > 0
    until(lambda: served.list_ledger() == counts, "the ledger has it all")


def test_unstated_usage_is_a_separate_estimate(served: Served) -> None:
    """A stream of OpenAI without a request for usage."""
    before, models = served.list_counts(), Models()
    body = {"model": "gpt-0", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}

    async def ask_without() -> None:
        (port,) = served.ports.numbers
        url = f"http://{HOST}:{served.edge.port}{CHAT}"
        async with (
            models.open(port),
            aiohttp.ClientSession(headers=HEADERS) as session,
            session.post(url, json=body) as answer,
        ):
            assert (await answer.read()).endswith(b"data: [DONE]\n\n")

    asyncio.run(ask_without())
    assert served.list_counts() == before
    estimated = [row for row in served.list_rows() if row[4].get("estimated") == "yes"]
    assert {row[1] for row in estimated} == {"input_tokens", "output_tokens"}
    assert {row[4]["model"] for row in estimated} == {"gpt-0"}
    assert total(served.edge.metrics(), "edge_usage_missing_total", route="models", reason="absent") == 1
