"""The tokens that a request to a model will take, as far as it tells them: by its text, and by its maximum for the
answer.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from edgeproxy.config.edge.response_usage import FormatName, OwnFormat
from edgeproxy.edge.body_usage.json_fields import JsonFields, Path, Value
from edgeproxy.edge.body_usage.prompt_text import OPENAI, measure_prompt
from edgeproxy.edge.body_usage.request_table import CHOICES, MAXIMA, MAXIMUM, MEDIA

PROMPT_BYTES_MAX: Final = 64 << 10
"""Only a body of at most this many bytes is read before its request is admitted: this bounds the bytes that are read
ahead of a client.
"""
BYTES_PER_TOKEN: Final = 4
"""Bytes of text that count as a token of input: OpenAI's rule of thumb for English."""
NUMBER_DIGITS_MAX: Final = 12


class Prompt(NamedTuple):
    """The tokens of a request, as far as it tells them; None if it does not."""

    input: int | None
    output: int | None


UNKNOWN: Final = Prompt(None, None)
"""The prompt of a request whose body was not read."""


class PromptReader:
    """Reads the requests of one format."""

    def __init__(self, settings: FormatName | OwnFormat) -> None:
        name = settings if isinstance(settings, str) else settings.like
        self.provider = name if f"{name} image, low" in MEDIA else OPENAI
        """The provider whose figures count for images in OpenAI's form."""
        tables = MAXIMA.values() if name == "any" else [MAXIMA.get(name, {})]
        self._maxima = tuple({path for table in tables for path in table.get(MAXIMUM, ())})
        choices = tuple({path for table in tables for path in table.get(CHOICES, ())})
        names: dict[Path, tuple[str, ...]] = {tuple(path.split(".")): (path,) for path in (*self._maxima, *choices)}
        self._choices = choices
        self._fields = JsonFields(names) if names else None

    def read(self, body: bytes) -> Prompt:
        """Return the prompt of a body. A body that is not JSON, or has no number there, tells its text alone."""
        return Prompt(measure_prompt(body, provider=self.provider).estimate(BYTES_PER_TOKEN), self.find_maximum([body]))

    def find_maximum(self, texts: Iterable[bytes | bytearray]) -> int | None:
        """Return the tokens of output that a request allows at most; None if it does not say.

        `texts`: its body, or the two ends of a long one.
        """
        values: dict[str, Value] = {}
        if self._fields is not None:
            for text in texts:
                self._fields.read(text, values)
        numbers = {path: number for path, value in values.items() if (number := _read_number(value)) is not None}
        most = max([numbers[path] for path in self._maxima if path in numbers], default=None)
        return None if most is None else most * max([1, *[numbers[path] for path in self._choices if path in numbers]])


def _read_number(value: Value) -> int | None:
    """Return a whole number; all numbers above the largest possible one are returned as one number."""
    if not isinstance(value, bytes) or not value.isdigit():
        return None
    return int(value) if len(value) <= NUMBER_DIGITS_MAX else 10**NUMBER_DIGITS_MAX
