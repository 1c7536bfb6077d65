"""The words of the table of dialects: facts, objects with usage, and the type of a row. `dialect_rows` has the rows.

A *place* is the path of an object with usage; the path is keys with dots between them, and an empty path is the answer
itself. A *member* is the path of a number within that object. A *fact* is the meaning of a member. The fact also tells
whether a number is a part of another or stands beside it: `cached` is a part of `prompt`, `cached beside` is not.

docs/edge/dialects.md is made of this table (`scripts/dialect-page`). `tests/edge/body_usage/answers/` has recorded
answers for its rows.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from edgeproxy.config.edge.response_usage import FormatName

# ---- facts

PROMPT, CACHED, CACHED_BESIDE, WRITTEN, WRITTEN_BESIDE, TOOLS_BESIDE = (
    *("prompt", "cached", "cached beside", "written", "written beside", "tools beside"),
)
"""The tokens of a prompt; tokens read from a cache, and written to one; tokens of tools' results."""
OUTPUT, THOUGHTS, THOUGHTS_BESIDE, TOTAL = "output", "thoughts", "thoughts beside", "total"
AUDIO_IN, AUDIO_OUT, IMAGE_IN, IMAGE_OUT = "audio input", "audio output", "image input", "image output"
"""Parts of the prompt and of the output by their medium."""
STEPS: Final = "steps"
"""The works of models that one answer took. No other number includes the steps that are not `STEPS_WITHIN`."""
STEPS_WITHIN: Final = frozenset(("message", "fallback_message"))
"""Types of steps that the numbers of the answer include. Others, for example compaction, stand beside them."""
UNITS: Final = "other units"
"""An amount that is not a number of tokens, for example seconds of audio or searches: such an answer counts no
tokens.
"""
MODEL, TIER, ID, KIND, STATUS, ERROR, BACKGROUND, FILE, TICKET = (
    *("model", "tier", "id", "kind", "status", "error", "background", "file", "ticket"),
)
"""Facts that are not numbers. A ticket is an id; with it a later request gets the answer."""
RESULTS: Final = "results"
"""The answers of a batch within one body, a list of objects, each with its `response`."""
TEXTS: Final = (MODEL, TIER, ID, KIND, STATUS, FILE, TICKET)
"""The texts among them; an error may be anything."""

NUMBERS: Final = (
    *(PROMPT, CACHED, CACHED_BESIDE, WRITTEN, WRITTEN_BESIDE, TOOLS_BESIDE),
    *(OUTPUT, THOUGHTS, THOUGHTS_BESIDE, TOTAL, AUDIO_IN, AUDIO_OUT, IMAGE_IN, IMAGE_OUT, UNITS),
)

Members = Mapping[str, tuple[str, ...]]
"""The members of an object, by the fact that they state, the preferred one first."""


BODY: Final = ("",)
USAGE: Final = ("usage",)
STREAMED_RESPONSE: Final = ("response.usage",)
ALL_OUTPUT: Final = "input and output; cached input at its own price; reasoning is within the output"
BESIDE: Final = "input and output; reasoning stands beside `completion_tokens`, within the total"


class Row(NamedTuple):
    """The usage that one provider states in the answers of one operation."""

    provider: str
    operation: str
    format: FormatName
    """The `response_usage` that reads it."""
    members: Members
    source: str
    json: tuple[str, ...] = USAGE
    """The places in a JSON body."""
    events: tuple[str, ...] = USAGE
    """The places in the events of a stream, or in its lines."""
    messages: tuple[str, ...] = ()
    """The places in the messages of a WebSocket."""
    billed: str = ALL_OUTPUT
    """The sum that the provider charges, by its documentation."""


# ---- objects with usage

