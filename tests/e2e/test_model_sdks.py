"""The SDKs of OpenAI, Anthropic and Google, and LiteLLM, show equal usage with and without an edge.

A stand-in for all providers returns the recorded answers of the table of dialects. The edge has the routes of
config/ai.yaml, one for each format, and must count the numbers that the SDKs show.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from aiohttp import web

from loadtest.testbed.authority import Authority
from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT
from tests.edge.body_usage.test_dialects import ANSWERS, get_body

PYTHON = Path(sys.prefix) / "sdks/bin/python"
SESSION = ROOT / "loadtest/model_clients/session.py"
RECORDED = "X-Recorded"
"""The field of a request that names the recorded answer."""
SECONDS_MAX = 500.0
"""Seconds for the session: some 30 on a quiet machine, half of them for imports, and over 220 beside other work."""
PIECE_BYTES = 61
"""Bytes of a stream per write. No event ends at a write's end."""
LIMIT = {"rate": "100000000/min", "of": "all", "reserve": "request"}
"""A limit that makes the edge read each request."""
OPENAI_CALLS = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/responses": "responses",
    "/embeddings": "embeddings",
    "/audio/transcriptions": "transcriptions",
    "/images/generations": "images",
}
ANTHROPIC_NUMBERS = (*("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),)
LITELLM_MAX = 5
"""The answers of a call that LiteLLM asks for, apart from streams: one reader of LiteLLM serves all providers."""
LITELLM_CALLS = {"/api/chat": "ollama", "/v2/chat": "cohere"}
NOT_READ = {
    ("google", "application/json", "streamGenerateContent"): "no SDK asks for a stream as a list",
    ("litellm", "application/json", "streamGenerateContent"): "no SDK asks for a stream as a list",
    ("litellm", "text/event-stream", "/v2/chat"): "LiteLLM cannot read the names of Cohere's events",
}
"""Answers that an SDK cannot read, and why."""
OTHERWISE = {
    "messages, start of a stream": "LiteLLM takes the first of two final events",
    "chat v2": "LiteLLM shows `tokens`, of which Cohere bills a part",
}
"""Operations for which LiteLLM shows other numbers than the provider bills, and why."""


def is_shown_otherwise(asked: "Asked") -> bool:
    """Return whether LiteLLM shows other numbers. It also ignores the steps beside a message, and guesses for Groq."""
    body = asked.answer["body"]
    return asked.sdk == "litellm" and (
        asked.answer["operation"] in OTHERWISE or "iterations" in body or ("x_groq" in body and asked.is_stream)
    )


pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="there are no SDKs of models' APIs on this machine"),
    pytest.mark.timeout(SECONDS_MAX + 60.0),
]


class Asked(NamedTuple):
    """One call of an SDK for a recorded answer."""

    sdk: str
    call: str
    answer: dict[str, Any]
    name: str
    """The customer who sends the request."""

    @property
    def is_stream(self) -> bool:
        return "event-stream" in self.answer["type"] or "ndjson" in self.answer["type"]


