"""The table of dialects: where the answers of each provider state usage, one row per provider and operation.

A *place* is the path of an object with usage, whose keys have dots between them; an empty path is the answer itself. A
*member* is the path of a number within that object. A *fact* is the meaning of a member. Whether a number is a part of
another or stands beside it is the meaning of its fact: `cached` is a part of `prompt`, `cached beside` is not.

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
"""The tokens of a prompt; those read from a cache, and those written to one; those of tools' results."""
OUTPUT, THOUGHTS, THOUGHTS_BESIDE, TOTAL = "output", "thoughts", "thoughts beside", "total"
AUDIO_IN, AUDIO_OUT, IMAGE_IN, IMAGE_OUT = "audio input", "audio output", "image input", "image output"
"""Parts of the prompt and of the output by their medium."""
STEPS: Final = "steps"
"""The works of models that one answer took. No other number has those that are not `STEPS_WITHIN`."""
STEPS_WITHIN: Final = frozenset(("message", "fallback_message"))
"""Types of steps whose numbers are within those of the answer. Others, such as compaction, stand beside them."""
UNITS: Final = "other units"
"""An amount that is no number of tokens, such as seconds of audio or searches: such an answer counts no tokens."""
MODEL, TIER, ID, KIND, STATUS, ERROR, BACKGROUND, FILE = (
    *("model", "tier", "id", "kind", "status", "error", "background", "file"),
)
"""Facts that are no numbers."""
TEXTS: Final = (MODEL, TIER, ID, KIND, STATUS, FILE)
"""Those among them that are texts; an error may be anything."""

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
    """The sum that the provider charges, as its documentation says it."""


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
"""The first event of a stream: its output is a placeholder, and the last one has all of it."""
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

OPENAI_API: Final = "https://platform.openai.com/docs/api-reference/"
GOOGLE_API: Final = "https://ai.google.dev/api/generate-content"
AMAZON_API: Final = "https://docs.aws.amazon.com/bedrock/latest/APIReference/"

