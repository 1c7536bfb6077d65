"""Gateways in a row, and providers with several dialects behind one route: each answer counts once."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from typing import Any, NamedTuple

import httpx
import pytest
from aiohttp import web

from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.models import Models
from loadtest.testbed.ports import HOST, Ports

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
KINDS = {"input_tokens": "input", "output_tokens": "output", "cached_tokens": "cached"}
METERS = {count: {"count": count, "missing": "text/4", "dimensions": {"model": 200, "estimated": 2}} for count in KINDS}
PROTOCOLS = ("http/1.1", "h2c")
CALLS = [
    (CHAT, {}),
    (CHAT, {"stream": True}),
    (CHAT, {"stream": True, "stream_options": {"include_usage": True}}),
    (MESSAGES, {}),
    (MESSAGES, {"stream": True}),
]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site(NamedTuple):
    """An edge behind an edge, over one protocol, and the ports of their upstreams."""

    outer: Edge
    inner: Edge
    protocol: str
    models: int
    """The port of the models behind the inner edge."""
    gateway: int
    """The port of a gateway that is no edge; the outer edge uses it too."""
    other: int
    """The port of the models of another dialect, which the outer edge falls back to."""

    def count(self, edge: Edge) -> Counter[tuple[str, str]]:
        """Return an edge's counts for `acme`, by model and kind; estimates have their own kind."""
        counts: Counter[tuple[str, str]] = Counter()
        for customer, meter, _, number, *split in edge._told("/usage").json()["rows"]:
            dimensions = json.loads(split[0] or "{}") if split else {}
            if customer == "acme" and meter in KINDS:
                kind = KINDS[meter] if dimensions.get("estimated") == "no" else f"{KINDS[meter]} estimated"
                counts[dimensions.get("model", ""), kind] += number
        return counts


def build_route(name: str, upstream: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "path": f"/{name}/*",
        "upstream": upstream,
        "response_usage": {"format": "any", "ask_for_usage": True},
        "rewrite": {"strip": f"/{name}"},
        **more,
    }


