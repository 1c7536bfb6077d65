"""The output of an answer is estimated by its text, in the form of each provider."""

import json

import pytest

from edgeproxy.edge.body_usage.answer_text import PIECES_READ_MAX, AnswerText

ANSWERS: dict[str, tuple[object, int]] = {
    "OpenAI": ({"choices": [{"message": {"role": "assistant", "content": "12345"}, "logprobs": None}]}, 5),
    "OpenAI, log probabilities": (
        {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{"token": "a", "bytes": [97] * 90}]}}]},
        1,
    ),
    "OpenAI, tools": ({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": '{"a": 1}'}}]}}]}, 10),
    "OpenAI, image": ({"data": [{"b64_json": "A" * 9000, "revised_prompt": None}]}, 0),
    "OpenAI, vectors": ({"data": [{"embedding": [0.5] * 900}]}, 0),
    "Responses, delta": ({"type": "response.output_text.delta", "item_id": "m" * 90, "delta": "1234"}, 4),
    "Responses, the same again": ({"type": "response.output_text.done", "text": "12345678"}, 0),
    "Responses, sound": ({"type": "response.audio.delta", "delta": "A" * 9000}, 0),
    "Anthropic": ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "123"}}, 3),
    "Anthropic, signature": ({"delta": {"type": "signature_delta", "signature": "A" * 900}}, 0),
    "Anthropic, tools": ({"delta": {"type": "input_json_delta", "partial_json": '{"a'}}, 4),
    "Gemini": ({"candidates": [{"content": {"parts": [{"text": "12", "thoughtSignature": "A" * 900}]}}]}, 2),
    "Bedrock": ({"contentBlockIndex": 0, "delta": {"text": "123456"}, "p": "abcdefgh"}, 6),
    "Cohere": ({"type": "content-delta", "delta": {"message": {"content": {"text": "1234567"}}}}, 7),
    "Cohere, the same again": ({"event_type": "stream-end", "response": {"text": "1234567"}}, 0),
    "Ollama": ({"model": "m", "response": "12", "context": [1] * 90}, 2),
    "llama.cpp": ({"content": "123", "prompt": "x" * 900, "generation_settings": {"model": "m"}}, 3),
    "OpenRouter, reasoning twice": (
        {"delta": {"reasoning": "1234", "reasoning_details": [{"type": "reasoning.text", "text": "1234"}]}},
        4,
    ),
    "vLLM, reasoning twice": ({"delta": {"reasoning": "1234", "reasoning_content": "1234"}}, 4),
    "escapes": ({"content": "漢字"}, 6),
    "of no row": ({"id": "a" * 90, "said": "one two", "data": "A" * 900}, 7),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_output_is_the_text_of_known_members(name: str) -> None:
    body, size = ANSWERS[name]
    text = AnswerText()
    text.add(json.dumps(body).encode())
    assert text.size == size


def test_text_that_is_cut_off_counts_so_far() -> None:
    text = AnswerText()
    text.add(b'{"choices":[{"message":{"content":"one two th')
    assert text.size == len("one two th")


def test_repeated_text_in_responses_events_is_counted_once() -> None:
    events = (ANSWERS["Responses, delta"], ANSWERS["Responses, the same again"], ANSWERS["Responses, delta"])
    text = AnswerText()
    text.add(b"".join(b"data: %b\n\n" % json.dumps(body).encode() for body, _ in events))
    assert text.size == 8


def test_long_stream_is_estimated_by_a_sample() -> None:
    text, most = AnswerText(), PIECES_READ_MAX * 50
    for index in range(most):
        text.add(b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"word" * (index % 3)))
    assert abs(text.size - 4 * most) < most / 10
