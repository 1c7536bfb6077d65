"""Variables and secrets in the scalars of a configuration: `${VAR}`, `${VAR:-default}` and `${file:/PATH}`.

`${file:/PATH}` is the secret in a file (secret_text.py). Each reload reads it again. `$${` means a plain `${`. As in a
shell, the default applies if a variable is unset *or empty*. The content of a variable or a file stays inside its
scalar: it is inserted after the configuration was parsed, and is not parsed itself. One line end at the end of either
is left out, because a Secret of Kubernetes made from a file has it.
"""

import re
from collections.abc import Callable, Mapping

from edgeproxy.config.secret_text import InvalidSecretError, read_secret_file

REFERENCE = re.compile(
    r"\$\$\{|\$\{file:(/[^${}\x00-\x1f]+)\}|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-((?:(?!\$\{)[^}])*))?\}|\$\{"
)

A_SECRET_FILE = "a file with the secret in one line, without quotes and spaces"
NOT_TEXT = re.compile("[\ud800-\udfff]")
"""Surrogates, which Python makes from bytes that are not UTF-8."""
LINE_END = re.compile(r"(?<=[^\r\n])\r?\n\Z")
"""One line end. Two of them stay, so that the reader of a secret refuses them."""


class UnresolvedVariableError(Exception):
    """An unresolvable reference: the problem and a hint."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint


OWN_SECRETS = frozenset(
    (
        "EDGEPROXY_ADMIN_TOKEN",
        "EDGEPROXY_DATABASE_FROM",
        "EDGEPROXY_DATABASE_OWNER",
        "EDGEPROXY_DATABASE_TO",
        "EDGEPROXY_FROM_TOKEN",
        "EDGEPROXY_PROBE_KEY",
        "EDGEPROXY_PROBE_TOKEN",
        "EDGEPROXY_TO_TOKEN",
        "EDGEPROXY_TOKEN",
        "STRIPE_SECRET_KEY",
        "STRIPE_WEBHOOK_SECRETS",
        "CLICKHOUSE_PASSWORD",
    )
)
"""Variables with secrets that edgeproxy reads without a reference in its configuration."""
_referenced: set[str] = set()
"""The variables that configurations of this process refer to."""


def build_child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a program that the configuration names, for example the command of a key service.

    It has the variables of the host and of that program. Variables that the configuration refers to are left out,
    because they belong to edgeproxy.
    """
    return {name: value for name, value in environ.items() if name not in OWN_SECRETS and name not in _referenced}


def resolve_variables(
    written: str, environ: Mapping[str, str], read_secret: Callable[[str], str] = read_secret_file
) -> str:
    """Replace every reference in `written`. Raises UnresolvedVariableError at the first unresolvable one.

    `read_secret` returns the secret of a file. It raises InvalidSecretError.
    """

    def value(match: re.Match[str]) -> str:
        file, name, default = match.groups()
        if match[0] == "$${":
            return "${"
        if file is not None:
            try:
                return read_secret(file)
            except InvalidSecretError as error:
                raise UnresolvedVariableError(f"names a file that has no secret: {error}", A_SECRET_FILE) from None
        if name is None:
            raise UnresolvedVariableError(
                "has a ${ that begins no variable",
                "write ${NAME}, ${NAME:-default} or ${file:/PATH}, $${ for a plain ${",
            )
        _referenced.add(name)
        current = environ.get(name)
        if current is not None and NOT_TEXT.search(current):
            raise UnresolvedVariableError(f"the variable {name} is not UTF-8", "set it to text")
        if default is not None:
            return LINE_END.sub("", current or "") or default
        if current is None:
            raise UnresolvedVariableError(
                f"the environment has no variable {name}", f"set it, or write ${{{name}:-default}}"
            )
        return LINE_END.sub("", current)

    return REFERENCE.sub(value, written)
