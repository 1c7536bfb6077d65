"""Codes of problems (RFC 9457): the error of an answer, in a form that programs can test."""

from typing import Final, NamedTuple

TYPE_BASE: Final = "https://edgeproxy.example/problems/"
"""The beginning of each problem's `type`. docs/usage/problems.md has the page of each."""


class ProblemCode(NamedTuple):
    """A row of a table of problems."""

    name: str
    """The `code` of answers, for example `customer-not-found`. It stays when the sentence of the answer changes."""
    status: int
    """The HTTP status."""
    meaning: str
    """The cause, in one sentence."""
    remedy: str
    """The step that helps, in one sentence."""
    words: str = ""
    """The sentence for readers of pages, with `%(NAME)s` for each parameter; empty for problems of programs alone."""
    has_reason: bool = False
    """True if the reason varies, and the words do not say it. Pages show the `detail` of the answer after the words."""

    @property
    def type(self) -> str:
        """Return the `type` of answers."""
        return TYPE_BASE + self.name
