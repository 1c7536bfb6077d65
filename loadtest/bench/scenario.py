"""The measured kinds of request, in a literal table."""

from dataclasses import dataclass, replace

from loadtest.bench.measure.crowd import Crowd
from loadtest.bench.people import ACME, TINY, Customer

SMALL_ANSWER = b'{"orders": [{"id": 1042, "state": "shipped", "total": "18.90"}, {"id": 1043, "state": "open"}]}\n'
PROMPT = b'{"model":"gpt-4.1","messages":[{"role":"user","content":"Write some words."}]}'
"""The request of a chat completion."""
COMPLETION_BYTES, EVENTS = 2 << 10, 50
_STATED = b'"usage":{"prompt_tokens":19,"completion_tokens":50,"total_tokens":69}}'
_OPENING = (
    b'{"id":"chatcmpl-8Kx","object":"chat.completion","created":1764028800,"model":"gpt-4.1","choices":[{"index":0,'
)
_OPENING += b'"message":{"role":"assistant","content":"'
_CLOSING = b'"},"finish_reason":"stop"}],' + _STATED
COMPLETION = _OPENING + b"word " * ((COMPLETION_BYTES - len(_OPENING + _CLOSING)) // 5) + _CLOSING
"""The answer of a model as JSON, in the form of OpenAI's chat completions."""
_EVENT = b'"object":"chat.completion.chunk","created":1764028800,"model":"gpt-4.1","service_tier":"default",'
STREAM = (
    *(
        b'data: {"id":"chatcmpl-8Kx",'
        + _EVENT
        + b'"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
        for _ in range(EVENTS)
    ),
    b'data: {"id":"chatcmpl-8Kx",' + _EVENT + b'"choices":[],' + _STATED + b"\n\ndata: [DONE]\n\n",
)
"""The answer of a model as a stream of events."""
CHANGES = "{n}"
"""Stands for twelve hexadecimal digits that change with each request, at random as in real ids."""

_HOST = ("Host", "api.example.com")
_BROWSER = (
    _HOST,
    ("Connection", "keep-alive"),
    ("sec-ch-ua", '"Chromium";v="126", "Google Chrome";v="126", "Not-A.Brand";v="8"'),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", '"Linux"'),
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    ),
    ("Accept", "application/json, text/plain, */*"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Sec-Fetch-Mode", "cors"),
    ("Referer", "https://shop.example.com/account/orders"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Accept-Language", "en-GB,en;q=0.9,de;q=0.8"),
)
_CHANGING = (
    ("Cookie", "session=8c1f04e2b7; cart=42; seen={n}"),
    ("Origin", "https://shop.example.com"),
    ("traceparent", "00-4bf92f35{n}{n}-00f0{n}-01"),
)


@dataclass(frozen=True)
class Scenario:
    """One kind of request. `answer` is the length of the right body, `passes` whether the upstream gets it."""

    name: str
    what: str
    target: str = "/v1/small"
    fields: tuple[tuple[str, str], ...] = (_HOST,)
    customer: Customer = ACME
    method: str = "GET"
    body: bytes = b""
    answer: int = len(SMALL_ANSWER)
    passes: bool = True
    content: tuple[bytes, ...] = ()
    """The answer if it has a specific content; for a stream, its pieces."""
    media: str = "application/json"
    crowd: Crowd | None = None
    """The customers and paths, if they are many: then `target`, `fields` and `customer` say nothing."""

    def text(self) -> str:
        """Return the request text, with CHANGES in place of the variable digits."""
        fields = [*self.fields, ("Authorization", f"Bearer {self.customer.key}")]
        if self.body:
            fields += [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(self.body)))]
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"{self.method} {self.target} HTTP/1.1\r\n{lines}\r\n{self.body.decode('latin-1')}"


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("small", "2 fields that recur"),
        Scenario("rich", "14 fields that recur", fields=(*_BROWSER, ("Cookie", "session=8c1f04e2b7; cart=42"))),
        Scenario(
            "vary",
            "16 fields, of which two and the query change in each request",
            target="/v1/small?cursor={n}",
            fields=(*_BROWSER, *_CHANGING),
        ),
        Scenario("429", "a key over its limit", customer=TINY, passes=False, answer=0),
        Scenario(
            "completion",
            "2 KiB of JSON from a model, its tokens not counted",
            target="/v1/chat/completions",
            method="POST",
            body=PROMPT,
            answer=len(COMPLETION),
            content=(COMPLETION,),
        ),
        Scenario(
            "tokens",
            "the same, its tokens counted by model",
            target="/v2/chat/completions",
            method="POST",
            body=PROMPT,
            answer=len(COMPLETION),
            content=(COMPLETION,),
        ),
        Scenario("64k", "64 KiB answers", target="/v1/64k", answer=64 << 10),
        Scenario("1m", "1 MiB answers", target="/v1/1m", answer=1 << 20),
        Scenario("post10k", "10 KiB request bodies", method="POST", body=b"x" * (10 << 10)),
    )
}

STREAMS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "stream",
            "50 events of a model, each in a chunk of its own, their tokens not counted",
            target="/v1/stream/chat/completions",
            method="POST",
            body=PROMPT,
            content=STREAM,
            media="text/event-stream",
        ),
        Scenario(
            "stream-tokens",
            "the same, their tokens counted by model",
            target="/v2/stream/chat/completions",
            method="POST",
            body=PROMPT,
            content=STREAM,
            media="text/event-stream",
        ),
    )
}
"""The streams. Only their instructions are counted, because the network decides how many events arrive at once."""

FALLBACK = replace(
    SCENARIOS["post10k"],
    name="fallback",
    what="10 KiB request bodies, answered by a second upstream",
)
"""Only its instructions are counted, because versions before fallbacks could not be compared."""
