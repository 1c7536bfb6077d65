"""The table of requests: the places of text, of media and of the maximum of an answer's tokens, for each provider.

Estimates use this table. Only text of known members counts by its bytes. Media have the figures that providers
document, fixed or by size. Other identifiers and encodings count 0. `scripts/dialect-page` writes docs/edge/dialects.md
from this table too.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from edgeproxy.config.edge.response_usage import FormatName

MAXIMUM, CHOICES = "maximum", "choices"
"""The tokens that one answer may have, and the number of answers."""

Places = Mapping[str, tuple[str, ...]]
MAXIMA: Final[Mapping[FormatName, Places]] = {
    "openai": {
        MAXIMUM: ("max_tokens", "max_completion_tokens", "max_output_tokens"),
        CHOICES: ("n", "best_of"),
    },
    "anthropic": {MAXIMUM: ("max_tokens", "max_tokens_to_sample")},
    "bedrock": {
        MAXIMUM: (
            *("inferenceConfig.maxTokens", "inferenceConfig.max_new_tokens", "max_tokens"),
            *("max_gen_len", "textGenerationConfig.maxTokenCount"),
        )
    },
    "cohere": {MAXIMUM: ("max_tokens",), CHOICES: ("num_generations",)},
    "ollama": {MAXIMUM: ("options.num_predict",)},
    "llamacpp": {MAXIMUM: ("n_predict",), CHOICES: ("n",)},
    "gemini": {
        MAXIMUM: ("generationConfig.maxOutputTokens", "generation_config.max_output_tokens"),
        CHOICES: ("generationConfig.candidateCount", "generation_config.candidate_count"),
    },
}
"""The paths of the most tokens of an answer, and of the number of answers, by format: keys with dots between them."""

TEXT_ROOTS: Final = frozenset(
    (
        *("messages", "prompt", "input", "inputs", "suffix", "system", "instructions", "contents"),
        *("systemInstruction", "system_instruction", "message", "chat_history", "preamble", "texts", "documents"),
        *("query", "queries", "inputText", "instances", "requests", "content", "template", "text_1", "text_2"),
        *("images", "image", "inputImage", "image_data", "context", "input_prefix", "input_suffix", "input_extra"),
    )
)
"""Members at the top of a request below which text and media stand."""
DECLARATIONS: Final = frozenset(
    (
        *("tools", "functions", "toolConfig", "response_format", "responseFormat", "json_schema", "output_config"),
        *("responseSchema", "responseJsonSchema", "output_format"),
    )
)
"""Members whose names, keys and texts are all read by the model: tools and the schemas of answers."""
TEXT_MEMBERS: Final = frozenset(
    (
        *("text", "content", "parts", "arguments", "thinking", "reasoning_content", "reasoning", "refusal"),
        *("transcript", "summary", "title", "context", "output", "message", "query", "document", "documents"),
        *("functionCall", "functionResponse", "function_call", "function_response", "function", "tool_calls"),
        *("toolUse", "toolResult", "reasoningContent", "reasoningText", "citations", "cited_text", "results"),
        *("inputs", "prompt", "item", "embedding_inputs", "executableCode", "codeExecutionResult", "code"),
        *("systemInstruction", "snippet", "requests", "searchResult", "texts", "prompt_string"),
    )
)
"""Members of messages and their parts that have text, or parts with text."""
WHOLE_MEMBERS: Final = frozenset(("input", "args", "response", "json"))
"""Members of parts whose keys and texts are all read by the model: arguments and results of tools."""
IMAGE_MEMBERS: Final = frozenset(("image", "images", "inputImage", "image_data", "multimodal_data"))
"""Members that are an image or several: parts, URLs, or bytes in base64."""


class Medium(NamedTuple):
    """The tokens of one image, sound, film or document, by the count of a provider."""

    provider: str
    name: str
    tokens: int
    """Tokens of a medium whose size the request does not tell, for example an image that is named by its URL."""
    bytes_per_token: int
    """Bytes that make a token; 0: each has `tokens`."""
    most: int
    """Tokens of one at most."""
    rule: str
    source: str
    evidence: str
    """The parts of the rule that were found in the source, or in copies of it, and the parts that were not."""

    def compute(self, size: int | None) -> int:
        """Return the tokens of one of `size` bytes; None: the size is not known."""
        if size is None or not self.bytes_per_token:
            return self.tokens
        return max(1, min(-(-size // self.bytes_per_token), self.most))


FOUND: Final = "found"
OPENAI_IMAGES: Final = "https://platform.openai.com/docs/guides/images-vision#calculating-costs"
OPENAI_AUDIO: Final = "https://developers.openai.com/api/docs/guides/realtime-costs"
OPENAI_FILES: Final = "https://platform.openai.com/docs/guides/pdf-files"
ANTHROPIC_IMAGES: Final = "https://docs.anthropic.com/en/docs/build-with-claude/vision#calculate-image-costs"
ANTHROPIC_FILES: Final = "https://docs.anthropic.com/en/docs/build-with-claude/pdf-support#estimate-your-costs"
GOOGLE_FILES: Final = "https://ai.google.dev/gemini-api/docs/document-processing#technical-details"
COHERE_IMAGES: Final = "https://docs.cohere.com/docs/image-inputs#image-detail"
AMAZON_VIDEO: Final = "https://docs.aws.amazon.com/nova/latest/userguide/modalities-video.html#modalities-video-tokens"
GOOGLE_MEDIA: Final = "https://ai.google.dev/gemini-api/docs/tokens"
PAGE_BYTES: Final = 64 << 10
"""Bytes of a PDF that are taken for a page: no request tells how many pages it has. An assumption."""
PDF_PAGE, PDF_TEXT_PAGE = 2333, 333
"""Tokens of a page of a PDF that Claude reads as text and image, and as text: 7,000 and 1,000 of three pages."""


def _describe_pages(tokens: int) -> str:
    return f"{tokens:,} tokens for each {PAGE_BYTES >> 10} KiB, taken for a page"


MEDIA: Final = {
    "openai image": Medium(
        "OpenAI",
        "image",
        765,
        0,
        765,
        "85 tokens and 170 for each tile, of 1024 × 1024 pixels",
        OPENAI_IMAGES,
        "found, of GPT-4o and its like; other models count patches",
    ),
    "openai image, low": Medium("OpenAI", "image, `detail: low`", 85, 0, 85, "85 tokens", OPENAI_IMAGES, FOUND),
    "openai audio": Medium(
        "OpenAI",
        "audio, compressed",
        600,
        1600,
        40_000,
        "10 tokens a second, of 128 kbit/s",
        OPENAI_AUDIO,
        "found, of realtime sessions; the bit rate is an assumption",
    ),
    "openai audio, raw": Medium(
        "OpenAI",
        "audio, `wav` and `pcm16`",
        600,
        4800,
        40_000,
        "10 tokens a second, of 24 kHz",
        OPENAI_AUDIO,
        "found, of realtime sessions",
    ),
    "openai file": Medium(
        "OpenAI",
        "file",
        1500,
        PAGE_BYTES // 1500,
        150_000,
        f"{_describe_pages(1500)}: 765 of its image and 735 of its text",
        OPENAI_FILES,
        "found that a page is its text and its image; the tokens of the text are an assumption",
    ),
    "anthropic image": Medium(
        "Anthropic",
        "image",
        1568,
        0,
        1568,
        "a token for each 28 × 28 pixels, at most 1,568",
        ANTHROPIC_IMAGES,
        "found; Claude Opus 4.7 counts up to 4,784",
    ),
    "anthropic document": Medium(
        "Anthropic",
        "document",
        PDF_PAGE,
        PAGE_BYTES // PDF_PAGE,
        100 * PDF_PAGE,
        f"{_describe_pages(PDF_PAGE)}; at most 100 pages",
        ANTHROPIC_FILES,
        "found: 7,000 tokens for three pages with their images; the size of a page is an assumption",
    ),
    "gemini image": Medium(
        "Gemini",
        "image",
        258,
        0,
        258,
        "258 tokens for each tile of 768 × 768",
        GOOGLE_MEDIA,
        "found, of Gemini 2; Gemini 3 counts up to 1,120",
    ),
    "gemini audio": Medium(
        "Gemini",
        "audio",
        1920,
        500,
        300_000,
        "32 tokens a second, of 128 kbit/s; at most 9.5 hours",
        GOOGLE_MEDIA,
        "found; the bit rate is an assumption",
    ),
    "gemini video": Medium(
        "Gemini",
        "video",
        15_780,
        475,
        1_000_000,
        "263 tokens a second, of 1 Mbit/s; at most an hour",
        GOOGLE_MEDIA,
        "found, of Gemini 2; the bit rate is an assumption",
    ),
    "gemini document": Medium(
        "Gemini",
        "document",
        258,
        PAGE_BYTES // 258,
        258_000,
        f"{_describe_pages(258)}; at most 1,000 pages",
        GOOGLE_FILES,
        "found, of Gemini 2; Gemini 3 counts 560; the size of a page is an assumption",
    ),
    "bedrock image": Medium(
        "Bedrock",
        "image",
        1568,
        0,
        1568,
        "as Claude's, at most 1,568 tokens",
        ANTHROPIC_IMAGES,
        "found, of Claude; Nova 2 bills 230 for each",
    ),
    "bedrock video": Medium(
        "Bedrock",
        "video",
        17_280,
        434,
        276_480,
        "288 tokens a second, of 1 Mbit/s; at most 960 seconds",
        AMAZON_VIDEO,
        "found, of Nova; the bit rate is an assumption",
    ),
    "bedrock document": Medium(
        "Bedrock",
        "document",
        PDF_TEXT_PAGE,
        PAGE_BYTES // PDF_TEXT_PAGE,
        100 * PDF_TEXT_PAGE,
        f"{_describe_pages(PDF_TEXT_PAGE)}; at most 100 pages",
        ANTHROPIC_FILES,
        "found, of Claude: 1,000 tokens for the text of three pages; the size of a page is an assumption",
    ),
    "bedrock document, cited": Medium(
        "Bedrock",
        "document with `citations`",
        PDF_PAGE,
        PAGE_BYTES // PDF_PAGE,
        100 * PDF_PAGE,
        f"{_describe_pages(PDF_PAGE)}; at most 100 pages",
        ANTHROPIC_FILES,
        "found, of Claude: with `citations` pages are read as images too; the size of a page is an assumption",
    ),
    "cohere image": Medium(
        "Cohere",
        "image",
        1280,
        0,
        1280,
        "256 tokens for each tile and a preview, of 1024 × 1024 pixels",
        COHERE_IMAGES,
        FOUND,
    ),
    "cohere image, low": Medium("Cohere", "image, `detail: low`", 256, 0, 256, "256 tokens", COHERE_IMAGES, FOUND),
    "ollama image": Medium(
        "Ollama, llama.cpp",
        "image",
        576,
        0,
        576,
        "576 patches, as LLaVA has them",
        "https://arxiv.org/abs/2310.03744",
        "computed: 24 × 24 patches of 336 × 336 pixels",
    ),
}
"""The media of requests. If a request does not tell pages, bit rates and pixels, the rule's values count."""
