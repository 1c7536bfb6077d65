"""The formats of models' answers: the facts that a route's `response_usage` looks for, and the readers that find
them.
"""

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache, partial
from typing import Final

import msgspec

from edgeproxy.config.edge.response_usage import FormatName, OwnFormat
from edgeproxy.edge.body_usage import dialects, format_paths
from edgeproxy.edge.body_usage.amazon_reader import AmazonReader
from edgeproxy.edge.body_usage.answer_text import AnswerText
from edgeproxy.edge.body_usage.body_kind import BodyKind
from edgeproxy.edge.body_usage.json_fields import LIST, NUMBER, TEXT, JsonFields, Path, Value
from edgeproxy.edge.body_usage.readers import (
    BOM,
    EVENT_BEGINS,
    BodyReader,
    EventStreamReader,
    IgnoringReader,
    JsonReader,
    LinesReader,
    StatementReader,
    read_json,
)
from edgeproxy.edge.body_usage.statement import COUNTS, StatedCounts

ANY: Final = b""
"""The marker that every event has."""
OnLine = Callable[[dict[str, Value]], None]
TYPES: Final[Mapping[str, object]] = {
    **dict.fromkeys(dialects.NUMBERS, NUMBER),
    **dict.fromkeys(dialects.TEXTS, TEXT),
    dialects.STEPS: LIST,
    dialects.RESULTS: LIST,
}
"""The types of facts; the value of any other is its bytes in the text."""
MEDIA: Final = (dialects.AUDIO_IN, dialects.AUDIO_OUT, dialects.IMAGE_IN, dialects.IMAGE_OUT, dialects.TIER)
"""Facts that no other number depends on, and few routes count."""
FORMATS_CACHED_MAX: Final = 64
STATES_OUTPUT: Final = frozenset(("anthropic", "bedrock", "any"))
"""Formats whose whole answers always state their output."""
INPUT: Final = (dialects.PROMPT, dialects.CACHED_BESIDE, dialects.WRITTEN_BESIDE)
"""Facts that make one prompt; if one grows, another may become smaller."""


class UsageFormat:
    """A format, with further numbers that are requested by their paths, for example `usage.total_tokens`."""

    __slots__ = ("_alternatives", "_counts", "_fields", "_markers", "_may_lack_output", "_states_tokens")

    def __init__(
        self, settings: FormatName | OwnFormat, paths: Collection[str] = (), media: Collection[str] = MEDIA
    ) -> None:
        """`media`: the facts of MEDIA that are read. Each member that is read costs time."""
        name: FormatName = settings if isinstance(settings, str) else settings.like
        own = {} if isinstance(settings, str) else list_own_paths(settings)
        unread = set(MEDIA).difference(media)
        # Paths of an operator's own format go first, and hide the paths of the table at their place.
        places = {**own, **{path: what for path, what in format_paths.list_paths(name).items() if path not in own}}
        places = {path: what for path, what in places.items() if what[0] not in unread}
        names: dict[Path, tuple[str, ...]] = {}
        alternatives: dict[str, tuple[str, int]] = {}
        named: list[tuple[str, str]] = []
        types: dict[str, object] = {}
        for path, (fact, rank) in sorted(places.items(), key=lambda place: place[1][1]):
            name_ = fact if all(fact != one for _, one in named) else f"{fact} {rank}"
            if name_ != fact:
                alternatives[name_] = fact, rank
            named.append((path, name_))
            if fact in TYPES:
                types[name_] = TYPES[fact]
        for path, what in [*named, *[(path, format_path(path)) for path in paths]]:
            keys = tuple(path.split("."))
            names[keys] = (*names.get(keys, ()), what)
        self._alternatives = alternatives
        """For names that are other paths of a fact: the fact and the rank."""
        self._counts = frozenset(map(format_path, paths))
        self._fields = JsonFields(names, self.take, types)
        last_keys = [path.rpartition(".")[2] for path in (*paths, *own)]
        self._markers = (*format_paths.list_markers(name), *map(msgspec.json.encode, last_keys)) or (ANY,)
        """A key of an operator's own format is found as JSON is usually written, without escapes."""
        self._may_lack_output = name not in STATES_OUTPUT
        self._states_tokens = name != "json" or bool(own)

    def states(self, count: str) -> bool:
        """Return whether answers of this format may state a count, or have a number at a path."""
        return count in self._counts or (count in COUNTS and self._states_tokens)

    def create_reader(
        self, kind: BodyKind, on_line: OnLine | None = None, text: AnswerText | None = None
    ) -> BodyReader:
        """Return a reader of a body of this kind, which has its text measured by `text`.

        `on_line` is called with the facts of each line, if the body is JSON texts in lines. Then each line is a
        statement of its own.
        """
        if kind is BodyKind.LINES:
            return BodyReader(lambda first, is_all: self._create_lines_reader(on_line, text))
        if kind is BodyKind.AMAZON:
            return BodyReader(lambda first, is_all: AmazonReader(self._fields, text))
        return BodyReader(partial(self._create_by_beginning, kind, on_line, text))

    def _create_lines_reader(self, on_line: OnLine | None, text: AnswerText | None) -> LinesReader:
        return LinesReader(self._fields, self._markers, dialects.MODEL, on_line, text)

    def _create_by_beginning(
        self, kind: BodyKind, on_line: OnLine | None, text: AnswerText | None, first: bytes, is_all: bool
    ) -> StatementReader | None:
        """Return the reader of a body that begins with these bytes; None if more of them have to come."""
        if first.startswith((b"{", b"[")):
            if on_line is not None:
                return self._create_lines_reader(on_line, text)
            return JsonReader(self._fields, text)
        if kind is BodyKind.STREAM or first.startswith(EVENT_BEGINS):
            return EventStreamReader(self._fields, self._markers, dialects.MODEL, text)
        if not is_all and any(begin.startswith(first) for begin in EVENT_BEGINS):
            return None
        return JsonReader(self._fields, text) if kind is BodyKind.JSON else IgnoringReader()

    def read_json(self, body: bytes, *, has_output: bool = True) -> tuple[StatedCounts, bool]:
        """Return the statements of a complete JSON body, and whether it can be read."""
        values, is_readable = self._fields.find_values(body), True
        if values is None:
            values = {}
            is_readable = read_json(self._fields, body.removeprefix(BOM), values)
        elif not self._alternatives.keys().isdisjoint(values):
            values = self._choose(values)
        return StatedCounts(values, self._may_lack_output, has_output), is_readable

    def compute_counts(self, values: dict[str, Value], *, has_output: bool = True) -> StatedCounts:
        """Return the counts that the facts of a reader result in."""
        return StatedCounts(values, self._may_lack_output, has_output)

    def read_message(self, text: bytes | bytearray, *, is_named: bool) -> StatedCounts | None:
        """Return the statements of a message of a WebSocket; None if it has no marker, and the model `is_named`."""
        if is_named and not any(marker in text for marker in self._markers):
            return None
        values: dict[str, Value] = {}
        self._fields.read(text, values)
        return self.compute_counts(values)

    def read_results(self, values: Mapping[str, Value]) -> list[dict[str, Value]]:
        """Return the facts of each answer of a batch that stand in one body."""
        results = values.get(dialects.RESULTS)
        if not isinstance(results, list):
            return []
        return [self.read_json(msgspec.json.encode(result))[0].values for result in results]

    def take(self, stated_values: dict[str, Value], values: dict[str, Value]) -> None:
        """Put the values at the paths of one text into `values`, by fact.

        The numbers of a stream are sums so far: a number does not become zero, unless this text counts its units
        elsewhere.
        """
        if not self._alternatives.keys().isdisjoint(stated_values):
            stated_values = self._choose(stated_values)
        if values and 0 in stated_values.values():
            stated_values = drop_zeros(stated_values, values)
        values.update(stated_values)

    def _choose(self, stated_values: Mapping[str, Value]) -> dict[str, Value]:
        """Return one statement of each fact of a text: the preferred one if it is at several paths."""
        stated: dict[str, Value] = {}
        ranks: dict[str, int] = {}
        for name, value in stated_values.items():
            fact, rank = self._alternatives.get(name, (name, -1))
            if fact not in stated or is_preferred((rank, value), (ranks[fact], stated[fact])):
                stated[fact], ranks[fact] = value, rank
        return stated


