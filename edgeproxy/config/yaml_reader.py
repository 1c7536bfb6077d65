"""The parser of one YAML file into a tree.

It uses the parser's events (libyaml's if PyYAML has it). Nodes with their marks would need ten times the memory and
time, which matters with a hundred thousand keys.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from edgeproxy.config.environment import UnresolvedVariableError, resolve_variables
from edgeproxy.config.problems import Steps
from edgeproxy.config.secret_text import read_secret_file
from edgeproxy.config.tree import FlatTable, Items, Mark, Report, Table, Value
from edgeproxy.config.units import format_value
from edgeproxy.config.yaml_runs import PLACEHOLDER, InvalidRunError, ReducedText, Run, reduce_text

Events = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Event = Any
"""An event of PyYAML. Each kind has other attributes. Its types call the marks optional, but they always exist."""

DEPTH_MAX = 24
"""Maximum levels of lists and mappings in one file."""
ALIASED_VALUES_MAX = 100_000
"""Maximum values that all aliases of one file may expand to. A bomb expands to billions."""
REMEMBERED_TEXTS_MAX = 1024
"""Maximum texts remembered for reuse while a file is read. Most are names of fields and tiers."""

NOTHING = {"", "~", "null", "Null", "NULL"}
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PRINTABLE_ASCII = bytes((*b"\t\n\r", *range(0x20, 0x7F)))
INDENTED_BY_TAB = re.compile(r" *\t")
UNQUOTED = re.compile(r"(?:^|[\s\[{,])[@`%]")


class InvalidYamlError(Exception):
    """A file that edgeproxy cannot read as YAML: the line, the problem and a hint."""

    def __init__(self, line: int, what: str, hint: str) -> None:
        super().__init__(line, what, hint)
        self.line = line
        self.what = what
        self.hint = hint


def parse_yaml(
    content: bytes,
    file: int,
    environ: Mapping[str, str],
    report: Report,
    read_secret: Callable[[str], str] = read_secret_file,
) -> Table:
    """Read the mapping at the top of a file. `file` is its number among the files.

    Raises InvalidYamlError if it is not YAML or not a mapping. Problems that leave the rest readable (duplicate fields,
    empty values, unset variables) are reported, and these values are left out. `read_secret` returns the secret of a
    file.
    """
    text = decode_yaml(content)
    try:
        reduced = reduce_text(text)
        if reduced is not None:
            return _parse_reduced(reduced, file, environ, report, read_secret)
    except (InvalidRunError, InvalidYamlError, yaml.MarkedYAMLError):
        pass  # Without runs the file is right, or its problem has another place.
    try:
        return TreeBuilder(content, file, environ, report, read_secret).read_document()
    except yaml.MarkedYAMLError as error:
        raise create_yaml_error(error, text) from None


def _parse_reduced(
    reduced: ReducedText, file: int, environ: Mapping[str, str], report: Report, read_secret: Callable[[str], str]
) -> Table:
    """Read a text without its runs, and add these. Nothing is reported unless it can be read.

    Raises InvalidRunError, InvalidYamlError or yaml.MarkedYAMLError.
    """
    problems: list[tuple[int, Steps, str, str]] = []
    builder = TreeBuilder(
        reduced.text.encode(), file, environ, lambda *problem: problems.append(problem), read_secret, reduced
    )
    tree = builder.read_document()
    if not builder.has_all_runs:
        raise InvalidRunError
    for problem in problems:
        report(*problem)
    return tree


def decode_yaml(content: bytes) -> str:
    """Decode a file, which must be UTF-8 and printable as YAML requires."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidYamlError(line, f"has the byte 0x{content[error.start]:02x}", "write it in UTF-8") from None
    odd = UNPRINTABLE.search(text) if content.translate(None, PRINTABLE_ASCII) else None
    if odd is not None:
        line = text.count("\n", 0, odd.start()) + 1
        raise InvalidYamlError(line, f"has the control character U+{ord(odd[0]):04X}", "leave it out")
    return text


