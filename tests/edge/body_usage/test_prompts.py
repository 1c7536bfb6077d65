"""Requests state the tokens that they will use: the tokens of their text, and the limit of the answer."""

import json

import pytest

from edgeproxy.config.edge.response_usage import FormatName
from edgeproxy.edge.body_usage.prompts import Prompt, PromptReader


@pytest.mark.parametrize(
    ("name", "body", "output"),
    [
        ("openai", b'{"max_tokens": 100}', 100),
        ("openai", b'{"max_completion_tokens": 7, "max_tokens": 5}', 7),
        ("openai", b'{"max_output_tokens": 30}', 30),
        ("openai", b'{"max_tokens": 100, "n": 3}', 300),
        ("openai", b'{"max_tokens": 100, "n": 0}', 100),
        ("openai", b'{"messages": [{"content": "{\\"max_tokens\\": 5}", "max_tokens": 6}]}', None),
        ("openai", b'{"max_tokens": null}', None),
        ("openai", b'{"max_tokens": "9"}', None),
        ("openai", b'{"max_tokens": -9}', None),
        ("openai", b'{"max_tokens": 1e3}', None),
        ("openai", b'{"max_tokens": 5, "max_tokens": 6}', 6),
        ("openai", b'{"max_tokens": ' + b"9" * 400 + b"}", 10**12),
        ("openai", b"[" * 5000, None),
        ("openai", b"\xff\xfe", None),
        ("anthropic", b'{"max_tokens": 64, "n": 9}', 64),
        ("gemini", b'{"generationConfig": {"maxOutputTokens": 20, "candidateCount": 2}}', 40),
        ("gemini", b'{"generationConfig": []}', None),
        ("gemini", b'{"generation_config": {"max_output_tokens": 20}}', 20),
        ("bedrock", b'{"inferenceConfig": {"maxTokens": 9}}', 9),
        ("bedrock", b'{"textGenerationConfig": {"maxTokenCount": 8}}', 8),
        ("cohere", b'{"max_tokens": 7}', 7),
        ("ollama", b'{"options": {"num_predict": 6}}', 6),
        ("ollama", b'{"options": {"num_predict": -1}}', None),
        ("llamacpp", b'{"n_predict": 5}', 5),
        ("openai", b'{"max_tokens": 10, "n": 2, "best_of": 3}', 30),
        ("any", b'{"generationConfig": {"maxOutputTokens": 20}, "n": 2}', 40),
        ("json", b'{"max_tokens": 100}', None),
    ],
)
def test_the_length_of_the_answer_is_read_where_the_format_has_it(name, body, output):
    assert PromptReader(name).read(body).output == output


def test_input_is_that_of_the_text_and_of_the_media():
    body = b'{"model": "' + b"m" * 400 + b'", "messages": [{"role": "user", "content": "12345678"}]}'
    assert PromptReader("openai").read(body) == Prompt(2, None)


@pytest.mark.parametrize(("name", "sizes"), [("cohere", (1280, 256)), ("openai", (765, 85)), ("anthropic", (765, 85))])
def test_images_in_the_form_of_openai_count_the_figures_of_their_provider(
    name: FormatName, sizes: tuple[int, int]
) -> None:
    urls: list[dict[str, str]] = [{"url": "https://a.example/b"}, {"url": "https://a.example/b", "detail": "low"}]
    for url, size in zip(urls, sizes, strict=True):
        part = {"type": "image_url", "image_url": url}
        body = json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode()
        assert PromptReader(name).read(body).input == size
        assert PromptReader(name).read(body[:-1]).input == sizes[0], "of broken JSON the images are counted alone"
