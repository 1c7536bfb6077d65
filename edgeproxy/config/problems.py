"""What is wrong with a configuration: every problem at once, each with its place and what would be right."""

import re
from collections.abc import Iterable
from typing import NamedTuple

PLAIN = re.compile(r"[A-Za-z0-9_-]+")

Steps = tuple[str | int, ...]
"""The way from the top of the configuration to a value: field names, names, and indexes in lists."""


class Problem(NamedTuple):
    """One thing that is wrong, in the form of the contract: `file:line: field.path: what, hint`.

    `file` is empty for what was given on the command line, whose `field` is the option.
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
    """A configuration that cannot be used. `problems`: all of them, in the order of files and lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def format_path(path: Steps) -> str:
    """Write a path as errors do: `tiers.basic.limits.0`. Steps that are no names are quoted."""
    return ".".join(str(step) if PLAIN.fullmatch(str(step)) else repr(step)[:60] for step in path)