def get_usage_format(
    settings: FormatName | OwnFormat,
    paths: Collection[str] = (),
    counts: Collection[str] = tuple(COUNTS),
    *,
    has_tier: bool = False,
) -> UsageFormat:
    """Return a format for these counts, with further paths. Routes of all customers share equal formats.

    `has_tier`: whether the service tier is read.
    """
    media = tuple([fact for fact in MEDIA if any(fact in COUNTS.get(count, ()) for count in counts)])
    media += (dialects.TIER,) if has_tier else ()
    return _create_usage_format(settings, tuple(sorted(set(paths))), media)


@lru_cache(maxsize=FORMATS_CACHED_MAX)
def _create_usage_format(
    settings: FormatName | OwnFormat, paths: tuple[str, ...], media: tuple[str, ...]
) -> UsageFormat:
    return UsageFormat(settings, paths, media)


def is_preferred(new: tuple[int, Value], old: tuple[int, Value]) -> bool:
    """Return whether one statement of a fact is preferred to another in its text; each is a rank and a value.

    A number above zero is preferred, then the lower rank.
    """
    new_is_more, old_is_more = (isinstance(value, int) and value > 0 for value in (new[1], old[1]))
    return new_is_more > old_is_more or (new_is_more == old_is_more and new[0] < old[0])


def drop_zeros(stated: Mapping[str, Value], values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the stated facts without zeros that follow a number.

    Zeros of a prompt stay if its other tokens have grown by that number.
    """
    gone = {fact: number for fact, value in stated.items() if value == 0 and (number := _get_number(values, fact))}
    of_input = {fact: number for fact, number in gone.items() if fact in INPUT}
    grown = sum([max(0, _get_number(stated, fact) - _get_number(values, fact)) for fact in INPUT if fact in stated])
    moved = of_input if grown >= sum(of_input.values()) else {}
    return {fact: value for fact, value in stated.items() if fact not in gone or fact in moved}


def _get_number(values: Mapping[str, Value], fact: str) -> int:
    number = values.get(fact)
    return number if isinstance(number, int) else 0


def list_own_paths(settings: OwnFormat) -> Mapping[str, tuple[str, int]]:
    """Return each path of an operator's own format, with its fact and rank."""
    beside = {
        "cached": dialects.CACHED_BESIDE,
        "cache_written": dialects.WRITTEN_BESIDE,
        "reasoning": dialects.THOUGHTS_BESIDE,
    }
    within = {
        "model": dialects.MODEL,
        "input": dialects.PROMPT,
        "output": dialects.OUTPUT,
        "total": dialects.TOTAL,
        "cached": dialects.CACHED,
        "cache_written": dialects.WRITTEN,
        "reasoning": dialects.THOUGHTS,
    }
    return {
        path: (beside[name] if name in settings.beside else fact, rank - len(paths))
        for name, fact in within.items()
        for paths in [getattr(settings, name)]
        for rank, path in enumerate(paths)
    }


def format_path(path: str) -> str:
    """Return the name of the value at a path, in the notation of JSONPath (RFC 9535): no count has such a name."""
    return f"$.{path}"