def list_calls(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the SDKs, and their calls, that can read a recorded answer."""
    path = answer["path"]
    if answer["method"] != "POST" or answer["type"] == "websocket":
        return
    if answer["format"] == "openai":
        call = next((call for end, call in OPENAI_CALLS.items() if path.endswith(end)), None)
        if call is not None:
            yield "openai", call
        if call in ("chat", "responses", "embeddings"):
            yield "litellm", call
    elif answer["format"] == "anthropic":
        yield from (("anthropic", "messages"), ("litellm", "anthropic"))
    elif answer["format"] == "gemini":
        yield "google", "interact" if "/interactions" in path else "generate"
        if "/interactions" not in path:
            yield "litellm", "gemini"
    elif path in LITELLM_CALLS:
        yield "litellm", LITELLM_CALLS[path]


def list_asked() -> Iterator[Asked]:
    """Yield the calls. The SDKs of providers ask for each answer, LiteLLM for the first few of each kind."""
    kinds = Counter[tuple[str, bool]]()
    for index, answer in enumerate(ANSWERS):
        for sdk, call in list_calls(answer):
            if any([sdk, answer["type"]] == kind and answer["path"].endswith(end) for *kind, end in NOT_READ):
                continue
            each = Asked(sdk, call, answer, f"{sdk}-{index}")
            kinds[call, each.is_stream] += sdk == "litellm"
            if sdk != "litellm" or kinds[call, each.is_stream] <= LITELLM_MAX:
                yield each


ASKED = list(list_asked())


def build_settings(port: int) -> dict[str, Any]:
    """Return the settings of config/ai.yaml, with its route for each format. Google's SDK sends keys in another
    field.
    """
    shipped: dict[str, Any] = yaml.safe_load((ROOT / "config/ai.yaml").read_text())
    (route,) = shipped["routes"]
    route["rewrite"]["request"]["set"]["Authorization"] = "Bearer none"
    others = [
        {**route, "name": name, "path": f"/{name}/*", "response_usage": name, "rewrite": {"strip": f"/{name}"}}
        for name in ("anthropic", "gemini", "cohere", "ollama")
    ]
    customers = people(**{asked.name: "free" for asked in ASKED})
    return {
        **customers,
        "auth": {"fields": ["X-API-Key", "Authorization", "X-Goog-Api-Key"]},
        "upstreams": {"models": {**shipped["upstreams"]["models"], "endpoints": [f"http://{HOST}:{port}"]}},
        "routes": [route, *others],
        "meters": {**shipped["meters"], "all": {"count": "total_tokens"}},
        "tiers": {**customers["tiers"], "free": {"limits": [LIMIT]}},
    }


async def answer_recorded(request: web.Request) -> web.StreamResponse:
    """Return the recorded answer that the request names."""
    await request.read()
    if RECORDED not in request.headers:
        return web.Response(status=404)  # LiteLLM asks Ollama which abilities a model has.
    recorded = ANSWERS[int(request.headers[RECORDED])]
    body, fields = get_body(recorded), {"Content-Type": recorded["type"]}
    if recorded["type"] == "application/json":
        return web.Response(body=body, headers=fields)
    answer = web.StreamResponse(headers=fields)
    await answer.prepare(request)
    for at in range(0, len(body), PIECE_BYTES):
        await answer.write(body[at : at + PIECE_BYTES])
    return answer


@asynccontextmanager
async def serve_recorded(port: int) -> Any:
    """Serve the recorded answers on this port, for every path."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer_recorded)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def run_session(port: int, edge_port: int, authorities: Path) -> list[dict[str, list[Any]]]:
    """Return the results of the SDKs, directly and behind the edge, in the order of ASKED."""
    cases = [
        {
            "sdk": asked.sdk,
            "call": asked.call,
            "is_stream": asked.is_stream,
            "key": key_of(asked.name),
            "fields": {RECORDED: str(ANSWERS.index(asked.answer))},
        }
        for asked in ASKED
    ]
    addresses = {"directly": f"http://{HOST}:{port}", "behind": f"http://{HOST}:{edge_port}"}
    # LiteLLM would ask the internet, and each client would read the system's authorities.
    environ = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "SSL_CERT_FILE": str(authorities)}
    pipe = asyncio.subprocess.PIPE
    async with asyncio.timeout(SECONDS_MAX), serve_recorded(port):
        session = await asyncio.create_subprocess_exec(PYTHON, SESSION, stdin=pipe, stdout=pipe, env=environ)
        output, _ = await session.communicate(json.dumps({"addresses": addresses, "cases": cases}).encode())
    assert session.returncode == 0, "the session's output is above"
    results: list[dict[str, list[Any]]] = json.loads(output)
    return results


class Session(NamedTuple):
    results: dict[str, dict[str, list[Any]]]
    """The results of each customer by the address."""
    counted: dict[str, Counter[str]]
    """The edge's counts by customer and meter. Estimates have their own names."""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    with ExitStack() as ends:
        (port,) = ends.enter_context(closing(Ports(1))).numbers
        folder = tmp_path_factory.mktemp("sdks")
        edge = ends.enter_context(closing(Edge(folder / "edge", port, **build_settings(port)))).start()
        results = asyncio.run(run_session(port, edge.port, Authority(folder).file))
        counted = {asked.name: Counter[str]() for asked in ASKED}
        for customer, meter, _, number, *split in edge._told("/usage").json()["rows"]:
            is_estimated = bool(split) and json.loads(split[0] or "{}").get("estimated") == "yes"
            if customer in counted:
                counted[customer][f"{meter} estimated" if is_estimated else meter] += number
    return Session(dict(zip([asked.name for asked in ASKED], results, strict=True)), counted)


