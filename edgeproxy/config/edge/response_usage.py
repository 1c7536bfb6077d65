"""Usage that the bodies of a route's answers state."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config.field_types import Switch
from edgeproxy.config.forms import build_any_of, build_words, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import Size, Time

FormatName = Literal["openai", "anthropic", "gemini", "json"]
FORMATS = ("openai", "anthropic", "gemini", "json")


@written(lambda inner: build_any_of(build_words(*FORMATS), inner))
def read_response_usage(value: object) -> object:
    """Read the name of a format, or a mapping with it."""
    return {"format": value} if isinstance(value, str) else value


class ResponseUsage(Part):
    """Usage that the bodies of a route's answers state, for [meters](#metersname) such as `output_tokens`. A format
    alone is its `format`: [how it is read](ai.md).

    ```yaml
    routes: [{path: /v1/*, upstream: api, response_usage: {format: openai, read_on: 10s}}]
    meters: {output: {count: output_tokens}}
    ```
    """

    format: FormatName = Field(
        description="Format of the answers: that of OpenAI's API (chat completions, responses, embeddings), of "
        "Anthropic's or of Gemini's, in JSON and in server-sent events; `json` knows no tokens, and is for meters with "
        "`count: response_json`."
    )
    read_on: Annotated[float, BeforeValidator(Time(0.0, 600.0))] = Field(
        default=30.0,
        description="Time for which the edge reads an answer to its end, for the usage there, once its client has "
        "left. `0s`: not at all. At most 256 answers of a worker are read so at the same time.",
    )
    read_on_size: Annotated[int, BeforeValidator(Size(0, 1 << 30))] = Field(
        default=1 << 20, description="Size that is read of such an answer at most."
    )
    ask_for_usage: Switch = Field(
        default=False,
        description="Asks for the usage of streams whose clients forget it, with `format: openai`: [what changes for "
        "that](ai.md#streams-without-usage).",
    )
