"""Sends requests by the Python SDKs of OpenAI, Anthropic and Google, and by LiteLLM, and prints the results as JSON.

It runs in its own environment, which `scripts/environment sdks` creates. Standard input holds `addresses`, URLs by
name, and `cases`; each case is sent to each address in turn. Results are equal in every run, except for fields that
LiteLLM makes up.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import anthropic
import litellm
import openai
from google import genai

MESSAGES: Any = [{"role": "user", "content": "one two three"}]
MADE_BY_LITELLM = ("id", "created", "_response_ms", "_hidden_params")
HEADS = ("sdk_http_response",)
"""The fields of an answer's head in Google's SDK. An edge adds fields of its own."""
STREAM: Any = {"stream": True, "stream_options": {"include_usage": True}}


@cache
def connect(create: Callable[[], Any]) -> Any:
    """Return an HTTP client that an SDK's clients share, because each new one would read all certificates again."""
    return create()


class Case(NamedTuple):
    """One call of one SDK."""

    sdk: str
    call: str
    is_stream: bool
    key: str
    fields: dict[str, str]
    """Request fields in addition to the SDK's own."""


def ask_openai(url: str, case: Case) -> list[Any]:
    client = openai.OpenAI(
        base_url=f"{url}/v1",
        api_key=case.key,
        default_headers=case.fields,
        max_retries=0,
        http_client=connect(openai.DefaultHttpxClient),
    )
    calls: Mapping[str, Callable[..., Any]] = {
        "chat": lambda **more: client.chat.completions.create(model="m", messages=MESSAGES, **more),
        "completions": lambda **more: client.completions.create(model="m", prompt="one two three", **more),
        "responses": lambda **more: client.responses.create(model="m", input="one two three", **more),
        "embeddings": lambda **more: client.embeddings.create(model="m", input="one", encoding_format="float", **more),
        "images": lambda **more: client.images.generate(model="m", prompt="one two three", **more),
        "transcriptions": lambda **more: client.audio.transcriptions.create(model="m", file=("a.wav", b"RIFF"), **more),
    }
    options = STREAM if case.call in ("chat", "completions") else {"stream": True}
    answer = calls[case.call](**options if case.is_stream else {})
    return dump(answer if case.is_stream else [answer])


def ask_anthropic(url: str, case: Case) -> list[Any]:
    client = anthropic.Anthropic(
        base_url=f"{url}/anthropic",
        api_key=case.key,
        default_headers=case.fields,
        max_retries=0,
        http_client=connect(anthropic.DefaultHttpxClient),
    )
    asked: Any = {"model": "m", "messages": MESSAGES, "max_tokens": 5}
    if not case.is_stream:
        return dump([client.beta.messages.create(**asked)])
    with client.beta.messages.stream(**asked) as stream:
        return [*dump(stream), *dump([stream.get_final_message()])]


def ask_google(url: str, case: Case) -> list[Any]:
    options: Any = {"base_url": f"{url}/gemini", "headers": case.fields}
    client = genai.Client(api_key=case.key, http_options=options)
    asked: Any
    if case.call == "interact":
        asked = {"model": "gemini-3-flash-preview", "input": "one", "stream": case.is_stream}
        answer = client.interactions.create(**asked, extra_headers=case.fields)
        return dump(answer if case.is_stream else [answer])
    asked = {"model": "gemini-2.5-flash", "contents": "one two three"}
    if case.is_stream:
        return dump(client.models.generate_content_stream(**asked))
    return dump([client.models.generate_content(**asked)])


LITELLM = {
    "chat": ("openai/m", "/v1"),
    "anthropic": ("anthropic/claude-sonnet-4-5", "/anthropic"),
    "gemini": ("gemini/gemini-2.5-flash", "/gemini"),
    "ollama": ("ollama_chat/m", "/ollama"),
    "cohere": ("cohere_chat/v2/command-r", "/cohere/v2/chat"),
}
"""The model, which names the provider, and the path of its API, by the call."""


def ask_litellm(url: str, case: Case) -> list[Any]:
    # LiteLLM caches an HTTP client per key. For Anthropic's API the key is in the SDK's own field.
    keys = {"api_key": case.key} if case.call == "anthropic" else {"api_key": "none"}
    fields = {**case.fields, **({} if case.call == "anthropic" else {"X-API-Key": case.key})}
    common: Any = {**keys, "extra_headers": fields, "num_retries": 0}
    if case.call == "embeddings":
        return clean(dump([litellm.embedding(model="openai/m", input=["one"], api_base=f"{url}/v1", **common)]))
    if case.call == "responses":
        answer = litellm.responses(
            model="openai/gpt-4.1", input="one", api_base=f"{url}/v1", stream=case.is_stream or None, **common
        )
    else:
        model, path = LITELLM[case.call]
        more = STREAM if case.is_stream else {}
        answer = litellm.completion(model=model, messages=MESSAGES, api_base=url + path, max_tokens=9, **common, **more)
    return clean(dump(answer if case.is_stream else [answer]))


def dump(answers: Iterable[Any]) -> list[Any]:
    return clean([answer.model_dump(mode="json", warnings=False) for answer in answers], HEADS)


def clean(answers: list[Any], names: tuple[str, ...] = MADE_BY_LITELLM) -> list[Any]:
    return [{name: value for name, value in answer.items() if name not in names} for answer in answers]


ASK = {"openai": ask_openai, "anthropic": ask_anthropic, "google": ask_google, "litellm": ask_litellm}


def ask(url: str, case: Case) -> list[Any]:
    """Return the result of an SDK. An error becomes its text, so that errors are compared too."""
    try:
        return ASK[case.sdk](url, case)
    except Exception as error:
        return [{"error": f"{type(error).__name__}: {error}"}]


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    litellm.suppress_debug_info = True
    results = [{name: ask(url, Case(**case)) for name, url in asked["addresses"].items()} for case in asked["cases"]]
    json.dump(results, sys.stdout, default=str)