@pytest.fixture(scope="module", params=PROTOCOLS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    protocol, folder = request.param, tmp_path_factory.mktemp("gateways")
    with ExitStack() as ends:
        models, gateway, other = ends.enter_context(closing(Ports(3))).numbers
        inner = ends.enter_context(closing(Edge(folder / "inner", models)))
        outer = ends.enter_context(closing(Edge(folder / "outer", gateway)))
        for edge in (inner, outer):
            edge.settings |= {
                "listen": {"address": f"{HOST}:{edge.port}", "http2": True},
                "meters": METERS,
                "workers": 1,
            }
            edge.settings |= people(acme="free")
        inner.settings["routes"] = [{**build_route("all", "api"), "path": "/*", "rewrite": {}}]
        outer.settings["upstreams"] = {
            "inner": {"endpoints": [f"http://{HOST}:{inner.port}"], "protocol": protocol},
            "gateway": {"endpoints": [f"http://{HOST}:{gateway}"], "eject": "off"},
            "other": {"endpoints": [f"http://{HOST}:{other}/other"]},
        }
        key = {"request": {"set": {"X-API-Key": key_of("acme")}}}
        outer.settings["routes"] = [
            build_route("edge", "inner", rewrite={"strip": "/edge", **key}),
            build_route("gateway", "gateway"),
            build_route("fallback", "gateway", fallback={"upstream": "other"}),
        ]
        inner.start()
        outer.start()
        yield Site(outer, inner, protocol, models, gateway, other)


@asynccontextmanager
async def serve(port: int, handler: Handler) -> Any:
    """Serve on this port, for every path."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    try:
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connect(site: Site) -> Any:
    """Return a client of the outer edge, over the tested protocol."""
    is_http2 = site.protocol == "h2c"
    headers = {"X-API-Key": key_of("acme"), "Accept-Encoding": "identity"}
    base = f"http://{HOST}:{site.outer.port}"
    async with httpx.AsyncClient(base_url=base, headers=headers, http1=not is_http2, http2=is_http2) as client:
        yield client


async def ask(client: httpx.AsyncClient, path: str, model: str, **more: Any) -> httpx.Response:
    body = {"model": model, "max_tokens": 7, "messages": [{"role": "user", "content": "one two three"}], **more}
    return await client.post(path, json=body)


def test_an_answer_through_two_edges_counts_once_at_each(site: Site) -> None:
    """Both edges request usage in streams, but the client gets it only if it requested it."""
    models = Models()

    async def ask_all() -> list[str]:
        async with models.open(site.models), connect(site) as client:
            answers = [await ask(client, f"/edge{path}", f"row-{n}", **more) for n, (path, more) in enumerate(CALLS)]
        assert {answer.http_version for answer in answers} == {"HTTP/2" if site.protocol == "h2c" else "HTTP/1.1"}
        assert {answer.status_code for answer in answers} == {200}
        return [answer.text for answer in answers]

    texts = asyncio.run(ask_all())
    assert ["total_tokens" in text for text in texts[:3]] == [True, False, True]
    assert all(text.count("word ") == 7 for text in texts)
    assert texts[1].endswith("data: [DONE]\n\n")
    expected = {key: number for key, number in models.stated.items() if key[0].startswith("row-")}
    assert len(expected) == 15
    for edge in (site.inner, site.outer):
        counted = {key: number for key, number in site.count(edge).items() if key[0].startswith("row-")}
        assert counted == expected, edge.family_name


# ---- a gateway that rewrites usage

BOTH = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050, "input_tokens": 1000, "output_tokens": 50}
CACHED_TWICE = {
    "prompt_tokens": 1000,
    "completion_tokens": 50,
    "total_tokens": 1050,
    "prompt_tokens_details": {"cached_tokens": 800},
    "cache_read_input_tokens": 800,
    "cache_creation_input_tokens": 0,
    "cost": 0.0123,
    "cost_details": {"upstream_inference_cost": None},
}
PLAIN = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}
BESIDE_A_CHOICE = "usage beside an empty choice"
REWRITTEN: dict[str, tuple[list[Any], int]] = {
    "names of two dialects": ([BOTH], 0),
    "cached tokens twice, and a cost": ([CACHED_TWICE], 800),
    "usage so far in each chunk": (
        [{**PLAIN, "completion_tokens": n, "total_tokens": 1000 + n} for n in (1, 20, 50)],
        0,
    ),
    "usage twice at the end": ([None, PLAIN, PLAIN], 0),
    "zeros before the end": ([{**PLAIN, "completion_tokens": 0, "total_tokens": 0, "prompt_tokens": 0}, PLAIN], 0),
    BESIDE_A_CHOICE: ([PLAIN], 0),
    "usage as text beside the object": ([{**PLAIN, "raw": json.dumps({"prompt_tokens": 9_999})}], 0),
    "provider's own object beside": ([{**PLAIN, "provider_usage": {"input_tokens": 1000, "output_tokens": 50}}], 0),
}
"""Forms of usage in stream chunks of gateways, and the number of cached tokens."""


def build_chunks(usages: list[Any], model: str, end: list[Any]) -> list[dict[str, Any]]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
    last = len(usages) - 1
    return [
        {**head, "choices": [choice]},
        *[{**head, "choices": end if at == last else [choice], "usage": usage} for at, usage in enumerate(usages)],
    ]


@pytest.mark.parametrize("name", REWRITTEN)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_usage_that_a_gateway_rewrites_counts_once(site: Site, name: str, is_stream: bool) -> None:
    usages, cached = REWRITTEN[name]
    model = f"{name} {is_stream}"[:60].replace(" ", "-")

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert body.get("stream_options") == ({"include_usage": True} if is_stream else None)
        if not is_stream:
            message = {"index": 0, "message": {"role": "assistant", "content": "word"}, "finish_reason": "stop"}
            return web.json_response({"id": "1", "model": model, "choices": [message], "usage": usages[-1]})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        end = [{"index": 0, "delta": {}}] if name == BESIDE_A_CHOICE else []
        for chunk in build_chunks(usages, model, end):
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    async def ask_once() -> str:
        async with serve(site.gateway, answer), connect(site) as client:
            got = await ask(client, f"/gateway{CHAT}", model, **({"stream": True} if is_stream else {}))
            assert got.status_code == 200
            return got.text

    text = asyncio.run(ask_once())
    counted = {kind: number for (of, kind), number in site.count(site.outer).items() if of == model}
    assert counted == {"input": 1000, "output": 50, **({"cached": cached} if cached else {})}
    if is_stream:
        assert text.endswith("data: [DONE]\n\n")
        assert text.count('"choices": []') == 0, "the client gets no usage-only event"


# ---- retries and fallbacks

GEMINI = {
    "candidates": [{"content": {"parts": [{"text": "word "}], "role": "model"}, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 200,
        "candidatesTokenCount": 10,
        "thoughtsTokenCount": 20,
        "cachedContentTokenCount": 150,
        "totalTokenCount": 230,
    },
}
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "word "}],
    "usage": {
        "input_tokens": 40,
        "cache_read_input_tokens": 150,
        "cache_creation_input_tokens": 10,
        "output_tokens": 30,
    },
}
CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "word "}]}},
    "usage": {"inputTokens": 50, "outputTokens": 30, "cacheReadInputTokens": 150, "totalTokens": 230},
}
OTHERS: dict[str, dict[str, Any]] = {"gemini": GEMINI, "anthropic": ANTHROPIC, "bedrock": CONVERSE}
FAILING = {
    "an error with usage": (
        500,
        {"error": {"message": "busy"}, "usage": {"prompt_tokens": 777, "completion_tokens": 777}},
    ),
    "too many requests": (429, {"type": "error", "error": {}, "usage": {"input_tokens": 777, "output_tokens": 777}}),
    "a lost connection": (0, {}),
}


@pytest.mark.parametrize("fails", FAILING)
@pytest.mark.parametrize("dialect", OTHERS)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_the_answer_that_the_client_gets_counts_by_the_row_of_its_provider(
    site: Site, fails: str, dialect: str, is_stream: bool
) -> None:
    status, error = FAILING[fails]
    model, attempts = f"{dialect}-{status}-{is_stream}", Counter[str]()
    named = {**OTHERS[dialect], "modelVersion" if dialect == "gemini" else "model": model}

    async def fail(request: web.Request) -> web.StreamResponse:
        attempts["first"] += 1
        await request.read()
        if status:
            return web.json_response(error, status=status)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def answer(request: web.Request) -> web.StreamResponse:
        attempts["second"] += 1
        await request.read()
        if not is_stream:
            return web.json_response(named)
        if dialect == "anthropic":
            start = {**named, "content": [], "usage": {**ANTHROPIC["usage"], "output_tokens": 1}}
            events = [
                {"type": "message_start", "message": start},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}},
                {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 30}},
            ]
        else:
            events = [named]
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        return web.Response(text=text, content_type="text/event-stream")

    before = site.count(site.outer)

    async def ask_once() -> None:
        async with serve(site.gateway, fail), serve(site.other, answer), connect(site) as client:
            more = {"stream": True} if is_stream else {}
            assert (await ask(client, f"/fallback{CHAT}", model, **more)).status_code == 200

    asyncio.run(ask_once())
    assert attempts["first"] >= 1
    assert attempts["second"] == 1
    counted = site.count(site.outer) - before
    assert counted == {(model, "input"): 200, (model, "output"): 30, (model, "cached"): 150}
