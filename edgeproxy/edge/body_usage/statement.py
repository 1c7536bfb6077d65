"""The counts of an answer, by the facts that it states.

The counts are the same for all dialects: `input_tokens` are those of the whole prompt, `cached_tokens` those among them
that were read from a cache, `uncached_tokens` the others, `output_tokens` all that the model generated, thinking
included, and `total_tokens` input and output. OpenTelemetry's conventions for generative AI count the same way.

Parts and total are checked against each other. Where they disagree, a rule decides: `StatedCounts.rule`.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from edgeproxy.edge.body_usage import dialects as facts

NUMBER_MAX: Final = 10**12
"""The largest number that is taken from an answer: a service that errs by more must not fill up a counter."""
DIGITS_MAX: Final = len(str(NUMBER_MAX))

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
"""The counts, and the facts of each: a count is not stated where one of them is no number."""

REASONING_BESIDE: Final = "reasoning beside"
"""The total is more than the parts by the reasoning, which is therefore no part of the output."""
INPUT_BESIDE: Final = "input beside"
"""The total is more than the parts by tokens of a cache, which are therefore no part of the prompt."""
SURPLUS: Final = "surplus"
"""The total is more than the parts by what is stated nowhere: it counts as output."""
PARTS: Final = "parts"
"""The total is less than the parts, which count."""
WITHIN: Final = "within"
"""The total shows that tokens which stand beside others in this dialect are parts of them."""

NUMBERS: Final = frozenset(facts.NUMBERS)
CHECKED: Final = frozenset((facts.PROMPT, facts.OUTPUT, facts.TOTAL))
BESIDE_INPUT: Final = ((facts.CACHED,), (facts.WRITTEN,), (facts.CACHED, facts.WRITTEN))
"""Parts of the prompt that may turn out to stand beside it."""


class Resolved:
    """The numbers that facts come to. `input` is the whole prompt; `cached` and `written` are parts of it."""

    __slots__ = ("cached", "input", "output", "reasoning", "rule", "stated", "total", "written")

    def __init__(self, stated: Mapping[str, int], *, may_lack_output: bool, has_output: bool) -> None:
        """`may_lack_output`: an answer with a prompt and no output has generated nothing. `has_output`: its operation
        generates something; where it does not, a total alone is input."""
        get = stated.get
        prompt, output, total = get(facts.PROMPT), get(facts.OUTPUT), get(facts.TOTAL) or None
        cached_beside, written_beside = get(facts.CACHED_BESIDE, 0), get(facts.WRITTEN_BESIDE, 0)
        thoughts_beside = get(facts.THOUGHTS_BESIDE, 0)
        if prompt is None and output is None and total is None and facts.UNITS in stated:
            prompt = output = 0  # It is charged by something else.
        if output is None and thoughts_beside:
            output = 0
        input_ = None if prompt is None else prompt + cached_beside + written_beside + get(facts.TOOLS_BESIDE, 0)
        if output is not None:
            output += thoughts_beside
        self.rule = ""
        if total is None:
            if input_ is not None and output is None and (may_lack_output or not has_output):
                output = 0
            if input_ is not None and output is not None:
                total = input_ + output
        elif input_ is None or output is None or input_ + output != total:
            input_, output, self.rule = _reconcile(stated, (prompt, input_, output), total, has_output=has_output)
            total = max(total, (input_ or 0) + (output or 0))
        self.stated, self.input, self.output, self.total = stated, input_, output, total
        cached, written = get(facts.CACHED, 0), get(facts.WRITTEN, 0)
        # Gateways state the tokens of a cache twice, in the forms of two providers.
        is_twice = self.rule == WITHIN
        self.cached = max(cached, cached_beside) if is_twice else cached + cached_beside
        self.written = max(written, written_beside) if is_twice else written + written_beside
        self.reasoning = get(facts.THOUGHTS, 0) + thoughts_beside


def _get_part(fact: str) -> Callable[[Resolved], int]:
    return lambda resolved: resolved.stated.get(fact, 0)


OF_INPUT: Final[Mapping[str, Callable[[Resolved], int | None]]] = {
    "input_tokens": lambda resolved: resolved.input,
    "cached_tokens": lambda resolved: resolved.cached,
    "cache_write_tokens": lambda resolved: resolved.written,
    # More may be cached than the prompt had, in an answer that contradicts itself.
    "uncached_tokens": lambda resolved: max(0, (resolved.input or 0) - resolved.cached),
    "fresh_tokens": lambda resolved: max(0, (resolved.input or 0) - resolved.cached - resolved.written),
    "audio_input_tokens": _get_part(facts.AUDIO_IN),
    "image_input_tokens": _get_part(facts.IMAGE_IN),
}
OF_OUTPUT: Final[Mapping[str, Callable[[Resolved], int | None]]] = {
    "output_tokens": lambda resolved: resolved.output,
    "reasoning_tokens": lambda resolved: resolved.reasoning,
    "audio_output_tokens": _get_part(facts.AUDIO_OUT),
    "image_output_tokens": _get_part(facts.IMAGE_OUT),
}
"""The numbers of counts that are stated with the input, and with the output."""


def _reconcile(
    stated: Mapping[str, int], parts: tuple[int | None, int | None, int | None], total: int, *, has_output: bool
) -> tuple[int | None, int | None, str]:
    """Return input and output as a total decides that is not their sum, and the rule.

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


