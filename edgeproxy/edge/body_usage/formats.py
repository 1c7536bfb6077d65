"""The formats in which models' answers state usage, and what their numbers come to.

The counts are the same for all: `input_tokens` are those of the whole prompt, `cached_tokens` those among them that
were read from a cache, `uncached_tokens` the others, `output_tokens` all that the model made, thinking included, and
`total_tokens` input and output. That is how OpenTelemetry's conventions for generative AI count, too.
"""

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

import msgspec

from edgeproxy.config.edge.response_usage import FormatName
from edgeproxy.edge.body_usage.json_fields import JsonFields, Path
from edgeproxy.edge.body_usage.readers import BOM, EventStreamReader, JsonReader

MODEL, PROMPT, CACHED, CACHE_WRITTEN, TOOLS, OUTPUT, THOUGHTS = (
    *("model", "prompt", "cached", "cache written", "tools", "output", "thoughts"),
)
"""Names of what formats state."""

ANY: Final = b""
"""The marker that every event has."""
NUMBER_MAX: Final = 10**12
"""The largest number that is taken from an answer: a service that errs by more must not fill up a counter."""
DIGITS_MAX: Final = len(str(NUMBER_MAX))


class Sum(NamedTuple):
    """A count: numbers added, others subtracted, and those without which it is not stated; the rest are 0 if absent."""

    needs: tuple[str, ...]
    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()


def build_sums(
    prompt: tuple[str, ...], output: tuple[str, ...], uncached: Sum, output_needs: str = PROMPT
) -> Mapping[str, Sum]:
    """Build the counts of a format from its numbers of input and of output."""
    return {
        "input_tokens": Sum((PROMPT,), prompt),
        "cached_tokens": Sum((PROMPT,), (CACHED,)),
        "uncached_tokens": uncached,
        "output_tokens": Sum((output_needs,), output),
        "total_tokens": Sum((PROMPT, output_needs), (*prompt, *output)),
    }


class Format(NamedTuple):
    """A format: where it has what, and what its numbers come to."""

    paths: Mapping[str, str]
    """The name of what stands at a path, whose keys have dots between them."""
    markers: tuple[bytes, ...] = ()
    """Bytes of which an event that states numbers has one at least."""
    sums: Mapping[str, Sum] = {}


FORMATS: Final[Mapping[FormatName, Format]] = {
    # Chat completions, embeddings and the Responses API.
    "openai": Format(
        {
            "model": MODEL,
            "usage.prompt_tokens": PROMPT,
            "usage.prompt_tokens_details.cached_tokens": CACHED,
            "usage.completion_tokens": OUTPUT,
            "usage.input_tokens": PROMPT,
            "usage.input_tokens_details.cached_tokens": CACHED,
            "usage.output_tokens": OUTPUT,
            "response.model": MODEL,
            "response.usage.input_tokens": PROMPT,
            "response.usage.input_tokens_details.cached_tokens": CACHED,
            "response.usage.output_tokens": OUTPUT,
        },
        (b'_tokens"',),
        build_sums((PROMPT,), (OUTPUT,), Sum((PROMPT,), (PROMPT,), (CACHED,))),
    ),
    # Messages: `message_start` has the input, and each `message_delta` all output so far. What was read from a cache,
    # or written to it, is not among the input tokens.
    "anthropic": Format(
        {
            "model": MODEL,
            "usage.input_tokens": PROMPT,
            "usage.cache_read_input_tokens": CACHED,
            "usage.cache_creation_input_tokens": CACHE_WRITTEN,
            "usage.output_tokens": OUTPUT,
            "message.model": MODEL,
            "message.usage.input_tokens": PROMPT,
            "message.usage.cache_read_input_tokens": CACHED,
            "message.usage.cache_creation_input_tokens": CACHE_WRITTEN,
        },
        (b'_tokens"',),
        build_sums((PROMPT, CACHED, CACHE_WRITTEN), (OUTPUT,), Sum((PROMPT,), (PROMPT, CACHE_WRITTEN)), OUTPUT),
    ),
    # Each part of a stream has all so far.
    "gemini": Format(
        {
            "modelVersion": MODEL,
            "usageMetadata.promptTokenCount": PROMPT,
            "usageMetadata.toolUsePromptTokenCount": TOOLS,
            "usageMetadata.cachedContentTokenCount": CACHED,
            "usageMetadata.candidatesTokenCount": OUTPUT,
            "usageMetadata.thoughtsTokenCount": THOUGHTS,
        },
        (b'TokenCount"',),
        build_sums((PROMPT, TOOLS), (OUTPUT, THOUGHTS), Sum((PROMPT,), (PROMPT, TOOLS), (CACHED,))),
    ),
    "json": Format({"model": MODEL}),
}


