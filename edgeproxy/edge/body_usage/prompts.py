"""Requests to models, as far as they tell the tokens that they will take: by their length, and that of the answer."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from edgeproxy.config.edge.response_usage import FormatName, OwnFormat
from edgeproxy.edge.body_usage.json_fields import JsonFields, Value

PROMPT_BYTES_MAX: Final = 64 << 10
"""Bytes of a request's body up to which it is read before the request is admitted: what is read ahead of any client."""
BYTES_PER_TOKEN: Final = 4
"""Bytes of a request that are taken for a token of input: OpenAI's rule of thumb for English, JSON included."""
NUMBER_DIGITS_MAX: Final = 12

CHOICES: Final = "choices"

PATHS: Final[Mapping[FormatName, Mapping[tuple[str, ...], tuple[str, ...]]]] = {
    "openai": {
        ("max_tokens",): ("max_tokens",),
        ("max_completion_tokens",): ("max_completion_tokens",),
        ("max_output_tokens",): ("max_output_tokens",),
        ("n",): (CHOICES,),
    },
    "anthropic": {("max_tokens",): ("max_tokens",)},
    "bedrock": {("inferenceConfig", "maxTokens"): ("max_tokens",), ("max_tokens",): ("max_tokens",)},
    "cohere": {("max_tokens",): ("max_tokens",)},
    "ollama": {("options", "num_predict"): ("max_tokens",)},
    "llamacpp": {("n_predict",): ("max_tokens",)},
    "gemini": {
        ("generationConfig", "maxOutputTokens"): ("max_tokens",),
        ("generationConfig", "candidateCount"): (CHOICES,),
    },
}
"""Where the requests of a format say how many tokens an answer may have, and how many answers there are to be."""


class Prompt(NamedTuple):
    """The tokens of a request, as far as it tells them; None where it does not."""

    input: int | None
    output: int | None


UNKNOWN: Final = Prompt(None, None)
"""The prompt of a request whose body was not read."""


class PromptReader:
    """Reads the requests of one format."""

    def __init__(self, settings: FormatName | OwnFormat) -> None:
        name = settings if isinstance(settings, str) else settings.like
        paths = (
            {path: what for each in PATHS.values() for path, what in each.items()} if name == "any" else PATHS.get(name)
        )
        self._fields = None if paths is None else JsonFields(paths)

    def read(self, body: bytes) -> Prompt:
        """Return what a body says. Whatever is no JSON, or has no number there, tells its length alone."""
        values: dict[str, Value] = {}
        if self._fields is not None:
            self._fields.read(body, values)
        choices = _read_number(values.pop(CHOICES, b""))
        numbers = [number for value in values.values() if (number := _read_number(value)) is not None]
        output = max(numbers) * max(1, choices or 1) if numbers else None
        return Prompt(-(-len(body) // BYTES_PER_TOKEN), output)


def _read_number(value: Value) -> int | None:
    """Return a whole number; a larger one than can be is as large as none other."""
    if not isinstance(value, bytes) or not value.isdigit():
        return None
    return int(value) if len(value) <= NUMBER_DIGITS_MAX else 10**NUMBER_DIGITS_MAX
