"""A strict reader of structured fields (RFC 9651), for the parts that the edge's RateLimit fields use.

It reads lists of strings or tokens. Their parameters are integers, strings, tokens or booleans.
"""

import re
from typing import NamedTuple

ITEM = re.compile(
    r"""
    (?P<integer> -?\d{1,15} (?![\d.]) )
    | " (?P<string> (?: [\ !\#-\[\]-~] | \\["\\] )* ) "
    | (?P<token> [A-Za-z*] [\w!\#$%&'*+\-.^`|~:/]* )
    | \? (?P<boolean> [01] )
    """,
    re.ASCII | re.VERBOSE,
)
KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*")
Bare = int | str | bool


class Item(NamedTuple):
    """A value and its parameters, in their order."""

    value: Bare
    parameters: dict[str, Bare]


def parse_list(text: str) -> list[Item]:
    """Return the members of a list. Raises ValueError if the text is not a list."""
    text = text.strip(" ")
    members = []
    at = 0
    while at < len(text):
        member, at = _item(text, at)
        members.append(member)
        comma = re.compile(r"[ \t]*,[ \t]*").match(text, at)
        if comma is None:
            break
        at = comma.end()
        if at == len(text):
            raise ValueError(f"a comma at the end: {text!r}")
    if at != len(text):
        raise ValueError(f"something after the list: {text[at:]!r}")
    return members


def _item(text: str, at: int) -> tuple[Item, int]:
    value, at = _bare(text, at)
    parameters: dict[str, Bare] = {}
    while text.startswith(";", at):
        at += len(text[at + 1 :]) - len(text[at + 1 :].lstrip(" ")) + 1
        key = KEY.match(text, at)
        if key is None:
            raise ValueError(f"no key at {text[at:]!r}")
        at = key.end()
        parameters[key[0]] = True
        if text.startswith("=", at):
            parameters[key[0]], at = _bare(text, at + 1)
    return Item(value, parameters), at


def _bare(text: str, at: int) -> tuple[Bare, int]:
    found = ITEM.match(text, at)
    if found is None:
        raise ValueError(f"no item at {text[at:]!r}")
    kind, written = found.lastgroup, found[str(found.lastgroup)]
    if kind == "integer":
        return int(written), found.end()
    if kind == "boolean":
        return written == "1", found.end()
    return re.sub(r"\\(.)", r"\1", written), found.end()
