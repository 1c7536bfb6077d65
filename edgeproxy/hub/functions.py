"""The hub's scripts as a library of Redis Functions. A privileged user loads it, and all others only call it. Pure.

The name of a library depends on its scripts, so libraries of several versions of edgeproxy exist side by side and never
change.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgeproxy.hub.calls import PREAMBLE, SCRIPTS, Argument, read_script

DIGEST_CHARACTERS = 16


class Library(NamedTuple):
    """A library for `FUNCTION LOAD` (https://redis.io/docs/latest/develop/programmability/functions-intro/)."""

    name: str
    text: bytes
    functions: Mapping[str, str]
    """The names of its functions in Redis, by the names of the scripts."""


def build_library(scripts: Mapping[str, bytes], preamble: bytes = b"") -> Library:
    """Return the library of these scripts by name. Each script has its keys and arguments in KEYS and ARGV.

    `preamble`: definitions that all scripts use.
    """
    parts = [preamble, *(part for name, text in scripts.items() for part in (name.encode(), text))]
    digest = hashlib.sha256(b"\0".join(parts))
    name = f"edgeproxy_{digest.hexdigest()[:DIGEST_CHARACTERS]}"
    functions = {script: f"{name}_{script}" for script in scripts}
    parts = [b"#!lua name=%b\n%b\n" % (name.encode(), preamble.strip())]
    parts += [
        b"redis.register_function('%b', function(KEYS, ARGV)\n%b\nend)\n" % (functions[each].encode(), text.strip())
        for each, text in scripts.items()
    ]
    return Library(name, b"".join(parts), functions)


LIBRARY = build_library({name: read_script(name) for name in SCRIPTS}, read_script(PREAMBLE))
"""The library of this version."""


def format_call(name: str, keys: Sequence[bytes | str], arguments: Sequence[Argument]) -> tuple[Argument, ...]:
    """Return the command that calls the function of a script of this version."""
    return ("FCALL", LIBRARY.functions[name], len(keys), *keys, *arguments)


def is_function_missing(error: Exception) -> bool:
    """Return whether an error of Redis means that a function does not exist."""
    return "Function not found" in str(error)
