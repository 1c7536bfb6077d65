"""Patterns of paths: regular expressions whose matching takes time linear in the path.

Python's matcher backtracks, so most patterns are not safe for paths that clients choose. Patterns here are
deterministic: at each choice, the next bytes leave one way open. docs/edge/rewrites.md#safe-patterns has the argument.
The analysis reads the tree that `re` itself compiles, so both agree about the meaning of a pattern.
"""

import re
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Final, NamedTuple, TypeAlias

PATTERN_CHARACTERS_MAX: Final = 300
TAIL_BYTES_MAX: Final = 64
"""Bytes that may follow, at most, the one repeat of a pattern that overlaps with what follows. Those of alternatives
are added up, because the matcher tries each of them.
"""

ALL: Final = frozenset(range(256))
END: Final = 256
"""Stands for the end of the path among the bytes that may follow."""
DIGITS: Final = frozenset(b"0123456789")
SPACES: Final = frozenset(b" \t\n\r\f\v")
WORD: Final = DIGITS | frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
CATEGORIES: Final = {
    ops.CATEGORY_DIGIT: DIGITS,
    ops.CATEGORY_NOT_DIGIT: ALL - DIGITS,
    ops.CATEGORY_SPACE: SPACES,
    ops.CATEGORY_NOT_SPACE: ALL - SPACES,
    ops.CATEGORY_WORD: WORD,
    ops.CATEGORY_NOT_WORD: ALL - WORD,
}
REFUSED: Final = {
    ops.ASSERT: "a lookaround",
    ops.ASSERT_NOT: "a lookaround",
    ops.GROUPREF: "a back-reference",
    ops.GROUPREF_EXISTS: "a condition",
    ops.AT: "an anchor inside",
    ops.ATOMIC_GROUP: "an atomic group",
    ops.POSSESSIVE_REPEAT: "a possessive repeat",
}
"""Parts of Python's expressions that patterns cannot have."""

HINT: Final = "such as /users/([0-9]+)/(.*)"
EXCLUDE: Final = "let a repeat exclude what follows it: [^/]* before /, not .*"

Items: TypeAlias = parser.SubPattern
"""A sequence of the parser: pairs of an operation and its arguments. The parser states no types."""
Arguments: TypeAlias = parser.SubPattern
"""The arguments of an operation, for example a sequence."""


class UnsafePatternError(ValueError):
    """A pattern that cannot be used. The text is for the operator."""

    def __init__(self, problem: str, hint: str = HINT) -> None:
        super().__init__(problem)
        self.problem, self.hint = problem, hint


class Shape(NamedTuple):
    """The bytes with which a part may begin, whether it may be empty, and its bytes to compare at most.

    `width` is the longest match in bytes, but with all alternatives in place of the longest one.
    """

    first: frozenset[int]
    may_be_empty: bool
    width: float

    def begin(self, follow: frozenset[int]) -> frozenset[int]:
        """Return the bytes at the beginning of this part and of everything behind it."""
        return self.first | follow if self.may_be_empty else self.first


EMPTY: Final = Shape(frozenset(), may_be_empty=True, width=0)


def compile_pattern(text: str) -> re.Pattern[bytes]:
    """Return the compiled pattern, for whole paths. Raises UnsafePatternError if it is invalid or not deterministic."""
    if len(text) > PATTERN_CHARACTERS_MAX:
        raise UnsafePatternError(f"has {len(text)} characters", f"at most {PATTERN_CHARACTERS_MAX}")
    if not text.isascii():
        raise UnsafePatternError("has characters beyond ASCII", "paths have these percent-encoded: %C3%A4")
    pattern = text.encode()
    try:
        tree = parser.parse(pattern, re.DOTALL)
        items = list(tree)
        if items and items[0] == (ops.AT, ops.AT_BEGINNING):
            del items[0]
        if items and items[-1] == (ops.AT, ops.AT_END):
            del items[-1]
        if tree.state.flags != re.DOTALL:
            raise UnsafePatternError("has a flag such as (?i)", "write both letters: [aA]")
        _Analysis().check(items, frozenset((END,)), 0, is_spine=True)
        return re.compile(pattern, re.DOTALL)
    except (re.error, OverflowError) as error:
        raise UnsafePatternError(f"is no regular expression: {error}") from None


def _find_single(operation: object, arguments: Arguments) -> frozenset[int] | None:
    """Return the bytes of a part that is always one byte; None for another part."""
    if operation is ops.LITERAL:
        return frozenset((arguments,))
    if operation is ops.NOT_LITERAL:
        return ALL - {arguments}
    if operation is ops.ANY:
        return ALL
    if operation is not ops.IN:
        return None
    members: set[int] = set()
    for kind, value in arguments:
        if kind is ops.LITERAL:
            members.add(value)
        elif kind is ops.RANGE:
            members.update(range(value[0], value[1] + 1))
        elif kind is ops.CATEGORY:
            members |= CATEGORIES[value]
    return ALL - members if arguments[0][0] is ops.NEGATE else frozenset(members)