ROWS: Final[tuple[Row, ...]] = (
    Row("OpenAI", "chat completions", "openai", CHAT, OPENAI_API + "chat/object"),
    Row("OpenAI", "completions", "openai", CHAT, OPENAI_API + "completions/object"),
    Row(
        "OpenAI",
        "responses",
        "openai",
        RESPONSES,
        OPENAI_API + "responses/object",
        events=STREAMED_RESPONSE,
        messages=STREAMED_RESPONSE,
    ),
    Row("OpenAI", "embeddings", "openai", CHAT, OPENAI_API + "embeddings/object", events=(), billed="input"),
    Row(
        "OpenAI",
        "audio transcriptions",
        "openai",
        AUDIO,
        OPENAI_API + "audio/json-object",
        billed="input and output, or seconds",
    ),
    Row(
        "OpenAI",
        "speech",
        "openai",
        REALTIME,
        OPENAI_API + "audio/speech-audio-done-event",
        json=(),
        billed="input and output, where it streams events",
    ),
    Row("OpenAI", "images", "openai", RESPONSES, OPENAI_API + "images/object", billed="input and output, by medium"),
    Row(
        "OpenAI",
        "realtime",
        "openai",
        REALTIME,
        OPENAI_API + "realtime-server-events/response/done",
        json=(),
        events=(),
        messages=STREAMED_RESPONSE,
        billed="input and output of each `response.done`",
    ),
    Row(
        "OpenAI",
        "realtime transcription",
        "openai",
        AUDIO,
        OPENAI_API + "realtime-server-events/conversation/item/input_audio_transcription/completed",
        json=(),
        events=(),
        messages=USAGE,
        billed="input and output of each completed transcription",
    ),
    Row("OpenAI", "batches", "openai", RESPONSES, OPENAI_API + "batch/object", events=(), billed="once, when finished"),
    Row(
        "OpenAI",
        "results of a batch",
        "openai",
        CHAT,
        OPENAI_API + "batch/request-output",
        json=(),
        events=("response.body.usage",),
        billed="once a line, where the batch itself states none",
    ),
    Row("Azure", "chat completions", "openai", CHAT, "https://learn.microsoft.com/azure/ai-services/openai/reference"),
    Row(
        "Azure",
        "responses",
        "openai",
        RESPONSES,
        "https://learn.microsoft.com/azure/ai-services/openai/how-to/responses",
        events=STREAMED_RESPONSE,
        messages=STREAMED_RESPONSE,
    ),
    Row(
        "Gemini",
        "compatible chat completions",
        "openai",
        CHAT,
        "https://github.com/Clarifai/clarifai-python/pull/978",
        billed=BESIDE,
    ),
    Row(
        "xAI",
        "chat completions",
        "openai",
        CHAT,
        "https://docs.x.ai/docs/key-information/consumption-and-rate-limits",
        billed=BESIDE,
    ),
    Row("xAI", "responses", "openai", RESPONSES, "https://docs.x.ai/docs/api-reference", events=STREAMED_RESPONSE),
    Row(
        "DeepSeek",
        "chat completions",
        "openai",
        DEEPSEEK,
        "https://api-docs.deepseek.com/api/create-chat-completion",
        billed="`prompt_cache_hit_tokens` and `prompt_cache_miss_tokens`, which make the prompt; output",
    ),
    Row("Moonshot", "chat completions", "openai", MOONSHOT, "https://platform.moonshot.ai/docs/api/chat"),
    Row("Mistral", "chat completions, embeddings, FIM", "openai", MISTRAL, "https://docs.mistral.ai/api/"),
    Row(
        "Groq",
        "chat completions",
        "openai",
        CHAT,
        "https://github.com/vercel/ai/issues/1651",
        events=("usage", "x_groq.usage"),
    ),
    Row("OpenRouter", "chat completions", "openai", CHAT, "https://openrouter.ai/docs/use-cases/usage-accounting"),
    Row("LiteLLM", "chat completions", "openai", CHAT, "https://docs.litellm.ai/docs/completion/prompt_caching"),
    Row(
        "vLLM",
        "chat completions, completions",
        "openai",
        CHAT,
        "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
    ),
    Row(
        "vLLM",
        "rerank, score, pooling",
        "openai",
        TOTAL_ALONE,
        "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        events=(),
        billed="the total, which is input",
    ),
    Row(
        "SGLang", "chat completions", "openai", SGLANG, "https://docs.sglang.ai/basic_usage/openai_api_completions.html"
    ),
    Row(
        "llama.cpp",
        "chat completions",
        "openai",
        CHAT,
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    ),
    Row("Ollama", "compatible chat completions", "openai", CHAT, "https://docs.ollama.com/api/openai-compatibility"),
    Row(
        "Jina",
        "embeddings, rerank",
        "openai",
        TOTAL_ALONE,
        "https://api.jina.ai/redoc",
        events=(),
        billed="the total, which is input",
    ),
    Row(
        "Voyage",
        "embeddings, rerank",
        "openai",
        TOTAL_ALONE,
        "https://docs.voyageai.com/reference/reranker-api",
        events=(),
        billed="the total, which is input",
    ),
    Row(
        "Anthropic",
        "messages",
        "anthropic",
        ANTHROPIC,
        "https://docs.anthropic.com/en/api/messages",
        billed="input, cache reads and cache writes, which stand beside each other; output; "
        "the `iterations` that are no messages, such as compaction and advisors",
    ),
    Row(
        "Anthropic",
        "messages, start of a stream",
        "anthropic",
        ANTHROPIC_START,
        "https://docs.anthropic.com/en/docs/build-with-claude/streaming",
        json=(),
        events=("message.usage",),
        billed="input, until a later event states it",
    ),
    Row(
        "Anthropic",
        "results of a batch",
        "anthropic",
        ANTHROPIC,
        "https://docs.anthropic.com/en/api/retrieving-message-batch-results",
        json=(),
        events=("result.message.usage",),
        billed="once a line",
    ),
    Row(
        "Vertex",
        "messages of Claude",
        "anthropic",
        ANTHROPIC,
        "https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude",
        billed="as at Anthropic",
    ),
    Row(
        "vLLM, Ollama, llama.cpp",
        "messages",
        "anthropic",
        ANTHROPIC,
        "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        billed="input and output",
    ),
    Row(
        "Gemini",
        "generateContent",
        "gemini",
        GEMINI,
        GOOGLE_API,
        json=("usageMetadata",),
        events=("usageMetadata",),
        billed="prompt and tools' results; candidates and thoughts, which stand beside each other",
    ),
    Row(
        "Gemini",
        "interactions",
        "gemini",
        INTERACTION,
        "https://ai.google.dev/gemini-api/docs/interactions",
        events=("interaction.usage",),
        billed="as `generateContent`",
    ),
    Row(
        "Gemini",
        "results of a batch",
        "gemini",
        GEMINI,
        "https://ai.google.dev/gemini-api/docs/batch-api",
        json=(),
        events=("response.usageMetadata",),
        billed="once a line",
    ),
    Row(
        "Gemini",
        "live",
        "gemini",
        GEMINI,
        "https://ai.google.dev/api/live",
        json=(),
        events=(),
        messages=("usageMetadata",),
        billed="prompt and response of each turn",
    ),
    Row(
        "Vertex",
        "generateContent",
        "gemini",
        GEMINI,
        "https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerateContentResponse",
        json=("usageMetadata",),
        events=("usageMetadata",),
        billed="as at Gemini",
    ),
    Row(
        "Bedrock",
        "converse",
        "bedrock",
        CONVERSE,
        AMAZON_API + "API_runtime_TokenUsage.html",
        billed="input, cache reads and cache writes, which stand beside each other; output",
    ),
    Row(
        "Bedrock",
        "invoke, Claude",
        "bedrock",
        ANTHROPIC,
        AMAZON_API + "API_runtime_InvokeModel.html",
        billed="as at Anthropic",
    ),
    Row(
        "Bedrock",
        "invoke, Claude, start of a stream",
        "bedrock",
        ANTHROPIC_START,
        AMAZON_API + "API_runtime_InvokeModelWithResponseStream.html",
        json=(),
        events=("message.usage",),
        billed="input, until a later event states it",
    ),
    Row(
        "Bedrock",
        "invoke, streamed",
        "bedrock",
        INVOCATION,
        AMAZON_API + "API_runtime_InvokeModelWithResponseStream.html",
        json=(),
        events=("amazon-bedrock-invocationMetrics",),
        billed="input and output",
    ),
    Row(
        "Bedrock",
        "invoke, Llama",
        "bedrock",
        LLAMA,
        "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-meta.html",
        json=BODY,
        events=BODY,
        billed="input and output",
    ),
    Row(
        "Cohere",
        "chat v2",
        "cohere",
        COHERE,
        "https://docs.cohere.com/reference/chat",
        events=("delta.usage",),
        billed="`billed_units`, which are fewer than `tokens`",
    ),
    Row(
        "Cohere",
        "chat v1, embed, rerank, classify",
        "cohere",
        COHERE,
        "https://docs.cohere.com/reference/rerank",
        json=("meta",),
        events=("response.meta",),
        billed="`billed_units`: tokens, or searches",
    ),
    Row(
        "Ollama",
        "chat, generate, embed",
        "ollama",
        OLLAMA,
        "https://docs.ollama.com/api/usage",
        json=BODY,
        events=BODY,
        billed="input and output of the last line",
    ),
    Row(
        "llama.cpp",
        "completion",
        "llamacpp",
        LLAMA_CPP,
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        json=BODY,
        events=BODY,
        billed="input and output",
    ),
)
