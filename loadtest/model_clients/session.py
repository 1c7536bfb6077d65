"""Asks by the Python SDKs of OpenAI and Anthropic, and by litellm, and prints what their users get, as JSON.

It runs in an environment that has these packages: `python session.py OPENAI_URL ANTHROPIC_URL KEY`. No field differs
from run to run, but for the ids and times that litellm makes.
"""

import json
import sys
from typing import Any

import anthropic
import litellm
import openai

MESSAGES: Any = [{"role": "user", "content": "one two three"}]
IDENTITY = {"Accept-Encoding": "identity"}
"""What the edge sends in any case, and the stand-in requires."""
MADE_BY_CLIENT = ("id", "created", "_response_ms")


def ask_openai(url: str, key: str) -> list[object]:
    client = openai.OpenAI(base_url=url, api_key=key, default_headers=IDENTITY, max_retries=0)
    create = client.chat.completions.create
    whole = create(model="gpt-1", messages=MESSAGES, max_tokens=5)
    stream = list(create(model="gpt-1", messages=MESSAGES, max_tokens=5, stream=True))
    options: Any = {"include_usage": True}
    counted = list(create(model="gpt-1", messages=MESSAGES, max_tokens=5, stream=True, stream_options=options))
    with client.chat.completions.with_streaming_response.create(
        model="gpt-1", messages=MESSAGES, max_tokens=3, stream=True
    ) as response:
        lines = list(response.iter_lines())
    return [whole.model_dump(), [each.model_dump() for each in stream], [each.model_dump() for each in counted], lines]


def ask_anthropic(url: str, key: str) -> list[object]:
    client = anthropic.Anthropic(base_url=url, api_key=key, default_headers=IDENTITY, max_retries=0)
    create = client.messages.create
    whole = create(model="claude-1", messages=MESSAGES, max_tokens=5)
    with client.messages.stream(model="claude-1", messages=MESSAGES, max_tokens=5) as stream:
        text, message = "".join(stream.text_stream), stream.get_final_message()
    events = list(create(model="claude-1", messages=MESSAGES, max_tokens=4, stream=True))
    return [whole.model_dump(), text, message.model_dump(), [each.model_dump() for each in events]]


def ask_litellm(url: str, key: str) -> list[object]:
    how: Any = {"api_base": url, "api_key": key, "extra_headers": IDENTITY, "messages": MESSAGES, "max_tokens": 4}
    whole = litellm.completion(model="openai/gpt-1", **how)
    stream = list(litellm.completion(model="openai/gpt-1", stream=True, **how))
    answers = [whole.model_dump(), *[each.model_dump() for each in stream]]
    return [{name: value for name, value in each.items() if name not in MADE_BY_CLIENT} for each in answers]


if __name__ == "__main__":
    openai_url, anthropic_url, secret = sys.argv[1:]
    results = {
        "openai": ask_openai(openai_url, secret),
        "anthropic": ask_anthropic(anthropic_url, secret),
        "litellm": ask_litellm(openai_url, secret),
    }
    versions = {"openai": openai.__version__, "anthropic": anthropic.__version__}
    print(json.dumps({"versions": versions, "results": results}, default=str))