class StatedCounts:
    """What an answer states, by the name of a count, or by `format_path` of what is asked for by its path."""

    __slots__ = ("_sums", "_values")

    def __init__(self, sums: Mapping[str, Sum], values: Mapping[str, bytes]) -> None:
        self._sums, self._values = sums, values

    def find_number(self, count: str) -> int | None:
        """Return the number of a count; None where it is not stated, or is no whole number from 0 to NUMBER_MAX."""
        values = self._values
        needs, plus, minus = self._sums[count]
        for name in needs:
            if name not in values:
                return None
        total = 0
        for name in plus:
            if name in values:
                number = parse_whole_number(values[name])
                if number is None:
                    return None
                total += number
        for name in minus:
            if name in values:
                number = parse_whole_number(values[name])
                if number is None:
                    return None
                total -= number
        # More may be cached than the prompt had, in an answer that contradicts itself.
        return total if total > 0 else 0

    def find_unreadable(self, count: str) -> bytes | None:
        """Return what is written in the place of a number of this count, where that is none."""
        _, plus, minus = self._sums[count]
        written = (self._values.get(name) for name in (*plus, *minus))
        return next((one for one in written if one is not None and parse_whole_number(one) is None), None)

    @property
    def model(self) -> bytes | None:
        """The model, as UTF-8 if it is a text; None: not stated."""
        return parse_text(self._values.get(MODEL))


class UsageFormat:
    """A format, with further numbers that are asked for by their paths, such as `usage.total_tokens`."""

    __slots__ = ("_fields", "_markers", "_sums")

    def __init__(self, name: FormatName, paths: Collection[str] = ()) -> None:
        own = FORMATS[name]
        names: dict[Path, tuple[str, ...]] = {}
        for path, what in (*own.paths.items(), *[(path, format_path(path)) for path in paths]):
            keys = tuple(path.split("."))
            names[keys] = (*names.get(keys, ()), what)
        self._fields = JsonFields(names)
        last_keys = [path.rpartition(".")[2] for path in paths]
        self._markers = (*own.markers, *map(msgspec.json.encode, last_keys)) or (ANY,)
        """A key of one's own is found as JSON is usually written, without escapes."""
        self._sums = {**own.sums, **{path: Sum((path,), (path,)) for path in map(format_path, paths)}}

    def states(self, count: str) -> bool:
        """Return whether answers of this format may state a count, or have a number at a path."""
        return count in self._sums

    def create_reader(self, *, is_stream: bool) -> JsonReader | EventStreamReader:
        """Return a reader of a body: of server-sent events, or of JSON."""
        return EventStreamReader(self._fields, self._markers, MODEL) if is_stream else JsonReader(self._fields)

    def read_json(self, body: bytes) -> tuple[StatedCounts, bool]:
        """Return what a JSON body states that is all there, and whether it can be read."""
        values: dict[str, bytes] = {}
        is_readable = self._fields.read(body.removeprefix(BOM), values)
        return StatedCounts(self._sums, values), is_readable

    def compute_counts(self, values: Mapping[str, bytes]) -> StatedCounts:
        """Return what the values that a reader has found come to."""
        return StatedCounts(self._sums, values)


def format_path(path: str) -> str:
    """Return the name of what stands at a path, as JSONPath (RFC 9535) writes it: no count has such a name."""
    return f"$.{path}"


def parse_whole_number(written: bytes) -> int | None:
    """Return a number of JSON; None where it is no whole number from 0 to NUMBER_MAX, such as `12.0` or `"12"`."""
    if not written.isdigit() or len(written) > DIGITS_MAX:
        return None
    number = int(written)
    return number if number <= NUMBER_MAX else None


def parse_text(written: bytes | None) -> bytes | None:
    """Return a text of JSON in UTF-8; what is no text as it is written, and None where there is nothing."""
    if written is None or not written.startswith(b'"'):
        return written
    if b"\\" not in written and written.isascii():
        return written[1:-1]
    try:
        return msgspec.json.decode(written, type=str).encode(errors="replace")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return written
