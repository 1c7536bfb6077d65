"""Runs of lines with one flat mapping each, as large files list customers and keys.

A YAML parser spends some ten microseconds on each such line, so a hundred thousand of them take seconds. A run is read
by regular expressions instead, and the parser gets one entry in its place:

```yaml
customers:
  acme: {tier: pro}
keys:
  - {sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae, customer: acme}
```

The lines of a run are equally indented, and have only texts that need no quotes. The parser decides whether the entry
is one of a block mapping or list: within a quoted text, for example, it is none. Then the file is read without runs.
"""

import re
from bisect import bisect_left
from typing import NamedTuple

from edgeproxy.config.tree import FlatTable

RUN_LINES_MIN = 32
"""Minimum lines of a run."""
RUN_LINES_MAX = 256
"""Maximum lines of a run: a search remembers each of its lines. The next line begins another run."""

PLACEHOLDER = "edgeproxy-run-of-lines"
"""The name of an entry in place of a run."""

NAME = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
FIELD = "[a-z][a-z0-9_]{0,63}"
TEXT = "(?!(?:null|Null|NULL)[,}])[A-Za-z0-9][A-Za-z0-9_.-]*+"
"""A text without quotes. YAML reads null as no value."""
BODY = rf"\{{{FIELD}: {TEXT}(?:, {FIELD}: {TEXT})*\}}"
MORE_LINES = f"{{{RUN_LINES_MIN - 1},{RUN_LINES_MAX - 1}}}"
RUN = re.compile(
    rf"^( *)(?:{NAME}: {BODY}\n(?:\1{NAME}: {BODY}\n){MORE_LINES}|- {BODY}\n(?:\1- {BODY}\n){MORE_LINES})",
    re.MULTILINE,
)
NAMED = re.compile(rf"^ *({NAME}): \{{(.*)\}}$", re.MULTILINE)
BODIES = re.compile(r"\{(.*)\}")
TWO_FIELDS = re.compile(rf"\{{({FIELD}): [^,]+, ({FIELD}): [^,}}]+\}}$")
OTHER_BREAKS = re.compile("[\r\x85\u2028\u2029]")
"""Line breaks besides the line feed, which YAML counts as lines too."""


class InvalidRunError(Exception):
    """A run that must be read by the YAML parser, for example because it has a name twice."""


class Run(NamedTuple):
    """A run of lines. `names` is empty for members of a list."""

    column: int
    """The column of the entry in its place, from 0."""
    names: list[str]
    tables: list[FlatTable]


class ReducedText(NamedTuple):
    """A text with one entry in the place of each run."""

    text: str
    runs: list[Run]
    lines: list[int]
    """The lines of these entries in the text, from 0."""
    shifts: list[int]
    """The number of lines left out before each run, and at the end the number of all."""

    def restore_line(self, line: int) -> int:
        """Return the line of the original text, from 0, for a line of this one."""
        return line + self.shifts[bisect_left(self.lines, line)]


def reduce_text(text: str) -> ReducedText | None:
    """Return a text without its runs. None: it has no runs.

    Raises InvalidRunError if the YAML parser must read the whole text.
    """
    runs: list[Run] = []
    lines: list[int] = []
    shifts: list[int] = []
    pieces: list[str] = []
    tables: dict[str, FlatTable] = {}
    end = line = shift = 0
    for match in RUN.finditer(text):
        before, run = text[end : match.start()], _parse_run(match[0], len(match[1]), tables)
        line += before.count("\n")
        lines.append(line)
        shifts.append(shift)
        entry = f"{match[1]}{PLACEHOLDER}: {len(runs)}\n" if run.names else f"{match[1]}- {PLACEHOLDER}-{len(runs)}\n"
        pieces += (before, entry)
        end, line, shift = match.end(), line + 1, shift + len(run.tables) - 1
        runs.append(run)
    if not runs:
        return None
    reduced = "".join((*pieces, text[end:]))
    if reduced.count(PLACEHOLDER) > len(runs) or OTHER_BREAKS.search(reduced):
        raise InvalidRunError
    return ReducedText(reduced, runs, lines, [*shifts, shift])


def _parse_run(text: str, indent: int, shared: dict[str, FlatTable]) -> Run:
    """Return the tables of a run's lines. Equal named ones are one object, in `shared`. Raises InvalidRunError."""
    if not text.startswith("- ", indent):
        names, bodies = zip(*NAMED.findall(text), strict=True)
        for body in set(bodies).difference(shared):
            shared[body] = _parse_body(body)
        return Run(indent, list(names), [shared[body] for body in bodies])
    # Most keys have two fields, and their names are equal in all lines.
    two = TWO_FIELDS.search(text[: text.index("\n")])
    first, second = two.groups() if two else ("", "")
    values = re.findall(rf"\{{{first}: ([^,]++), {second}: ([^,}}]++)\}}\n", text)
    if first == second or len(values) < text.count("\n"):
        return Run(indent + 2, [], [_parse_body(body) for body in BODIES.findall(text)])
    return Run(indent + 2, [], [FlatTable(((first, one), (second, other))) for one, other in values])


def _parse_body(body: str) -> FlatTable:
    fields = [field.split(": ", 1) for field in body.split(", ")]
    table: FlatTable = FlatTable((name, value) for name, value in fields)
    if len(table) != len(fields):
        raise InvalidRunError
    return table