def create_yaml_error(error: yaml.MarkedYAMLError, text: str) -> InvalidYamlError:
    """Create an error with the problem and its usual cause."""
    lines = text.splitlines() or [""]
    mark = error.problem_mark or error.context_mark
    number = min(mark.line if mark else 0, len(lines) - 1)
    what = f"is not YAML: {error.problem or error.context}"
    if error.context and error.context_mark and error.context_mark.line < number:
        what += f" {error.context} that begins in line {error.context_mark.line + 1}"
    hint = "check the brackets, quotes and indentation before it"
    if INDENTED_BY_TAB.match(lines[number]):
        hint = "indent with spaces: the line begins with a tab"
    elif "${" in lines[number]:
        hint = "put a value with a ${VARIABLE} in quotes where it is within [ ] or { }"
    elif UNQUOTED.search(lines[number]):
        hint = "put a value that begins with @, ` or % in quotes"
    return InvalidYamlError(number + 1, what, hint)


class TreeBuilder:
    """Builds a tree from the events of one file."""

    def __init__(
        self,
        content: bytes,
        file: int,
        environ: Mapping[str, str],
        report: Report,
        read_secret: Callable[[str], str] = read_secret_file,
        reduced: ReducedText | None = None,
    ) -> None:
        """`content` is the text of `reduced` if its runs were left out."""
        self._read_secret = read_secret
        self._reduced = reduced
        self._runs = 0
        """Number of runs that were added."""
        self._next = Events(content).get_event  # Given a str, it would make a copy.
        self._file = file
        self._environ = environ
        self._report = report
        self._path: list[str | int] = []
        self._anchors: dict[str, tuple[Value, int] | None] = {}
        """The value of each anchor and its number of values. None: the end of the anchor is not read yet."""
        self._values = 0
        self._aliased = 0
        self._texts: dict[str, str] = {}
        """The first of equal texts. Later equal ones are dropped."""
        self._marked = 0

    @property
    def has_all_runs(self) -> bool:
        """True if each run that was left out has been added."""
        return self._reduced is None or self._runs == len(self._reduced.runs)

    def read_document(self) -> Table:
        """Read the only document of the file, which may be empty."""
        self._next()
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            return Table()
        event = self._next()
        nothing = isinstance(event, yaml.ScalarEvent) and not event.style and event.value in NOTHING
        value = self._read_value(event) if isinstance(event, yaml.MappingStartEvent) else Table() if nothing else None
        if not isinstance(value, Table):
            raise create_event_error(event, "is not a mapping", "write fields such as `region: eu-west`")
        self._next()
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise create_event_error(event, "has a second document", "leave out the ---, or include another file")
        return value

    def _read_value(self, event: Event) -> Value:
        """Read the value that begins with this event, and consume all its events."""
        if isinstance(event, yaml.AliasEvent):
            return self._resolve_alias(event)
        before = self._values
        self._values += 1
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if event.tag is not None:
            raise create_event_error(event, f"has the tag {format_value(event.tag)}", "leave it out")
        if len(self._path) > DEPTH_MAX:
            raise create_event_error(event, f"is nested more than {DEPTH_MAX} deep", "no field is")
        value: Value
        if isinstance(event, yaml.ScalarEvent):
            value = self._read_scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._read_table(bool(event.flow_style))
        else:
            value = self._read_items(bool(event.flow_style))
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._values - before
        return value

    def _resolve_alias(self, alias: Event) -> Value:
        """Return the value of an alias."""
        name = alias.anchor
        if name not in self._anchors:
            raise create_event_error(alias, f"*{name} stands for nothing", f"write &{name} at what is meant, before it")
        target = self._anchors[name]
        if target is None:
            raise create_event_error(alias, f"*{name} is a part of what it stands for", "write out what is meant")
        value, size = target
        self._values += size
        self._aliased += size
        if self._aliased > ALIASED_VALUES_MAX:
            raise create_event_error(
                alias, f"aliases stand for more than {ALIASED_VALUES_MAX} values", "write them out"
            )
        return value

    def _read_scalar(self, event: Event) -> str | None:
        """Read a scalar and replace its variables. None: one is unset, which is reported."""
        if not event.style and event.value in NOTHING:
            self._report_problem(event, "has no value", "write one, or leave it out")
            return None
        return self._resolve_text(event)

    def _resolve_text(self, event: Event) -> str | None:
        text: str = event.value
        if "${" not in text:
            if len(self._texts) >= REMEMBERED_TEXTS_MAX:
                self._texts.clear()
            return self._texts.setdefault(text, text)
        try:
            return resolve_variables(text, self._environ, self._read_secret)
        except UnresolvedVariableError as error:
            self._report_problem(event, error.what, error.hint)
            return None

    def _read_items(self, is_flow: bool) -> Items:
        items = Items()
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            if isinstance(event, yaml.ScalarEvent) and (run := self._find_run(event, is_flow)) is not None:
                items += run.tables
                items.marks += self._mark_run(event, run)
                continue
            self._path.append(len(items))
            items.append(self._read_value(event))
            items.marks.append(self._mark(event))
            self._path.pop()
        return items

    def _read_table(self, is_flow: bool) -> Table:
        table = Table()
        merged: list[Value] = []
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise create_event_error(event, "has more than a word for a field's name", "write the name")
            if (run := self._find_run(event, is_flow)) is not None:
                self._next()
                names = len(table) + len(run.names)
                table.update(zip(run.names, run.tables, strict=True))
                if len(table) != names:
                    raise InvalidRunError
                table.marks += self._mark_run(event, run)
                continue
            self._path.append(event.value)
            key = self._resolve_text(event)
            self._path[-1] = key or event.value
            value = self._read_value(self._next())
            if not event.style and event.value == "<<":
                merged += value if isinstance(value, Items) else [value]
            elif key is not None and key in table:
                first = Mark.unpack(table.marks[list(table).index(key)]).line
                self._report_problem(event, f"is there already in line {first}", "leave one of them out")
            elif key is not None:
                table.add_field(key, value, self._mark(event))
            self._path.pop()
        for other in merged:
            self._merge(table, other, event)
        return table

    def _merge(self, table: Table, other: Value, end: Event) -> None:
        """Apply YAML's `<<`: add the fields of `other` that `table` does not have."""
        if not isinstance(other, Table):
            raise create_event_error(end, "has a << that is no mapping", "write <<: *NAME, of a mapping")
        if isinstance(other, FlatTable):
            raise InvalidRunError  # It has no marks for the fields of another mapping.
        for (key, value), mark in zip(other.items(), other.marks, strict=True):
            if key not in table:
                table.add_field(key, value, mark)

    def _find_run(self, event: Event, is_flow: bool) -> Run | None:
        """Return the run in whose place the entry of this scalar stands, if any. Raises InvalidRunError."""
        reduced = self._reduced
        if reduced is None or not event.value.startswith(PLACEHOLDER):
            return None
        run = reduced.runs[self._runs]
        self._runs += 1
        start = event.start_mark
        if is_flow or event.style or (start.line, start.column) != (reduced.lines[self._runs - 1], run.column):
            raise InvalidRunError
        self._values += len(run.tables) + sum(map(len, run.tables))
        return run

    def _mark_run(self, event: Event, run: Run) -> range:
        """Return the marks of a run's lines."""
        first = self._mark(event)
        return range(first, first + len(run.tables))

    def _mark(self, event: Event) -> int:
        line = event.start_mark.line
        mark: int = self._file << 32 | (line if self._reduced is None else self._reduced.restore_line(line)) + 1
        if mark != self._marked:
            self._marked = mark
        return self._marked  # All values of a line share one number object.

    def _report_problem(self, event: Event, what: str, hint: str) -> None:
        self._report(self._mark(event), tuple(self._path), what, hint)


def create_event_error(event: Event, what: str, hint: str) -> InvalidYamlError:
    """Create the error at this event."""
    return InvalidYamlError(event.start_mark.line + 1, what, hint)
