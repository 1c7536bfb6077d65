"""The counts of an answer, by the facts that it states.

The counts mean one thing in all dialects. `input_tokens` are the tokens of the whole prompt; `cached_tokens` are the
ones among them that were read from a cache, and `uncached_tokens` the others. `output_tokens` are all that the model
generated, thinking included, and `total_tokens` input and output. OpenTelemetry's conventions for generative AI count
like this.

Parts and total are checked against each other. If they disagree, a rule decides: `StatedCounts.rule`.
"""

from collections.abc import Callable, Mapping
from typing import Final, cast

from edgeproxy.edge.body_usage import dialects as facts
from edgeproxy.edge.body_usage.dialects import (
    CACHED,
    CACHED_BESIDE,
    OUTPUT,
    PROMPT,
    THOUGHTS_BESIDE,
    TOOLS_BESIDE,
    TOTAL,
    WRITTEN_BESIDE,
)
from edgeproxy.edge.body_usage.json_fields import NUMBER_MAX, Value, parse_whole_number

COUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    "input_tokens": (facts.PROMPT, facts.CACHED_BESIDE, facts.WRITTEN_BESIDE, facts.TOOLS_BESIDE),
    "cached_tokens": (facts.CACHED, facts.CACHED_BESIDE),
    "cache_write_tokens": (facts.WRITTEN, facts.WRITTEN_BESIDE),
    "uncached_tokens": (*(facts.PROMPT, facts.CACHED, facts.CACHED_BESIDE, facts.WRITTEN_BESIDE, facts.TOOLS_BESIDE),),
    "fresh_tokens": (
        *(facts.PROMPT, facts.CACHED, facts.CACHED_BESIDE, facts.WRITTEN, facts.WRITTEN_BESIDE, facts.TOOLS_BESIDE),
    ),
    "output_tokens": (facts.OUTPUT, facts.THOUGHTS_BESIDE),
    "reasoning_tokens": (facts.THOUGHTS, facts.THOUGHTS_BESIDE),
    "audio_input_tokens": (facts.AUDIO_IN,),
    "audio_output_tokens": (facts.AUDIO_OUT,),
    "image_input_tokens": (facts.IMAGE_IN,),
    "image_output_tokens": (facts.IMAGE_OUT,),
    "total_tokens": (
        *(facts.PROMPT, facts.CACHED_BESIDE, facts.WRITTEN_BESIDE, facts.TOOLS_BESIDE),
        *(facts.OUTPUT, facts.THOUGHTS_BESIDE, facts.TOTAL),
    ),
}
"""The counts, and the facts of each: a count is not stated if one of them is not a number."""

REASONING_BESIDE: Final = "reasoning beside"
"""The total is more than the parts by the reasoning, or the output is less than it: it is not part of the output."""
INPUT_BESIDE: Final = "input beside"
"""The total is more than the parts by tokens of a cache, which are therefore no part of the prompt."""
SURPLUS: Final = "surplus"
"""The total is more than the parts by tokens that are stated nowhere: they count as output."""
PARTS: Final = "parts"
"""The total is less than the parts, which count."""
WITHIN: Final = "within"
"""The total shows that tokens which stand beside others in this dialect are parts of them."""

NUMBERS: Final = frozenset(facts.NUMBERS)
CHECKED: Final = frozenset((facts.PROMPT, facts.OUTPUT, facts.TOTAL))
STEP_MEMBERS: Final = {
    facts.PROMPT: "input_tokens",
    facts.CACHED_BESIDE: "cache_read_input_tokens",
    facts.WRITTEN_BESIDE: "cache_creation_input_tokens",
    facts.OUTPUT: "output_tokens",
}
"""The numbers of a step, by the fact of the answer that they add to."""
BESIDE_INPUT: Final = ((facts.CACHED,), (facts.WRITTEN,), (facts.CACHED, facts.WRITTEN))
"""Parts of the prompt that may turn out to stand beside it."""


def _reconcile(
    stated: Mapping[str, int], parts: tuple[int | None, int | None, int | None], total: int, *, has_output: bool
) -> tuple[int | None, int | None, str]:
    """Return input and output, as decided by a total that is not their sum, and the rule.

    `parts`: the prompt alone, input and output.
    """
    prompt, input_, output = parts
    if input_ is None and output is None:
        # Rerankers and embedders state a total alone.
        return (None, None, "") if has_output else (total, 0, "")
    if input_ is None:
        assert output is not None
        return max(0, total - output), output, ""
    if output is None:
        surplus = max(0, total - input_)
        return (input_, surplus, SURPLUS if surplus else "") if has_output else (input_ + surplus, 0, "")
    surplus = total - input_ - output
    assert prompt is not None
    if surplus < 0:
        within = prompt + stated.get(facts.OUTPUT, 0)
        return (prompt, within - prompt, WITHIN) if within == total else (input_, output, PARTS)
    if surplus == stated.get(facts.THOUGHTS):
        return input_, output + surplus, REASONING_BESIDE
    for names in BESIDE_INPUT:
        if surplus == sum([stated.get(name, 0) for name in names]):
            return input_ + surplus, output, INPUT_BESIDE
    return input_, output + surplus, SURPLUS