class StatedCounts:
    """The counts that an answer states, by name, or by `format_path` where they are asked for by their path."""

    __slots__ = ("_has_output", "_may_lack_output", "_resolved", "_unreadable", "values")

    def __init__(self, values: dict[str, bytes], *, may_lack_output: bool = True, has_output: bool = True) -> None:
        self.values = values
        """The facts that were found, as they are written."""
        self._may_lack_output, self._has_output = may_lack_output, has_output
        self._resolved: Resolved | None = None
        self._unreadable: dict[str, bytes] | None = None

    def _resolve(self) -> Resolved:
        """Return the numbers, computed once."""
        if self._resolved is not None:
            return self._resolved
        stated: dict[str, int] = {}
        for fact, written in self.values.items():
            if fact in NUMBERS:
                number = parse_whole_number(written)
                if number is None:
                    self._unreadable = {**(self._unreadable or {}), fact: written}
                    number = 0
                stated[fact] = number
        if self._unreadable is not None and not self._unreadable.keys().isdisjoint(CHECKED):
            stated.pop(facts.TOTAL, None)  # It can be checked against nothing.
        self._resolved = Resolved(stated, may_lack_output=self._may_lack_output, has_output=self._has_output)
        return self._resolved

    def find_number(self, count: str) -> int | None:
        """Return the number of a count; None where it is not stated, or is no whole number from 0 to NUMBER_MAX."""
        if count not in COUNTS:
            written = self.values.get(count)
            return None if written is None else parse_whole_number(written)
        resolved = self._resolve()
        if self._unreadable is not None and self.find_unreadable(count) is not None:
            return None
        if count in OF_OUTPUT:
            return None if resolved.output is None else OF_OUTPUT[count](resolved)
        if count in OF_INPUT:
            return None if resolved.input is None else OF_INPUT[count](resolved)
        return resolved.total

    def find_unreadable(self, count: str) -> bytes | None:
        """Return what is written in the place of a number of this count, where that is none."""
        if count not in COUNTS:
            written = self.values.get(count)
            return None if written is None or parse_whole_number(written) is not None else written
        self._resolve()
        unreadable = self._unreadable
        return (
            None
            if unreadable is None
            else next((unreadable[fact] for fact in COUNTS[count] if fact in unreadable), None)
        )

    @property
    def rule(self) -> str:
        """The rule by which parts and total agree; empty where they do as they are stated."""
        return self._resolve().rule

    @property
    def model(self) -> bytes | None:
        """The model, as UTF-8 if it is a text; None: not stated."""
        return parse_text(self.values.get(facts.MODEL))

    def find_text(self, fact: str) -> bytes | None:
        """Return a fact that is no number, as UTF-8 if it is a text; None: not stated."""
        return parse_text(self.values.get(fact))

    @property
    def has_numbers(self) -> bool:
        """Whether any number of tokens, or another amount, is stated."""
        return any(fact in self.values for fact in facts.NUMBERS)


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