def find_usage(answers: list[Any]) -> dict[str, Any]:
    """Return the last usage that an SDK shows, under the SDK's own name for it."""
    shown = [
        answer.get("usage")
        or answer.get("usage_metadata")
        or (answer.get("response") or {}).get("usage")
        or (answer.get("interaction") or answer.get("x_groq") or {}).get("usage")
        for answer in answers
    ]
    return next((usage for usage in reversed(shown) if usage), {})


def read_shown(sdk: str, usage: dict[str, Any]) -> dict[str, int]:
    """Return the numbers of input and output as the SDK documents them."""

    def add(*names: str) -> int:
        return sum([usage.get(name) or 0 for name in names])

    if sdk == "anthropic":
        steps = usage.get("iterations") or []
        if any(step["type"] in ("compaction", "advisor_message") for step in steps):
            usage = {name: sum([step.get(name) or 0 for step in steps]) for name in ANTHROPIC_NUMBERS}
        cached = add("cache_read_input_tokens")
        return {
            "input_tokens": add("input_tokens", "cache_creation_input_tokens") + cached,
            "output_tokens": add("output_tokens"),
            "cached_tokens": cached,
        }
    if sdk == "google":
        return {
            "input_tokens": add(
                *("prompt_token_count", "tool_use_prompt_token_count", "total_input_tokens", "total_tool_use_tokens")
            ),
            "output_tokens": add(
                *("candidates_token_count", "thoughts_token_count", "total_output_tokens", "total_thought_tokens")
            ),
            "cached_tokens": add("cached_content_token_count", "total_cached_tokens"),
        }
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return {
        # A gateway may state a number by both names.
        "input_tokens": add("prompt_tokens") or add("input_tokens"),
        "output_tokens": add("completion_tokens") or add("output_tokens"),
        **({"cached_tokens": details["cached_tokens"]} if details.get("cached_tokens") else {}),
    }


def test_each_recorded_answer_that_an_sdk_reads_is_asked_for() -> None:
    kinds = Counter((asked.sdk, asked.is_stream) for asked in ASKED)
    assert {sdk for sdk, _ in kinds} == {"openai", "anthropic", "google", "litellm"}
    assert min(kinds.values()) >= 2
    assert len({ANSWERS.index(asked.answer) for asked in ASKED}) >= 90


def test_sdks_get_the_same_answer_with_and_without_the_edge(session: Session) -> None:
    assert not {
        name: got["directly"][-1]
        for name, got in session.results.items()
        if got["behind"] != got["directly"] or "Error" in str(got["directly"][-1].get("error"))
    }


def test_edge_counts_the_tokens_that_providers_bill(session: Session) -> None:
    for asked in ASKED:
        expected = {count: asked.answer["counts"].get(count) or 0 for count in ("input_tokens", "output_tokens")}
        counted = session.counted[asked.name]
        assert {count: counted[count] for count in expected} == expected, asked.name
        assert counted["cached_tokens"] == (asked.answer["counts"].get("cached_tokens") or 0), asked.name
        assert counted["all"] == sum(expected.values()), asked.name
        assert not [name for name in counted if name.endswith("estimated")], asked.name


def test_the_edge_counts_the_numbers_that_sdks_show(session: Session) -> None:
    """Except for answers whose parts and total disagree: a rule of the table decides there, and only totals are
    equal.
    """
    compared, differing = Counter[str](), {}
    for asked in ASKED:
        usage, counted = find_usage(session.results[asked.name]["behind"]), session.counted[asked.name]
        if "seconds" in usage or is_shown_otherwise(asked):
            continue
        compared[asked.sdk] += 1
        shown = read_shown(asked.sdk, usage)
        if asked.answer.get("rule"):
            total = usage.get("total_tokens", usage.get("total_token_count"))
            # Of a stream LiteLLM adds up the parts. Perplexity's total lacks the reasoning that it charges.
            is_whole = asked.sdk != "litellm" and asked.answer["provider"] != "Perplexity"
            shown = {"all": total} if is_whole else {}
        if asked.sdk == "anthropic" and not shown.get("input_tokens"):
            shown.pop("input_tokens", None)  # This SDK takes a zero for the last word, also behind a number.
        if any(counted[count] != number for count, number in shown.items()):
            differing[asked.name] = shown, counted
    assert not differing
    assert compared.keys() == {"openai", "anthropic", "google", "litellm"}
