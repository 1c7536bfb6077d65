"""Estimates of tokens that answers do not state: by text and media, and never more than the request allows."""

import json
from base64 import b64encode
from typing import Any

import pytest

from edgeproxy.edge.body_usage.request_table import MEDIA
from tests.support.http2_wire import http2
from tests.support.transcript import KEY, Edge, chunks, head, ok, post

JSON, STREAM = "Content-Type: application/json", "Content-Type: text/event-stream"
NAMED = f"X-API-Key: {KEY}"
WORDS = "one two three four "


def image(size: int) -> dict[str, Any]:
    """An image of so many bytes."""
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(bytes(size)).decode()}"}}


IMAGE_TOKENS = MEDIA["openai image"].tokens


@pytest.fixture(params=["text/4", "bytes/4"])
def edge(edge: Edge, request: pytest.FixtureRequest) -> Edge:
    edge.config["meters"] = {
        "in": {"count": "input_tokens", "missing": request.param},
        "out": {"count": "output_tokens", "missing": request.param},
        "all": {"count": "total_tokens", "missing": request.param},
    }
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    route["response_usage"] = "any"
    return edge


def counted(edge: Edge) -> dict[str, int]:
    assert edge._supervisor is not None
    return {row[1]: row[3] for row in edge._supervisor.usage_totals() if row[0] == "acme" and row[3]}


def write(body: object) -> bytes:
    return json.dumps(body).encode()


def chat(*parts: object, **more: object) -> bytes:
    return write({"messages": [{"role": "user", "content": [{"type": "text", "text": WORDS}, *parts]}], **more})


def events(count: int, **more: object) -> bytes:
    each = {"id": "chatcmpl-" + "a" * 200, "choices": [{"delta": {"content": "word"}}], **more}
    return b"data: %b\n\n" % write(each) * count


TEXT_TOKENS = -(-len(WORDS) // 4)
MAXIMA: dict[str, dict[str, Any]] = {
    "OpenAI": {"max_completion_tokens": 7},
    "OpenAI, several choices": {"max_tokens": 3, "n": 3, "best_of": 1},
    "Responses": {"max_output_tokens": 8},
    "Anthropic": {"max_tokens": 5},
    "Gemini": {"generationConfig": {"maxOutputTokens": 6, "candidateCount": 1}},
    "Bedrock": {"inferenceConfig": {"maxTokens": 4}},
    "Ollama": {"options": {"num_predict": 2}},
    "llama.cpp": {"n_predict": 1},
}
MOST = dict(zip(MAXIMA, (7, 9, 8, 5, 6, 4, 2, 1), strict=True))


@pytest.mark.parametrize("name", MAXIMA)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_estimate_is_never_more_than_the_request_allows(edge: Edge, name: str, is_stream: bool) -> None:
    answer = (events(300), STREAM) if is_stream else (write({"choices": [{"message": {"content": "w " * 900}}]}), JSON)
    await edge.passes(post(chat(**MAXIMA[name]), "/v1/chat/completions", NAMED), ok(*answer))
    assert counted(edge) == {"in": TEXT_TOKENS, "out": MOST[name], "all": TEXT_TOKENS + MOST[name]}


async def test_output_estimate_counts_text_without_its_json(edge: Edge) -> None:
    probabilities = {"content": [{"token": "word", "logprob": -0.5, "bytes": [119] * 40}] * 20}
    answer = ok(events(40, logprobs=probabilities), STREAM)
    await edge.passes(post(chat(), "/v1/chat/completions", NAMED), answer)
    # By all bytes there is a bound: a token has two bytes of text at least.
    assert counted(edge)["out"] == (40 if edge.config["meters"]["out"]["missing"] == "text/4" else 80)


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("step", [1000, 150_000])
async def test_image_estimate_is_equal_for_each_framing(edge: Edge, framing: str, step: int) -> None:
    body = chat(image(240_000), max_tokens=1)
    request = post(body, "/v1/chat/completions", NAMED)
    if framing == "chunked":
        pieces = [body[at : at + 5000] for at in range(0, len(body), 5000)]
        lines = ("POST /v1/chat/completions HTTP/1.1", "Host: edge.test", NAMED, "Transfer-Encoding: chunked")
        request = head(*lines) + chunks(*pieces)
    client = await edge.client()
    upstream = None
    for at in range(0, len(request), step):
        await client.sends(request[at : at + step])
        upstream = upstream or await edge.upstream.accepts()
    assert upstream is not None
    assert (await upstream.gets_request()).body == body
    await upstream.tells(client, ok(events(9), STREAM))
    assert counted(edge) == {"in": TEXT_TOKENS + IMAGE_TOKENS, "out": 1, "all": TEXT_TOKENS + IMAGE_TOKENS + 1}


async def test_image_counts_its_figure_over_http2(edge: Edge) -> None:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.upstream.answers(lambda _: ok(events(9), STREAM))
    client = await http2(edge)
    body = chat(image(40_000), max_tokens=1)
    number = await client.begins_request("POST", "/v1/chat/completions", ("x-api-key", KEY), ended=False)
    for at in range(0, len(body), 16_000):
        await client.sends_data(number, body[at : at + 16_000], ended=at + 16_000 >= len(body))
    assert (await client.answer_of(number)).status == 200
    assert counted(edge)["in"] == TEXT_TOKENS + IMAGE_TOKENS


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v1/embeddings", {"data": [{"embedding": "A" * 9000}]}),
        ("/v1/embeddings", {"data": [{"embedding": [0.25] * 900}]}),
        ("/v1/images/generations", {"data": [{"b64_json": "A" * 9000}]}),
    ],
)
async def test_encodings_of_an_answer_are_no_output(edge: Edge, path: str, answer: object) -> None:
    await edge.passes(post(write({"input": WORDS}), path, NAMED), ok(write(answer), JSON))
    assert counted(edge) == {"in": TEXT_TOKENS, "all": TEXT_TOKENS}


async def test_answer_in_no_dialect_is_estimated_and_named(edge: Edge) -> None:
    answer = {"meta": {"sum_tokens": 5}, "said": WORDS, "trace": "t" * 900}
    await edge.passes(post(chat(), "/v1/chat/completions", NAMED), ok(write(answer), JSON))
    assert counted(edge)["out"] == TEXT_TOKENS if edge.config["meters"]["out"]["missing"] == "text/4" else 10
    reasons = {reason: words[0] for (_, reason), words in edge.metrics("edge_usage_missing_total").items()}
    assert reasons == {"dialect": 1}