def _add_steps(values: dict[str, Value]) -> dict[str, Value]:
    """Return the facts, with the numbers of the steps beside them added: work that the service did besides."""
    steps, added = values[facts.STEPS], {fact: value for fact, value in values.items() if fact != facts.STEPS}
    objects = [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    beside = [step for step in objects if str(step.get("type")) not in facts.STEPS_WITHIN]
    if all(_sum_member(objects, member) == values.get(fact, 0) for fact, member in STEP_MEMBERS.items()):
        return added  # The answer states the sum of all.
    for fact, member in STEP_MEMBERS.items():
        number, stated = _sum_member(beside, member), added.get(fact, 0)
        if isinstance(number, bytes):
            added[fact] = number
        elif number and isinstance(stated, int):
            added[fact] = min(stated + number, NUMBER_MAX)
    return added


def _sum_member(steps: list[dict[str, object]], member: str) -> int | bytes:
    """Return the sum of a number of steps; if one of them is not a whole number, return the value in its place."""
    written = [step.get(member) or 0 for step in steps]
    unreadable = next((each for each in written if type(each) is not int or not 0 <= each <= NUMBER_MAX), None)
    return sum(cast("list[int]", written)) if unreadable is None else str(unreadable).encode()


class StatedCounts:
    """The counts that an answer states, by name, or by `format_path` if they are requested by their path."""

    __slots__ = (
        "_has_output",
        "_is_resolved",
        "_may_lack_output",
        "input",
        "output",
        "rule",
        "total",
        "unreadable",
        "values",
    )

    input: int | None
    """The whole prompt; set by `resolve`, like the three below."""
    output: int | None
    total: int | None
    rule: str
    """The rule that makes parts and total agree; empty if they agree as stated."""

    # Keywords would cost time.
    def __init__(
        self,
        values: dict[str, Value],
        may_lack_output: bool = True,
        has_output: bool = True,
    ) -> None:
        """`may_lack_output`: an answer with a prompt and no output has generated nothing.

        `has_output`: its operation generates something; if it does not, a total alone is input.
        """
        self.values = values
        """The found facts: numbers and texts, or the written form of values in their place."""
        self._may_lack_output, self._has_output = may_lack_output, has_output
        self._is_resolved = False
        self.unreadable: dict[str, bytes] | None = None
        """The written form of values in the place of numbers, once it is resolved."""

    def resolve(self) -> "StatedCounts":
        """Compute the numbers, once; return the counts themselves."""
        if self._is_resolved:
            return self
        self._is_resolved = True
        if facts.STEPS in self.values:
            self.values = _add_steps(self.values)
        stated: Mapping[str, int] = self.values  # type: ignore[assignment]  # Texts among them are not numbers' facts.
        if bytes in map(type, self.values.values()):
            stated = self._list_readable()
        get = stated.get
        prompt, output, total = get(PROMPT), get(OUTPUT), get(TOTAL)
        if prompt is None and output is None and not total and facts.UNITS in stated:
            prompt = output = 0  # It is charged by something else.
        thoughts_beside = get(THOUGHTS_BESIDE)
        if thoughts_beside:
            output = (output or 0) + thoughts_beside
        input_ = prompt
        if prompt is not None:
            input_ = prompt + get(CACHED_BESIDE, 0) + get(WRITTEN_BESIDE, 0) + get(TOOLS_BESIDE, 0)
        self.rule = ""
        if not total:
            total = None
            if input_ is not None and output is None and (self._may_lack_output or not self._has_output):
                output = 0
            if input_ is not None and output is not None:
                total = input_ + output
        elif input_ is None or output is None or input_ + output != total:
            parts = prompt, input_, output
            input_, output, self.rule = _reconcile(stated, parts, total, has_output=self._has_output)
            total = max(total, (input_ or 0) + (output or 0))
        thoughts = get(facts.THOUGHTS, 0)
        if output is not None and thoughts > output:
            output, self.rule = output + thoughts, REASONING_BESIDE
            total = None if total is None else total + thoughts
        self.input, self.output, self.total = input_, output, total
        return self

    def _list_readable(self) -> dict[str, int]:
        """Return the numbers, and note the written form of values in the place of one."""
        stated: dict[str, int] = {}
        unreadable: dict[str, bytes] = {}
        for fact in NUMBERS.intersection(self.values):
            value = self.values[fact]
            stated[fact] = value if isinstance(value, int) else 0
            if isinstance(value, bytes):
                unreadable[fact] = value
        if not unreadable.keys().isdisjoint(CHECKED):
            stated.pop(TOTAL, None)  # It can be checked against nothing.
        self.unreadable = unreadable or None
        return stated

    def find_number(self, count: str) -> int | None:
        """Return the number of a count; None if it is not stated, or is not a whole number from 0 to NUMBER_MAX."""
        find = FIND.get(count)
        if find is None:
            written = self.values.get(count)
            return parse_whole_number(written) if isinstance(written, bytes) else None
        if not self._is_resolved:
            self.resolve()
        if self.unreadable is not None and self.find_unreadable(count) is not None:
            return None
        return find(self)

    def find_unreadable(self, count: str) -> bytes | None:
        """Return the written form of the value in the place of a number of this count, if that is not a number."""
        if count not in COUNTS:
            written = self.values.get(count)
            return written if isinstance(written, bytes) and parse_whole_number(written) is None else None
        unreadable = self.resolve().unreadable
        if unreadable is None:
            return None
        return next((unreadable[fact] for fact in COUNTS[count] if fact in unreadable), None)

    @property
    def model(self) -> str | None:
        """The model; None: not stated."""
        return self.find_text(facts.MODEL)

    def find_text(self, fact: str) -> str | None:
        """Return a fact that is not a number, in its written form if it is not a text; None: not stated."""
        value = self.values.get(fact)
        return value.decode(errors="replace") if isinstance(value, bytes) else cast("str | None", value)

    def drop_numbers(self) -> "StatedCounts":
        """Return the stated facts without the numbers."""
        texts = {fact: value for fact, value in self.values.items() if fact not in NUMBERS}
        return StatedCounts(texts, self._may_lack_output, self._has_output)

    @property
    def has_zero_output(self) -> bool:
        """True if an output of zero is stated, by its own number or by the total."""
        values = self.values
        if facts.UNITS in values:
            return False  # It is charged by something else.
        return not self.resolve().output and (values.get(OUTPUT) == 0 or (self.has_numbers and not self.total))

    def drop_zero_output(self) -> "StatedCounts":
        """Return the stated facts without an output of zero: the input, if it is more."""
        if not self.resolve().input:
            return self.drop_numbers()
        lost = (OUTPUT, THOUGHTS_BESIDE, TOTAL)
        return StatedCounts({fact: value for fact, value in self.values.items() if fact not in lost}, False)

    @property
    def has_numbers(self) -> bool:
        """True if any number of tokens, or another amount, is stated."""
        return not NUMBERS.isdisjoint(self.values)


def _get_part(counts: StatedCounts, fact: str) -> int:
    """Return a number that is a part of another, 0 if it is not stated."""
    part = counts.values.get(fact, 0)
    return part if isinstance(part, int) else 0


def _sum_parts(counts: StatedCounts, within: str, beside: str) -> int:
    """Return tokens that are stated as a part of the prompt or beside it."""
    parts = _get_part(counts, within), _get_part(counts, beside)
    # Gateways state the tokens of a cache twice, in the forms of two providers.
    return max(parts) if counts.rule == WITHIN else sum(parts)


def _find_cached(counts: StatedCounts) -> int | None:
    if counts.input is None:
        return None
    values = counts.values
    return _sum_parts(counts, CACHED, CACHED_BESIDE) if CACHED in values or CACHED_BESIDE in values else 0


def _find_rest(counts: StatedCounts, *taken: int | None) -> int | None:
    """Return the rest of the input; more may be taken than there was, in an answer that contradicts itself."""
    return None if counts.input is None else max(0, counts.input - sum([each or 0 for each in taken]))


def _find_written(counts: StatedCounts) -> int | None:
    return None if counts.input is None else _sum_parts(counts, facts.WRITTEN, WRITTEN_BESIDE)


Find = Callable[[StatedCounts], int | None]


def _find_input_part(fact: str) -> Find:
    return lambda counts: None if counts.input is None else _get_part(counts, fact)


def _find_output_part(*parts: str) -> Find:
    return lambda counts: None if counts.output is None else sum([_get_part(counts, fact) for fact in parts])


FIND: Final[Mapping[str, Find]] = {
    "input_tokens": lambda counts: counts.input,
    "cached_tokens": _find_cached,
    "cache_write_tokens": _find_written,
    "uncached_tokens": lambda counts: _find_rest(counts, _find_cached(counts)),
    "fresh_tokens": lambda counts: _find_rest(counts, _find_cached(counts), _find_written(counts)),
    "audio_input_tokens": _find_input_part(facts.AUDIO_IN),
    "image_input_tokens": _find_input_part(facts.IMAGE_IN),
    "output_tokens": lambda counts: counts.output,
    "reasoning_tokens": _find_output_part(facts.THOUGHTS, THOUGHTS_BESIDE),
    "audio_output_tokens": _find_output_part(facts.AUDIO_OUT),
    "image_output_tokens": _find_output_part(facts.IMAGE_OUT),
    "total_tokens": lambda counts: counts.total,
}
"""The number of each count, once it is resolved and all of its facts are readable; None if it is not stated."""


def get_finder(count: str) -> Find:
    """Return the function that finds a count, or the number at a path, in counts that are resolved."""
    find = FIND.get(count)
    return (lambda counts: counts.find_number(count)) if find is None else find
