"""`${VAR}` and `${VAR:-default}` in the scalars of a configuration; `$${` stands for a plain `${`.

As in a shell the default holds for a variable that is unset *or empty*. What comes from the environment stays
inside its scalar: it is put in after the file was parsed, and is not looked at again.
"""

import re
from collections.abc import Mapping

REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-((?:(?!\$\{)[^}])*))?\}|\$\{")

NOT_TEXT = re.compile("[\ud800-\udfff]")
"""Surrogates, which Python makes of bytes that are not UTF-8."""


class UnresolvedVariableError(Exception):
    """A reference that cannot be resolved: what is wrong, and what would be right."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint


def resolve_variables(written: str, environ: Mapping[str, str]) -> str:
    """Replace every reference in `written`; raises UnresolvedVariableError at the first that cannot be."""

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        if match[0] == "$${":
            return "${"
        if name is None:
            raise UnresolvedVariableError(
                "has a ${ that begins no variable", "write ${NAME} or ${NAME:-default}, $${ for a plain ${"
            )
        current = environ.get(name)
        if current is not None and NOT_TEXT.search(current):
            raise UnresolvedVariableError(f"the variable {name} is not UTF-8", "set it to text")
        if default is not None:
            return current or default
        if current is None:
            raise UnresolvedVariableError(
                f"the environment has no variable {name}", f"set it, or write ${{{name}:-default}}"
            )
        return current

    return REFERENCE.sub(value, written)
