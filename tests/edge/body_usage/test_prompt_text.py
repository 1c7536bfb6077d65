"""The input of a request is estimated from its text, and from each provider's documentation of media."""

import json
from base64 import b64encode
from collections.abc import Callable

import pytest

from edgeproxy.edge.body_usage.collected_request import KEPT_BYTES_MAX, CollectedRequest
from edgeproxy.edge.body_usage.prompt_text import PromptSize, measure_prompt
from edgeproxy.edge.body_usage.request_table import MEDIA

TEXT = "one two three four"
SIZE = len(TEXT)
FILE = b64encode(bytes(range(256)) * 1200).decode()
FILE_BYTES = 256 * 1200
PNG, PDF = f"data:image/png;base64,{FILE}", f"data:application/pdf;base64,{FILE}"
TOOLS = [{"type": "function", "function": {"name": "find", "description": TEXT, "parameters": {"type": "object"}}}]


def chat(*parts: object) -> dict[str, object]:
    return {"model": "m", "user": "u" * 500, "messages": [{"role": "user", "content": [*parts]}]}


def gemini(*parts: object) -> dict[str, object]:
    return {"contents": [{"role": "user", "parts": [*parts]}], "cachedContent": "cachedContents/" + "a" * 90}


def count(name: str, size: int | None = None) -> int:
    return MEDIA[name].compute(size)


