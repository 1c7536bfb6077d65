"""Bodies in the formats that the public SDKs of model APIs document, and the usage that they state."""

import json
from typing import NamedTuple

from edgeproxy.config.edge.response_usage import FormatName


class Transcript(NamedTuple):
    """A body, and its counts: input, cached, uncached, output, total."""

    format: FormatName
    is_stream: bool
    body: bytes
    counts: tuple[int | None, ...]
    model: str


TEXT = 'Größe 🙂 says {"usage": {"prompt_tokens": 9999}}, "usage":{"total_tokens":1}\n\ndata: "'
"""A text that a user makes a model say."""


def events(*parts: object, named: bool = False, done: bool = False) -> bytes:
    """Server-sent events; with the name of each, as Anthropic sends them; OpenAI ends with [DONE]."""
    lines = []
    for part in parts:
        kind = f"event: {part['type']}\n" if named and isinstance(part, dict) else ""
        lines.append(f"{kind}data: {json.dumps(part, ensure_ascii=False, separators=(',', ':'))}\n\n")
    return ("".join(lines) + ("data: [DONE]\n\n" if done else "")).encode()


def compact(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def chat_chunk(delta: object, **more: object) -> dict[str, object]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06"}
    return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None, **more}


CHAT_USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 7, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 0},
}
RESPONSE_USAGE = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 30},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 123,
}


def response(status: str, usage: object, text: str = TEXT) -> dict[str, object]:
    message = {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": text}]}
    settings = {"max_output_tokens": None, "metadata": {"usage": "{}"}, "model": "gpt-4.1-2025-04-14"}
    return {"id": "resp_1", "object": "response", "status": status, **settings, "output": [message], "usage": usage}


MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-20250514"}
MESSAGE_USAGE = {"input_tokens": 12, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 3}


def gemini_part(text: str, usage: object, **more: object) -> dict[str, object]:
    content = {"parts": [{"text": text}], "role": "model"}
    return {"candidates": [{"content": content, **more}], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash"}


GEMINI_PARTS = (
    gemini_part("Hel", {"promptTokenCount": 8, "totalTokenCount": 28, "thoughtsTokenCount": 20}),
    gemini_part(TEXT, {"promptTokenCount": 8, "candidatesTokenCount": 3, "thoughtsTokenCount": 20}),
    gemini_part(
        "!",
        {
            "promptTokenCount": 8,
            "cachedContentTokenCount": 6,
            "toolUsePromptTokenCount": 2,
            "candidatesTokenCount": 11,
            "thoughtsTokenCount": 20,
            "totalTokenCount": 41,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 8}],
        },
        finishReason="STOP",
    ),
)
GEMINI_COUNTS = (10, 6, 4, 31, 41)

CHAT_STREAM = events(
    chat_chunk({"role": "assistant", "content": ""}),
    chat_chunk({"content": TEXT}),
    chat_chunk({}, choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]),
    chat_chunk({}, choices=[], usage=CHAT_USAGE),
    done=True,
)
ANTHROPIC_STREAM = events(
    {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {**MESSAGE_USAGE, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}},
    {"type": "message_stop"},
    named=True,
)

TRANSCRIPTS = {
    "openai chat": Transcript(
        "openai",
        False,
        compact(
            {
                "id": "chatcmpl-1",
                "model": "gpt-4o-2024-08-06",
                "choices": [{"message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
                "usage": CHAT_USAGE,
            }
        ),
        (19, 7, 12, 10, 29),
        "gpt-4o-2024-08-06",
    ),
    "openai chat, streamed": Transcript("openai", True, CHAT_STREAM, (19, 7, 12, 10, 29), "gpt-4o-2024-08-06"),
    "openai embeddings": Transcript(
        "openai",
        False,
        compact(
            {
                "object": "list",
                "data": [{"embedding": [0.25, -1e-05]}],
                "model": "text-embedding-3-small",
                "usage": {"prompt_tokens": 8, "total_tokens": 8},
            }
        ),
        (8, 0, 8, 0, 8),
        "text-embedding-3-small",
    ),
    "openai response": Transcript(
        "openai", False, compact(response("completed", RESPONSE_USAGE)), (36, 30, 6, 87, 123), "gpt-4.1-2025-04-14"
    ),
    "openai response, streamed": Transcript(
        "openai",
        True,
        events(
            {"type": "response.created", "response": response("in_progress", None, "")},
            {"type": "response.output_text.delta", "delta": TEXT},
            {"type": "response.completed", "response": response("completed", RESPONSE_USAGE), "sequence_number": 3},
            named=True,
        ),
        (36, 30, 6, 87, 123),
        "gpt-4.1-2025-04-14",
    ),
    "anthropic": Transcript(
        "anthropic",
        False,
        compact(
            {**MESSAGE, "content": [{"type": "text", "text": TEXT}], "usage": {**MESSAGE_USAGE, "output_tokens": 15}}
        ),
        (20, 3, 17, 15, 35),
        "claude-sonnet-4-20250514",
    ),
    "anthropic, streamed": Transcript(
        "anthropic", True, ANTHROPIC_STREAM, (20, 3, 17, 15, 35), "claude-sonnet-4-20250514"
    ),
    "gemini": Transcript("gemini", False, compact(GEMINI_PARTS[-1]), GEMINI_COUNTS, "gemini-2.5-flash"),
    "gemini, streamed": Transcript("gemini", True, events(*GEMINI_PARTS), GEMINI_COUNTS, "gemini-2.5-flash"),
    "gemini, streamed as a list": Transcript(
        "gemini", False, compact(list(GEMINI_PARTS)), GEMINI_COUNTS, "gemini-2.5-flash"
    ),
}