CHAT: Final[Members] = {
    PROMPT: ("prompt_tokens",),
    CACHED: ("prompt_tokens_details.cached_tokens",),
    WRITTEN: ("prompt_tokens_details.cache_write_tokens",),
    AUDIO_IN: ("prompt_tokens_details.audio_tokens",),
    IMAGE_IN: ("prompt_tokens_details.image_tokens",),
    OUTPUT: ("completion_tokens",),
    THOUGHTS: ("completion_tokens_details.reasoning_tokens",),
    AUDIO_OUT: ("completion_tokens_details.audio_tokens",),
    IMAGE_OUT: ("completion_tokens_details.image_tokens",),
    TOTAL: ("total_tokens",),
}
RESPONSES: Final[Members] = {
    PROMPT: ("input_tokens",),
    CACHED: ("input_tokens_details.cached_tokens",),
    WRITTEN: ("input_tokens_details.cache_write_tokens",),
    AUDIO_IN: ("input_tokens_details.audio_tokens",),
    IMAGE_IN: ("input_tokens_details.image_tokens",),
    OUTPUT: ("output_tokens",),
    THOUGHTS: ("output_tokens_details.reasoning_tokens",),
    AUDIO_OUT: ("output_tokens_details.audio_tokens",),
    IMAGE_OUT: ("output_tokens_details.image_tokens",),
    TOTAL: ("total_tokens",),
}
REALTIME: Final[Members] = {
    PROMPT: ("input_tokens",),
    CACHED: ("input_token_details.cached_tokens",),
    AUDIO_IN: ("input_token_details.audio_tokens",),
    IMAGE_IN: ("input_token_details.image_tokens",),
    OUTPUT: ("output_tokens",),
    AUDIO_OUT: ("output_token_details.audio_tokens",),
    TOTAL: ("total_tokens",),
}
AUDIO: Final[Members] = {**REALTIME, UNITS: ("seconds",)}
DEEPSEEK: Final[Members] = {**CHAT, CACHED: ("prompt_tokens_details.cached_tokens", "prompt_cache_hit_tokens")}
MOONSHOT: Final[Members] = {**CHAT, CACHED: ("prompt_tokens_details.cached_tokens", "cached_tokens")}
MISTRAL: Final[Members] = {
    **CHAT,
    CACHED: ("prompt_tokens_details.cached_tokens", "prompt_token_details.cached_tokens", "num_cached_tokens"),
}
SGLANG: Final[Members] = {**CHAT, THOUGHTS: ("completion_tokens_details.reasoning_tokens", "reasoning_tokens")}
PERPLEXITY: Final[Members] = SGLANG
TOTAL_ALONE: Final[Members] = {PROMPT: ("prompt_tokens",), TOTAL: ("total_tokens",), UNITS: ("search_units",)}
ANTHROPIC: Final[Members] = {
    PROMPT: ("input_tokens",),
    CACHED_BESIDE: ("cache_read_input_tokens",),
    WRITTEN_BESIDE: ("cache_creation_input_tokens",),
    OUTPUT: ("output_tokens",),
    THOUGHTS: ("output_tokens_details.thinking_tokens",),
    STEPS: ("iterations",),
}
ANTHROPIC_START: Final[Members] = {fact: members for fact, members in ANTHROPIC.items() if fact not in (OUTPUT, STEPS)}
"""The first event of a stream: its output is a placeholder, and the last event has all of it."""
GEMINI: Final[Members] = {
    PROMPT: ("promptTokenCount",),
    TOOLS_BESIDE: ("toolUsePromptTokenCount",),
    CACHED: ("cachedContentTokenCount",),
    OUTPUT: ("candidatesTokenCount", "responseTokenCount"),
    THOUGHTS_BESIDE: ("thoughtsTokenCount",),
    TOTAL: ("totalTokenCount",),
}
INTERACTION: Final[Members] = {
    PROMPT: ("total_input_tokens",),
    TOOLS_BESIDE: ("total_tool_use_tokens",),
    CACHED: ("total_cached_tokens",),
    OUTPUT: ("total_output_tokens",),
    THOUGHTS_BESIDE: ("total_thought_tokens",),
    TOTAL: ("total_tokens",),
}
CONVERSE: Final[Members] = {
    PROMPT: ("inputTokens",),
    CACHED_BESIDE: ("cacheReadInputTokens",),
    WRITTEN_BESIDE: ("cacheWriteInputTokens",),
    OUTPUT: ("outputTokens",),
    TOTAL: ("totalTokens",),
}
INVOCATION: Final[Members] = {
    PROMPT: ("inputTokenCount",),
    CACHED_BESIDE: ("cacheReadInputTokenCount",),
    WRITTEN_BESIDE: ("cacheWriteInputTokenCount",),
    OUTPUT: ("outputTokenCount",),
}
LLAMA: Final[Members] = {PROMPT: ("prompt_token_count",), OUTPUT: ("generation_token_count",)}
COHERE: Final[Members] = {
    PROMPT: ("billed_units.input_tokens", "tokens.input_tokens"),
    OUTPUT: ("billed_units.output_tokens", "tokens.output_tokens"),
    CACHED: ("cached_tokens",),
    IMAGE_IN: ("billed_units.image_tokens",),
    UNITS: ("billed_units.search_units", "billed_units.classifications"),
}
OLLAMA: Final[Members] = {
    PROMPT: ("prompt_eval_count",),
    CACHED: ("prompt_eval_cached_count",),
    OUTPUT: ("eval_count",),
}
LLAMA_CPP: Final[Members] = {
    PROMPT: ("tokens_evaluated",),
    CACHED: ("timings.cache_n",),
    OUTPUT: ("tokens_predicted",),
}