class _Analysis:
    """The analysis of one pattern."""

    def __init__(self) -> None:
        self._shapes: dict[int, Shape] = {}
        """The shapes of sequences, by the id of the sequence."""
        self._has_overlap = False
        """True once a repeat has used the one exception."""

    def check(self, items: Items, follow: frozenset[int], tail: float, *, is_spine: bool) -> None:
        """Check a sequence. `follow` are the bytes that may come behind it, and `tail` is their greatest number.

        `is_spine`: each match has this sequence exactly once, so it is in no repeat and in no alternative. Raises
        UnsafePatternError.
        """
        for operation, arguments in reversed(list(items)):
            if operation in (ops.MAX_REPEAT, ops.MIN_REPEAT):
                self._check_repeat(arguments, follow, tail, is_spine=is_spine)
            elif operation is ops.SUBPATTERN:
                self.check(arguments[3], follow, tail, is_spine=is_spine)
            elif operation is ops.BRANCH:
                self._check_branch(arguments[1], follow, tail)
            shape = self._measure_part(operation, arguments)
            follow = shape.begin(follow)
            tail += shape.width

    def _check_repeat(self, arguments: Arguments, follow: frozenset[int], tail: float, *, is_spine: bool) -> None:
        least, most, items = arguments
        shape = self._measure(items)
        if shape.may_be_empty:
            raise UnsafePatternError("repeats a part that may be empty", "write (?:ab)* for (?:a?b?)*")
        overlap = shape.first & follow
        if least != most and overlap:
            # One repeat of single bytes may stop anywhere if little follows: each stop costs as much as what follows.
            is_bearable = is_spine and shape.width == 1 and len(items) == 1 and _find_single(*items[0]) is not None
            if not is_bearable or tail > TAIL_BYTES_MAX or self._has_overlap:
                raise UnsafePatternError(
                    f"has a repeat that may take {_name(overlap)}, and so may what follows", EXCLUDE
                )
            self._has_overlap = True
        again = follow | shape.first if most > 1 else follow
        self.check(items, again, float("inf"), is_spine=False)

    def _check_branch(self, branches: list[Items], follow: frozenset[int], tail: float) -> None:
        for position, items in enumerate(branches):
            self.check(items, follow, tail, is_spine=False)
            for other in branches[:position]:
                self._compare(other, items, follow)

    def _compare(self, one: Items, other: Items, follow: frozenset[int]) -> None:
        """Raise UnsafePatternError unless the bytes after equal beginnings tell two alternatives apart."""
        same = 0
        while same < min(len(one), len(other)):
            single = _find_single(*one[same])
            if single is None or single != _find_single(*other[same]):
                break
            same += 1
        overlap = self._measure_rest(one, same).begin(follow) & self._measure_rest(other, same).begin(follow)
        if overlap:
            raise UnsafePatternError(
                f"has alternatives that may both go on with {_name(overlap)}", "let the next byte tell them apart"
            )

    def _measure(self, items: Items) -> Shape:
        """Return the shape of a sequence."""
        known = self._shapes.get(id(items))
        if known is None:
            known = self._shapes[id(items)] = self._measure_rest(items, 0)
        return known

    def _measure_rest(self, items: Items, begin: int) -> Shape:
        whole = EMPTY
        for operation, arguments in reversed(list(items)[begin:]):
            part = self._measure_part(operation, arguments)
            whole = Shape(part.begin(whole.first), part.may_be_empty and whole.may_be_empty, part.width + whole.width)
        return whole

    def _measure_part(self, operation: object, arguments: Arguments) -> Shape:
        single = _find_single(operation, arguments)
        if single is not None:
            return Shape(single, may_be_empty=False, width=1)
        if operation is ops.SUBPATTERN:
            _, added, removed, items = arguments
            if added or removed:
                raise UnsafePatternError("has a flag such as (?i:", "write both letters: [aA]")
            return self._measure(items)
        if operation is ops.BRANCH:
            shapes = [self._measure(items) for items in arguments[1]]
            first = frozenset[int]().union(*(shape.first for shape in shapes))
            # An empty alternative is a step of the matcher too.
            width = sum(max(1, shape.width) for shape in shapes)
            return Shape(first, any(shape.may_be_empty for shape in shapes), width)
        if operation in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            least, most, items = arguments
            shape = self._measure(items)
            if most == 0:
                return EMPTY
            width = float("inf") if most is ops.MAXREPEAT else shape.width * most
            return Shape(shape.first, least == 0 or shape.may_be_empty, width)
        raise UnsafePatternError(f"has {REFUSED.get(operation, 'a part that is not supported')}")


def _name(overlap: frozenset[int]) -> str:
    """Return one of these bytes for the operator, a usual one if possible."""
    byte = next((each for each in b"/.-a0" if each in overlap), min(overlap))
    return "the end" if byte == END else f"`{chr(byte)}`"
