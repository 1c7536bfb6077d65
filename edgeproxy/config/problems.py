"""Problems of a configuration: all at once, each with its place and a hint."""

import re
from collections.abc import Iterable
from typing import NamedTuple

PLAIN = re.compile(r"[A-Za-z0-9_-]+")

Steps = tuple[str | int, ...]
"""The path from the top of the configuration to a value: field names, names, and indexes in lists."""


class Problem(NamedTuple):
    """A problem in the documented form: `file:line: field.path: what, hint`.

    `file` is empty for an option of the command line, which is then the `field`.
    """

    file: str
    line: int
    field: str
    what: str
    hint: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file else ""
        return f"{place}{self.field}: {self.what}, {self.hint}"


class ConfigError(Exception):
    """An unusable configuration. `problems`: all of them, in the order of files and lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def format_path(path: Steps) -> str:
    """Format a path as in errors: `tiers.basic.limits.0`. Steps that are not names are quoted."""
    return ".".join(str(step) if PLAIN.fullmatch(str(step)) else repr(step)[:60] for step in path)
