"""Only work of a model counts, and each once: operations, stored answers, errors within a 200, and sessions."""

import json
from base64 import b64encode
from typing import Any

import pytest

from tests.edge.body_usage.test_messages import frame
from tests.support.transcript import KEY, Edge, chunks, get, head, ok, post

METERS: dict[str, Any] = {
    "in": {"count": "input_tokens", "missing": "bytes/4"},
    "out": {"count": "output_tokens", "missing": "bytes/10"},
    "all": {"count": "total_tokens"},
}
JSON, STREAM = "Content-Type: application/json", "Content-Type: text/event-stream"
NAMED = f"X-API-Key: {KEY}"
USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
PROMPT = b'{"model": "m", "messages": []}' + b" " * 4000
ERROR = {"error": {"message": "overloaded", "code": 529}}


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["meters"] = METERS
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    route["response_usage"] = "openai"
    return edge


def counted(edge: Edge) -> dict[str, int]:
    assert edge._supervisor is not None
    return {row[1]: row[3] for row in edge._supervisor.usage_totals() if row[0] == "acme" and row[3]}


async def pass_each(edge: Edge, *calls: tuple[bytes, object]) -> None:
    for request, body in calls:
        written = body if isinstance(body, bytes) else json.dumps(body).encode()
        await edge.passes(request, ok(written, STREAM if written.startswith((b"data", b"event")) else JSON))


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (post(PROMPT, "/v1/messages/count_tokens", NAMED), {"input_tokens": 20007}),
        (post(PROMPT, "/v1/responses/input_tokens", NAMED), {"object": "response.input_tokens", "input_tokens": 7}),
        (post(b"x" * 4000, "/v1/files", NAMED), {"id": "file_1", "object": "file", "bytes": 4000}),
        (post(PROMPT, "/v1/batches", NAMED), {"id": "b", "object": "batch", "status": "validating", "usage": None}),
        (get("/v1/models", NAMED), {"object": "list", "data": [{"id": "m" * 1000}]}),
        (post(PROMPT, "/v1/chat/completions", NAMED), ERROR),
        (post(PROMPT, "/v1/chat/completions", NAMED), b"data: " + json.dumps(ERROR).encode() + b"\n\ndata: [DONE]\n\n"),
        (post(PROMPT, "/v1/responses", NAMED), {"id": "r", "object": "response", "status": "queued", "usage": None}),
    ],
    ids=range(8),
)
async def test_call_without_model_work_counts_nothing(edge: Edge, request_: bytes, body: object) -> None:
    await pass_each(edge, (request_, body))
    assert counted(edge) == {}
    assert edge.metrics("edge_usage_missing_total") == {}


async def test_long_model_names_stay_distinct(edge: Edge) -> None:
    edge.config["meters"] = {"all": {"count": "total_tokens", "dimensions": {"model": 5}}}
    names = ["accounts/fireworks/models/" + "x" * 80 + end for end in "ab"]
    chat = post(PROMPT, "/v1/chat/completions", NAMED)
    await pass_each(edge, *[(chat, {"model": name, "usage": {"prompt_tokens": 9}}) for name in names])
    assert edge._supervisor is not None
    splits = [json.loads(row[4])["model"] for row in edge._supervisor.usage_totals() if row[3] and len(row) == 5]
    assert len(set(splits)) == 2
    assert all(len(split) == 64 and split.startswith(names[0][:40]) for split in splits)


async def test_usage_is_split_by_service_tier_and_size_of_the_prompt(edge: Edge) -> None:
    split = {"service_tier": 5, "prompt_size": 7}
    edge.config["meters"] = {"all": {"count": "total_tokens", "dimensions": split}}
    chat = post(PROMPT, "/v1/chat/completions", NAMED)
    for tier, tokens in (("flex", 32_000), ("flex", 32_001), ("default", 999_999), (None, 1)):
        await pass_each(edge, (chat, {"service_tier": tier, "usage": {"prompt_tokens": tokens}}))
    assert edge._supervisor is not None
    counts = {row[4]: row[3] for row in edge._supervisor.usage_totals() if row[3]}
    assert counts == {
        '{"prompt_size":"32k","service_tier":"flex"}': 32_000,
        '{"prompt_size":"128k","service_tier":"flex"}': 32_001,
        '{"prompt_size":"more","service_tier":"default"}': 999_999,
        '{"prompt_size":"32k"}': 1,
    }


