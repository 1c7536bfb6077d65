"""Usage in the bodies of a route's answers."""

from typing import Annotated, Final, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag

from edgeproxy.config import parsers
from edgeproxy.config.edge.compression import ON
from edgeproxy.config.forms import OFF, build_any_of, build_words, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import Size, Time, format_value, value_error

FormatName = Literal["openai", "anthropic", "gemini", "bedrock", "cohere", "ollama", "llamacpp", "any", "json"]
FORMATS: Final[tuple[FormatName, ...]] = get_args(FormatName)


CountedPart = Literal["cached", "cache_written", "reasoning"]
Paths = Annotated[
    tuple[Annotated[str, BeforeValidator(parsers.read_json_path)], ...], BeforeValidator(parsers.read_list)
]


class OwnFormat(Part):
    """A format of your own: the places of the numbers in a service's answers, if no format in the table fits.

    ```yaml
    routes: [{path: /v1/*, upstream: api, response_usage: {format: {input: meta.in, output: [meta.out, tokens_out]}}}]
    meters: {output: {count: output_tokens}}
    ```

    Each setting is a path, with dots between its keys, or a list of paths: the first path with a number counts. The
    paths are looked up in JSON, and in each event of a stream.
    """

    like: FormatName = Field(
        default="json", description="Format of the table that is also read, after these paths: `json` reads no more."
    )
    model: Paths = Field(default=(), description="Name of the model. `model` is read as well.")
    input: Paths = Field(default=(), description="Tokens of the prompt.")
    output: Paths = Field(default=(), description="Tokens of the answer.")
    total: Paths = Field(default=(), description="Input and output.")
    cached: Paths = Field(default=(), description="Tokens of the prompt that were read from a cache.")
    cache_written: Paths = Field(default=(), description="Tokens of the prompt that were written to a cache.")
    reasoning: Paths = Field(default=(), description="Tokens of reasoning.")
    beside: tuple[CountedPart, ...] = Field(
        default=(),
        description="Numbers that are not included in others: `cached` and `cache_written` in `input`, `reasoning` in "
        "`output`. By default they are included.",
    )


A_FORMAT = "write openai, for one"
NAMED, GIVEN = "named", "given"


def get_format_tag(value: object) -> str:
    """Return which of its two forms a format has: a known name, or an operator's own definition."""
    return NAMED if isinstance(value, str) else GIVEN


@written(lambda inner: inner)
def read_format(value: object) -> object:
    """Read a format. One of its forms is a name."""
    if isinstance(value, str) and value not in FORMATS:
        from edgeproxy.config.nearest import format_suggestion  # Late: only errors need it, and workers have none.

        raise value_error(f"{format_value(value)} is not known here", format_suggestion(value, FORMATS, A_FORMAT))
    return value


@written(lambda inner: build_any_of(build_words(*FORMATS), inner))
def read_response_usage(value: object) -> object:
    """Read the name of a format, or a mapping with the name."""
    return {"format": value} if isinstance(value, str) else value


@written(lambda inner: build_any_of(build_words("on", True), OFF, inner), lambda _: "off")
def read_ask_for_usage(value: object) -> object:
    """Read a switch, or a mapping."""
    if value is True or (isinstance(value, str) and value.lower() in ON):
        return {}
    return None if value is False else parsers.read_unless_off(value)


class AskForUsage(Part):
    """Streams: the edge asks for their usage if the client does not.

    ```yaml
    routes: [{path: /v1/*, upstream: api, response_usage: {format: openai, ask_for_usage: {else: refuse}}}]
    meters: {output: {count: output_tokens}}
    ```
    """

    else_: Literal["pass", "refuse"] = Field(
        default="pass",
        alias="else",
        description="Treatment of requests whose body cannot be changed, because it is chunked, longer than 128 KiB, "
        "compressed, not JSON, or covered by a digest. `pass` lets them pass, and estimates the usage of their "
        "streams; `refuse` answers 400, 411, 413, 415 or 505.",
    )


class ResponseUsage(Part):
    """Usage in the bodies of a route's answers, for [meters](#metersname) such as `output_tokens`. A format alone is
    its `format`: [how it is read](ai.md).

    ```yaml
    routes: [{path: /v1/*, upstream: api, response_usage: {format: openai, read_on: 10s}}]
    meters: {output: {count: output_tokens}}
    ```
    """

    format: Annotated[
        Annotated[FormatName, Tag(NAMED)] | Annotated[OwnFormat, Tag(GIVEN)],
        Discriminator(get_format_tag),
        BeforeValidator(read_format),
    ] = Field(
        description="Format of the answers: the format of OpenAI's API and the many similar ones, of Anthropic's, "
        "Gemini's, Bedrock's, Cohere's, Ollama's or llama.cpp's own ([the table](dialects.md) has all of them), in "
        "JSON, in server-sent events and in lines. `any` reads all of these, for upstreams that differ. `json` knows "
        "no tokens; it is for meters with `count: response_json`. A mapping is [a format of your "
        "own](#routesresponse_usageformat).",
    )
    read_on: Annotated[float, BeforeValidator(Time(0.0, 600.0))] = Field(
        default=30.0,
        description="How long the edge goes on reading an answer whose client has left, to find the usage at its end. "
        "`0s`: not at all. A worker does this for at most 256 answers at the same time.",
    )
    read_on_size: Annotated[int, BeforeValidator(Size(0, 1 << 30))] = Field(
        default=1 << 20, description="Maximum size that is read from such an answer."
    )
    ask_for_usage: Annotated[AskForUsage | None, BeforeValidator(read_ask_for_usage)] = Field(
        default=None,
        description="Asks for the usage of streams if clients forget it, with `format: openai`: [the "
        "effects](ai.md#streams-without-usage).",
    )

    @property
    def refuses_unasked(self) -> bool:
        """True if requests are refused when their streams cannot be asked for usage."""
        return self.ask_for_usage is not None and self.ask_for_usage.else_ == "refuse"