REQUESTS: dict[str, tuple[object, PromptSize]] = {
    "OpenAI, text": (chat({"type": "text", "text": TEXT}), PromptSize(SIZE, 0)),
    "OpenAI, text alone": ({"messages": [{"role": "user", "content": TEXT}]}, PromptSize(SIZE, 0)),
    "OpenAI, image": (chat({"type": "image_url", "image_url": {"url": PNG}}), PromptSize(0, count("openai image"))),
    "OpenAI, small image": (
        chat({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}),
        PromptSize(0, count("openai image, low")),
    ),
    "OpenAI, image by URL": (
        chat({"type": "image_url", "image_url": {"url": "https://a.example/" + "b" * 900}}),
        PromptSize(0, count("openai image")),
    ),
    "OpenAI, audio": (
        chat({"type": "input_audio", "input_audio": {"data": FILE, "format": "mp3"}}),
        PromptSize(0, count("openai audio", FILE_BYTES)),
    ),
    "OpenAI, raw audio": (
        chat({"type": "input_audio", "input_audio": {"data": FILE, "format": "wav"}}),
        PromptSize(0, count("openai audio, raw", FILE_BYTES)),
    ),
    "OpenAI, file": (
        chat({"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}}),
        PromptSize(0, count("openai file", FILE_BYTES)),
    ),
    "OpenAI, file by id": (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-" + "a" * 300}]}]},
        PromptSize(0, count("openai file")),
    ),
    "OpenAI, responses": (
        {
            "instructions": TEXT,
            "previous_response_id": "resp_" + "a" * 200,
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": TEXT}]},
                {"role": "user", "content": [{"type": "input_image", "image_url": PNG}]},
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": FILE},
                {"type": "function_call", "call_id": "c", "name": "find", "arguments": TEXT},
                {"type": "function_call_output", "call_id": "c", "output": TEXT},
                {"type": "image_generation_call", "id": "ig_1", "result": FILE},
            ],
        },
        PromptSize(4 * SIZE, 2 * count("openai image")),
    ),
    "OpenAI, tools": (
        {"messages": [], "tools": TOOLS},
        PromptSize(SIZE + len("typefunctionfunctionnamefinddescriptionparameterstypeobject"), 0),
    ),
    "OpenAI, embeddings of tokens": ({"input": [[1, 2, 3], [4]], "model": "m"}, PromptSize(0, 4)),
    "OpenAI, embeddings of text": ({"input": [TEXT, TEXT], "encoding_format": "base64"}, PromptSize(2 * SIZE, 0)),
    "OpenAI, completions": ({"prompt": TEXT, "suffix": "x", "logit_bias": {"50256": -100}}, PromptSize(SIZE + 1, 0)),
    "Anthropic, image": (
        chat({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": FILE}}),
        PromptSize(0, count("anthropic image")),
    ),
    "Anthropic, document": (
        chat({"type": "document", "title": TEXT, "source": {"type": "base64", "media_type": "x/pdf", "data": FILE}}),
        PromptSize(SIZE, count("anthropic document", FILE_BYTES)),
    ),
    "Anthropic, document of text": (
        chat({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": TEXT}}),
        PromptSize(SIZE, 0),
    ),
    "Anthropic, document by id": (
        chat({"type": "document", "source": {"type": "file", "file_id": "file_" + "a" * 300}}),
        PromptSize(0, count("anthropic document")),
    ),
    "Anthropic, steps": (
        {
            "system": [{"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}],
            "tools": [{"type": "web_search_20250305", "name": "web_search"}],
            "messages": [
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": TEXT, "signature": FILE},
                        {"type": "redacted_thinking", "data": FILE},
                        {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"query": TEXT}},
                    ],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": TEXT}]},
            ],
        },
        PromptSize(4 * SIZE + len("typeweb_search_20250305nameweb_searchquery"), 0),
    ),
    "Gemini, text": (gemini({"text": TEXT, "thoughtSignature": FILE}), PromptSize(SIZE, 0)),
    "Gemini, image": (
        gemini({"inlineData": {"mimeType": "image/png", "data": FILE}}),
        PromptSize(0, count("gemini image")),
    ),
    "Gemini, audio": (
        gemini({"inline_data": {"mime_type": "audio/mp3", "data": FILE}}),
        PromptSize(0, count("gemini audio", FILE_BYTES)),
    ),
    "Gemini, video": (
        gemini({"inlineData": {"mimeType": "video/mp4", "data": FILE}}),
        PromptSize(0, count("gemini video", FILE_BYTES)),
    ),
    "Gemini, video by URI": (
        gemini({"fileData": {"mimeType": "video/mp4", "fileUri": "https://a.example/x"}}),
        PromptSize(0, count("gemini video")),
    ),
    "Gemini, text as a file": (
        gemini({"inlineData": {"mimeType": "text/plain", "data": FILE}}),
        PromptSize(FILE_BYTES, 0),
    ),
    "Gemini, functions": (
        {
            "systemInstruction": {"parts": [{"text": TEXT}]},
            "contents": [{"parts": [{"functionResponse": {"name": "find", "response": {"found": TEXT}}}]}],
        },
        PromptSize(2 * SIZE + len("found"), 0),
    ),
    "Gemini, embeddings": ({"requests": [{"model": "m", "content": {"parts": [{"text": TEXT}]}}]}, PromptSize(SIZE, 0)),
    "Bedrock, image": (
        chat({"image": {"format": "png", "source": {"bytes": FILE}}}, {"text": TEXT}),
        PromptSize(SIZE, count("bedrock image")),
    ),
    "Bedrock, document": (
        chat({"document": {"format": "pdf", "name": "a", "source": {"bytes": FILE}}}),
        PromptSize(0, count("bedrock document", FILE_BYTES)),
    ),
    "Bedrock, document with citations": (
        chat({"document": {"source": {"bytes": FILE}, "citations": {"enabled": True}}}),
        PromptSize(0, count("bedrock document, cited", FILE_BYTES)),
    ),
    "Bedrock, video": (
        chat({"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://a/b"}}}}),
        PromptSize(0, count("bedrock video")),
    ),
    "Bedrock, tools": (
        chat({"toolResult": {"toolUseId": "t", "content": [{"json": {"a": TEXT}}, {"text": TEXT}]}}),
        PromptSize(2 * SIZE + 1, 0),
    ),
    "Cohere, rerank": ({"query": TEXT, "documents": [TEXT, {"text": TEXT}], "top_n": 3}, PromptSize(3 * SIZE, 0)),
    "Cohere, chat": ({"message": TEXT, "chat_history": [{"role": "USER", "message": TEXT}]}, PromptSize(2 * SIZE, 0)),
    "Cohere, documents": (
        {"messages": [], "documents": [{"id": "d" * 90, "data": {"snippet": TEXT}}]},
        PromptSize(SIZE + len("snippet"), 0),
    ),
    "Cohere, images": ({"images": [PNG], "input_type": "image"}, PromptSize(0, count("cohere image"))),
    "Jina, images": (
        {"input": [{"image": FILE}, {"text": TEXT}, PNG]},
        PromptSize(SIZE, count("ollama image") + count("cohere image")),
    ),
    "Ollama, image": (
        {"messages": [{"role": "user", "content": TEXT, "images": [FILE]}]},
        PromptSize(SIZE, count("ollama image")),
    ),
    "Ollama, context": ({"prompt": TEXT, "context": [7] * 90}, PromptSize(SIZE, 90)),
    "vLLM, video": (
        chat({"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{FILE}"}}),
        PromptSize(0, count("gemini video", FILE_BYTES)),
    ),
    "OpenAI, file of a response": (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": PDF}]}]},
        PromptSize(0, count("openai file", FILE_BYTES)),
    ),
    "OpenAI, images that are edited": (
        {"prompt": TEXT, "images": [{"image_url": PNG}, {"file_id": "file-1"}, None]},
        PromptSize(SIZE, count("openai image")),
    ),
    "OpenAI, parts that have none": (
        chat(
            {"type": "input_audio", "input_audio": None},
            {"type": "video_url", "video_url": {}},
            {"inlineData": None},
            {"document": {"format": "pdf"}},
            {"type": "input_audio", "input_audio": {"id": "audio_1"}},
            None,
        ),
        PromptSize(0, count("openai audio")),
    ),
    "OpenAI, schema": (
        {"messages": [], "response_format": {"enum": ["a", None, 12], "strict": True}},
        PromptSize(len("enuma12strictTrue"), 0),
    ),
    "Anthropic, document of parts": (
        chat({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": TEXT}]}}),
        PromptSize(SIZE, 0),
    ),
    "Bedrock, document of text": (chat({"document": {"name": "a", "source": {"text": TEXT}}}), PromptSize(SIZE, 0)),
    "vLLM, audio by URL": (
        chat({"type": "audio_url", "audio_url": {"url": "https://a.example/x.wav"}}),
        PromptSize(0, count("gemini video")),
    ),
    "llama.cpp, images": (
        {"prompt": {"prompt_string": TEXT, "multimodal_data": [FILE]}},
        PromptSize(SIZE, count("ollama image")),
    ),
    "SGLang, images": ({"text": TEXT, "input": TEXT, "image_data": [FILE]}, PromptSize(SIZE, count("ollama image"))),
    "Mistral, document": (
        chat({"type": "document_url", "document_url": PDF}),
        PromptSize(0, count("openai file", FILE_BYTES)),
    ),
    "Mistral, document by URL": (
        chat({"type": "document_url", "document_url": "https://a.example/b"}),
        PromptSize(0, count("openai file")),
    ),
    "Mistral, no document": (chat({"type": "document_url", "document_url": None, "text": TEXT}), PromptSize(SIZE, 0)),
    "Mistral, audio": (
        chat({"type": "input_audio", "input_audio": FILE}),
        PromptSize(0, count("openai audio", FILE_BYTES)),
    ),
    "Voyage, image": (
        {"inputs": [{"content": [{"type": "text", "text": TEXT}, {"type": "image_base64", "image_base64": PNG}]}]},
        PromptSize(SIZE, count("openai image")),
    ),
    "Titan, image": ({"inputText": TEXT, "inputImage": FILE}, PromptSize(SIZE, count("ollama image"))),
    "Vertex, image": (
        {"instances": [{"text": TEXT, "image": {"bytesBase64Encoded": FILE}}]},
        PromptSize(SIZE, count("gemini image")),
    ),
    "Vertex, film": (
        {"instances": [{"video": {"gcsUri": "gs://a/b.mp4", "mimeType": "video/mp4"}}, {"image": {"mimeType": "a/b"}}]},
        PromptSize(0, count("gemini video")),
    ),
    "Vertex, text by URI": (
        {"contents": [{"parts": [{"fileData": {"mimeType": "text/plain", "fileUri": "gs://a/b.txt"}}]}]},
        PromptSize(0, count("gemini document")),
    ),
    "Qwen, images of a film": (
        chat({"type": "video", "video": ["https://a.example/1.png", "https://a.example/2.png"]}),
        PromptSize(0, 2 * count("ollama image")),
    ),
    "OpenAI, stored prompt": (
        {"prompt": {"id": "p" * 90, "variables": {"city": TEXT, "map": {"type": "input_image", "image_url": PNG}}}},
        PromptSize(SIZE, count("openai image")),
    ),
    "a list": ([{"question": TEXT}, "k" * 900], PromptSize(SIZE, 0)),
    "of no row": ({"question": TEXT, "key": "k" * 900, "n": 5, "list": [TEXT, True, None]}, PromptSize(2 * SIZE, 0)),
    "text as its escapes": ({"prompt": "äöü漢"}, PromptSize(9, 0)),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_input_is_text_and_media_of_known_members(name: str) -> None:
    request, size = REQUESTS[name]
    for ascii_only in (True, False):
        assert measure_prompt(json.dumps(request, ensure_ascii=ascii_only).encode()) == size


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("step", [700, 5000, 70_000])
def test_input_is_the_same_where_the_body_comes_in_pieces(name: str, step: int) -> None:
    request, size = REQUESTS[name]
    body = json.dumps(request).encode()
    collected = CollectedRequest(b"")
    for at in range(0, len(body), step):
        collected.feed(body[at : at + step])
    assert (collected.size, len(collected) <= KEPT_BYTES_MAX) == (len(body), True)
    assert collected.measure("openai") == size


def test_body_of_no_json_is_text_if_it_is_utf8() -> None:
    assert measure_prompt(b"x" * 42) == PromptSize(42, 0)
    for body in (b"", b"\xff\xfb" * 900, b"RIFF\0\0" * 900):
        assert measure_prompt(body) == PromptSize(0, 0)


def test_text_of_broken_json_counts_by_its_members() -> None:
    begin = json.dumps(chat({"type": "text", "text": TEXT}, {"type": "image_url", "image_url": {"url": PNG}})).encode()
    assert measure_prompt(begin[:-9]) == PromptSize(SIZE, count("openai image"))
    assert measure_prompt(b"[" * 100_000).tokens == 0
    assert measure_prompt(b'{"a": "one two", "b": "x' + b"y" * 900 + b'", ') == PromptSize(len("one two"), 0)


@pytest.mark.parametrize(
    ("media_type", "count_tokens"),
    [
        ("audio/mpeg", lambda: count("openai audio", FILE_BYTES + 2)),
        ("image/png", lambda: count("openai image")),
        ("text/plain", lambda: 0),
    ],
)
def test_files_of_a_form_are_media_and_its_fields_text(media_type: str, count_tokens: Callable[[], int]) -> None:
    assert measure_prompt(b'--b\r\nContent-Disposition: form-data; filename="a"\r\n\r\n12345\r\n--b--').tokens == 1
    lines = '--b\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    file = lines.format("file", f'; filename="a"\r\nContent-Type: {media_type}')
    body = b"%b%b\r\n%bm\r\n%b%b\r\n--b--\r\n" % (
        *(file.encode(), bytes(range(256)) * 1200, lines.format("model", "").encode()),
        *(lines.format("prompt", "").encode(), TEXT.encode()),
    )
    assert measure_prompt(body) == PromptSize(SIZE, count_tokens())


def test_long_prompt_counts_in_full_and_max_tokens_at_its_end_is_read() -> None:
    from edgeproxy.edge.body_usage.prompts import PromptReader

    words = "some words " * 30_000
    body = json.dumps({"messages": [{"role": "user", "content": words}], "max_tokens": 40}).encode()
    collected = CollectedRequest(b"")
    for at in range(0, len(body), 9000):
        collected.feed(body[at : at + 9000])
    assert abs(collected.measure("openai").text_bytes - len(words)) < 200
    assert PromptReader("openai").find_maximum(collected.list_texts()) == 40


def test_length_that_a_client_forges_is_no_more_than_its_body() -> None:
    body = json.dumps({"prompt": "\x7f999999999\x7f"}, ensure_ascii=False).encode()
    assert measure_prompt(body).text_bytes <= len(body)


@pytest.mark.parametrize("size", [KEPT_BYTES_MAX - 99, KEPT_BYTES_MAX + 999])
def test_prompt_text_within_the_memory_bound_counts_completely(size: int) -> None:
    words = "some words " * (size // 11)
    collected = CollectedRequest(b"")
    collected.feed(json.dumps({"prompt": words}).encode())
    assert collected.measure("openai") == PromptSize(len(words), 0)


@pytest.mark.parametrize(("coding", "size"), [("gzip", SIZE), ("identity", 0), ("br", 44)])
def test_compressed_body_is_decoded(coding: str, size: int) -> None:
    import gzip

    packed = gzip.compress(json.dumps({"prompt": TEXT}).encode(), mtime=0)
    collected = CollectedRequest(b"Host: a\r\nContent-Encoding: %b\r\n" % coding.encode())
    collected.feed(packed)
    assert collected.measure("openai").text_bytes == (len(packed) if coding == "br" else size)