async def test_error_after_content_is_estimated(edge: Edge) -> None:
    content = b"".join(b'data: {"model": "m", "choices": [{"delta": {"content": "x"}}]}\n\n' for _ in range(20))
    error = b"data: " + json.dumps(ERROR).encode() + b"\n\n"
    await pass_each(edge, (post(PROMPT, "/v1/chat/completions", NAMED), content + error))
    assert counted(edge)["out"] == 10, "twenty bytes of text"


ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
ESTIMATED = {
    "in": {"count": "input_tokens", "missing": "text/4"},
    "out": {"count": "output_tokens", "missing": "text/10"},
}


def reasons(edge: Edge) -> dict[str, int]:
    """The answers that state no usage, by the reason."""
    return {reason: words[0] for (_, reason), words in edge.metrics("edge_usage_missing_total").items()}


@pytest.mark.parametrize("way", ["whole", "chunked", "streamed"])
@pytest.mark.parametrize(("text", "out"), [("x" * 200, 20), ("", 0)], ids=["with text", "without"])
@pytest.mark.parametrize(
    ("usage", "input_"),
    [
        (ZERO, 10),
        ({"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}, 7),
        ({"prompt_tokens": 7, "completion_tokens": 0}, 7),
        ({"total_tokens": 0}, 10),
    ],
    ids=["all", "output", "output without a total", "total"],
)
async def test_zero_output_beside_text_is_not_stated(
    edge: Edge, way: str, text: str, out: int, usage: dict[str, int], input_: int
) -> None:
    """Gateways that lose the usage of a stream state zeros (BerriAI/litellm#38065)."""
    edge.config["meters"] = ESTIMATED
    chat = post(b'{"messages": [{"content": "%b"}]}' % (b"y" * 40), "/v1/chat/completions", NAMED)
    body = json.dumps({"model": "m", "choices": [{"delta": {"content": text}}], "usage": usage}).encode()
    if way == "whole":
        answer = ok(body, JSON)
    else:
        body, kind = (b"data: " + body + b"\n\n", STREAM) if way == "streamed" else (body, JSON)
        answer = head("HTTP/1.1 200 OK", kind, "Transfer-Encoding: chunked") + chunks(body[:9], body[9:])
    await edge.passes(chat, answer)
    stated = {"in": usage["prompt_tokens"]} if usage.get("prompt_tokens") else {}
    # A total of zero alone states nothing.
    expected = {"in": input_, "out": out} if out else stated if "prompt_tokens" in usage else {"in": input_}
    assert counted(edge) == expected
    assert reasons(edge) == ({"zero": 1} if out else {} if "prompt_tokens" in usage else {"absent": 1})


@pytest.mark.parametrize(
    ("format_", "path", "answer"),
    [
        (
            "bedrock",
            "/v1/model/m/converse",
            {"stopReason": "guardrail_intervened", "usage": {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}},
        ),
        (
            "bedrock",
            "/v1/model/m/invoke",
            {"amazon-bedrock-guardrailAction": "INTERVENED", "usage": {"input_tokens": 0, "output_tokens": 0}},
        ),
        ("openai", "/v1/audio/transcriptions", {"usage": {"type": "duration", "seconds": 3}}),
        ("openai", "/v1/rerank", {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}),
    ],
    ids=["guard", "guard of a model", "seconds", "no output"],
)
async def test_true_zeros_beside_text_stay(edge: Edge, format_: str, path: str, answer: dict[str, object]) -> None:
    """Text that no model has written, or that is charged by something else."""
    edge.config["meters"] = ESTIMATED
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    route["response_usage"] = format_
    await pass_each(edge, (post(PROMPT, path, NAMED), {"text": "I cannot say that. " * 20, **answer}))
    assert (counted(edge), reasons(edge)) == ({}, {})


def response(name: str, **more: object) -> dict[str, object]:
    return {"id": name, "object": "response", "status": "completed", "model": "m", "usage": USAGE, **more}


async def test_stored_answer_counts_once_across_calls(edge: Edge) -> None:
    read = get("/v1/responses/resp_1", NAMED)
    await pass_each(edge, (post(PROMPT, "/v1/responses", NAMED), response("resp_1")), *[(read, response("resp_1"))] * 3)
    assert counted(edge)["all"] == 15
    await pass_each(edge, (post(b"{}", "/v1/responses/resp_1/cancel", NAMED), response("resp_1")))
    assert counted(edge)["all"] == 15


async def test_background_answer_counts_once_when_it_is_finished(edge: Edge) -> None:
    create, read = post(PROMPT, "/v1/responses", NAMED), get("/v1/responses/resp_2", NAMED)
    waiting = response("resp_2", status="in_progress", usage=None)
    done = response("resp_2", background=True)
    await pass_each(edge, (create, {**waiting, "status": "queued"}), (read, waiting), (read, done), (read, done))
    assert counted(edge) == {"in": 10, "out": 5, "all": 15}


INTERACTION_USAGE = {"total_input_tokens": 10, "total_output_tokens": 3, "total_thought_tokens": 2, "total_tokens": 15}


def interaction(name: str, status: str, **more: object) -> dict[str, object]:
    return {"id": name, "object": "interaction", "model": "gemini-3", "status": status, **more}


async def test_interaction_counts_once_when_it_is_finished_or_waits_for_its_client(edge: Edge) -> None:
    """https://ai.google.dev/gemini-api/docs/interactions: `requires_action` is the end of one."""
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    route["response_usage"] = "gemini"
    create, read = post(PROMPT, "/v1/interactions", NAMED), get("/v1/interactions/i1", NAMED)
    done = interaction("i1", "completed", usage=INTERACTION_USAGE)
    await pass_each(edge, (create, interaction("i1", "in_progress")), (read, interaction("i1", "in_progress")))
    assert counted(edge) == {}
    await pass_each(edge, (read, done), (read, done), (post(b"{}", "/v1/interactions/i1/cancel", NAMED), done))
    assert counted(edge) == {"in": 10, "out": 5, "all": 15}
    waits = interaction("i2", "requires_action", usage=INTERACTION_USAGE)
    await pass_each(edge, (create, waits), (get("/v1/interactions/i2", NAMED), waits))
    assert counted(edge)["all"] == 30


CHAT = {"id": "c1", "object": "chat.completion", "model": "m", "choices": [{"message": {"content": "x" * 40}}]}
CHAT_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@pytest.mark.parametrize(
    ("create", "ticket", "read", "waiting", "done"),
    [
        (
            "/v1/chat/completions",
            {"request_id": "d1"},
            "/v1/chat/deferred-completion/d1",
            None,
            {**CHAT, "usage": CHAT_USAGE},
        ),
        (
            "/v1/async/chat/completions",
            {"id": "a1", "model": "sonar", "status": "CREATED", "response": None},
            "/v1/async/chat/completions/a1",
            {"id": "a1", "model": "sonar", "status": "IN_PROGRESS", "response": None},
            {"id": "a1", "status": "COMPLETED", "response": {**CHAT, "usage": CHAT_USAGE}},
        ),
        (
            "/v1/async/chat/completions",
            {"request_id": "r1", "id": "z1", "model": "glm", "task_status": "PROCESSING"},
            "/v1/async-result/z1",
            {"request_id": "r1", "id": "z1", "model": "glm", "task_status": "PROCESSING"},
            {"request_id": "r1", "id": "z1", "model": "glm", "task_status": "SUCCESS", "usage": CHAT_USAGE},
        ),
    ],
    ids=["xAI", "Perplexity", "Zhipu"],
)
async def test_answer_that_its_request_did_not_wait_for_counts_once(
    edge: Edge, create: str, ticket: object, read: str, waiting: object, done: object
) -> None:
    await pass_each(edge, (post(PROMPT, create, NAMED), ticket))
    for each in (waiting, done, done):
        if each is not None:
            await pass_each(edge, (get(read, NAMED), each))
    assert counted(edge) == {"in": 10, "out": 5, "all": 15}
    assert reasons(edge) == {}


async def test_ticket_beside_text_or_vectors_is_none(edge: Edge) -> None:
    edge.config["meters"] = ESTIMATED
    prompt = b'{"messages": [{"content": "%b"}], "input": "%b"}' % (b"y" * 40, b"y" * 40)
    await pass_each(edge, (post(prompt, "/v1/chat/completions", NAMED), {"request_id": "d1", **CHAT}))
    vectors = {"request_id": "d1", "data": [{"embedding": [0.5]}]}
    await pass_each(edge, (post(prompt, "/v1/embeddings", NAMED), vectors))
    assert counted(edge) == {"in": 40, "out": 4}
    assert reasons(edge) == {"absent": 2}


GEMINI_USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 15}


@pytest.mark.parametrize("place", ["response", "metadata"])
async def test_results_within_a_batch_count_once(edge: Edge, place: str) -> None:
    """https://ai.google.dev/gemini-api/docs/batch-api: results of inline requests stand in the batch."""
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    route["response_usage"] = "gemini"
    answers = [{"response": {"modelVersion": "m", "usageMetadata": GEMINI_USAGE}, "metadata": {"key": "a"}}]
    answers += [{"error": {"code": 400, "message": "no"}}, *answers, 5]  # type: ignore[list-item, dict-item]
    within = {"inlinedResponses": {"inlinedResponses": answers}}
    batch = {"name": "batches/b1", "metadata": {"state": "BATCH_STATE_SUCCEEDED"}}
    whole = {
        **batch,
        "done": True,
        **({"response": within} if place == "response" else {"metadata": {"output": within}}),
    }
    read = get("/v1/batches/b1", NAMED)
    await pass_each(
        edge,
        (post(PROMPT, "/v1/models/m:batchGenerateContent", NAMED), batch),
        *((read, each) for each in (batch, whole, whole)),
        (post(b"{}", "/v1/batches/b1:cancel", NAMED), whole),
        (read, {**whole, "name": None}),
        (read, {**batch, "response": {"inlinedResponses": {"inlinedResponses": {"0": answers}}}}),
    )
    assert counted(edge) == {"in": 20, "out": 10, "all": 30}
    assert reasons(edge) == {}


async def test_results_within_a_long_batch_are_named(edge: Edge) -> None:
    """They stand deeper than the edge reads in a long text. Nothing is estimated, as a model has worked before."""
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    route["response_usage"] = "gemini"
    result = {"response": {"candidates": ["x" * 1000], "usageMetadata": GEMINI_USAGE}}
    within = {"inlinedResponses": {"inlinedResponses": [result] * 1000}}
    await pass_each(edge, (get("/v1/batches/b1", NAMED), {"name": "batches/b1", "response": within}))
    assert (counted(edge), reasons(edge)) == ({}, {"long": 1})


async def test_content_of_a_cache_counts_when_it_is_created(edge: Edge) -> None:
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    route["response_usage"] = "gemini"
    cache = {"name": "cachedContents/c1", "model": "models/m", "usageMetadata": {"totalTokenCount": 9}}
    read = get("/v1/cachedContents/c1", NAMED)
    await pass_each(edge, (post(PROMPT, "/v1/cachedContents", NAMED), cache), (read, cache), (read, cache))
    assert counted(edge) == {"all": 9}


async def test_stored_answer_in_no_dialect_is_named(edge: Edge) -> None:
    odd = {"id": "r1", "object": "response", "status": "completed", "usage": {"tokensIn": 5}}
    models = {"object": "list", "data": [{"id": "m", "usage": {"total_tokens": 1}}]}
    settings = {"id": "m", "object": "model", "max_output_tokens": 5, "usage": None}
    calls = ((get("/v1/responses/r1", NAMED), odd), (get("/v1/batches", NAMED), models))
    await pass_each(edge, *calls, (get("/v1/models/m", NAMED), settings))
    assert (counted(edge), reasons(edge)) == ({}, {"dialect": 1})


async def test_run_of_a_new_thread_counts_once(edge: Edge) -> None:
    run = {"id": "run_1", "object": "thread.run", "model": "m", "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    streamed = b"event: thread.run.completed\ndata: " + json.dumps({**run, "status": "completed"}).encode() + b"\n\n"
    read = get("/v1/threads/t/runs/run_1", NAMED)
    await pass_each(edge, (post(PROMPT, "/v1/threads/runs", NAMED), streamed), (read, {**run, "status": "completed"}))
    assert counted(edge) == {"in": 10, "out": 5, "all": 15}
    waiting = {**run, "id": "run_2", "status": "requires_action", "usage": None}
    await pass_each(edge, (post(PROMPT, "/v1/threads/runs", NAMED), waiting))
    assert counted(edge)["all"] == 15


async def test_results_of_a_batch_count_by_line_or_with_the_batch(edge: Edge) -> None:
    def line(name: str) -> bytes:
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        body = {"id": name, "response": {"status_code": 200, "body": {"model": "m", "usage": usage}}}
        return json.dumps(body).encode() + b"\n"

    lines = [line(f"batch_req_{number}") for number in range(4)]
    for file, batch in (("file-1", "batch_1"), ("file-2", "batch_2")):
        content = get(f"/v1/files/{file}/content", NAMED)
        status = get(f"/v1/batches/{batch}", NAMED)
        whole = {"id": batch, "object": "batch", "status": "completed", "output_file_id": file, "usage": USAGE}
        before = counted(edge).get("all", 0) if edge._supervisor is not None else 0
        if file == "file-1":
            await edge.passes(content, ok(b"".join(lines[:2]), "Content-Type: application/octet-stream"))
            await edge.passes(content, ok(b"".join(lines[:2]), "Content-Type: application/octet-stream"))
            await pass_each(edge, (status, whole))
            assert counted(edge)["all"] - before == 30
        else:
            await pass_each(edge, (status, whole), (status, whole))
            await edge.passes(content, ok(b"".join(lines[2:]), "Content-Type: application/octet-stream"))
            assert counted(edge)["all"] - before == 15


async def test_websocket_session_messages_count_and_its_quota_ends_it(edge: Edge) -> None:
    edge.config["tiers"]["basic"]["quotas"] = [{"meter": "out", "per": "day", "included": 12, "cap": "hard"}]
    client = await edge.client()
    key = b64encode(b"0" * 16).decode()
    fields = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13")
    await client.sends(get("/v1/realtime?model=m", NAMED, *fields))
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"))
    assert (await client.gets_head()).status == 101
    done = frame(json.dumps({"type": "response.done", "response": {"status": "completed", "usage": USAGE}}).encode())
    for number in (1, 2):
        await upstream.sends(done)
        assert await client.gets_bytes(len(done)) == done
        assert counted(edge)["out"] == 5 * number
    await upstream.sends(done)
    close = b"\x88\x02\x03\xf0"
    assert await client.gets_bytes(len(done + close)) == done + close, "1008: policy violation"
    assert (await upstream.gets_bytes(8))[:2] == b"\x88\x82"
