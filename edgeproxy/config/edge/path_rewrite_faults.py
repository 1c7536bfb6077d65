"""Checks of the rewrites of paths by regular expressions."""

from collections.abc import Iterator

from edgeproxy.config.edge.path_patterns import UnsafePatternError, compile_pattern
from edgeproxy.config.edge.rewrites import CAPTURE, list_captures
from edgeproxy.config.problems import Steps
from edgeproxy.config.references import Fault, list_members
from edgeproxy.config.tree import Table


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions in the rewrites of routes and of their fallbacks."""
    for path, route in list_members(tree, "routes"):
        for steps, part in ((path, route), ((*path, "fallback"), route.get("fallback"))):
            rewrite = part.get("rewrite") if isinstance(part, Table) else None
            if isinstance(rewrite, Table):
                yield from _find_regex_faults((*steps, "rewrite"), rewrite)


def _find_regex_faults(path: Steps, rewrite: Table) -> Iterator[Fault]:
    """Find regular expressions without a replacement or beside another change of the path, and unknown captures."""
    regex, replacement = rewrite.get("regex"), rewrite.get("replacement")
    for name, other in (("regex", "replacement"), ("replacement", "regex")):
        if name in rewrite and other not in rewrite:
            yield Fault((*path, name), f"is useless without {other}", f"add {other}, or leave it out")
    if "regex" in rewrite:
        for name in ("strip", "prefix"):
            if name in rewrite:
                yield Fault((*path, name), "cannot be beside regex", "write the whole path in replacement")
    if not isinstance(regex, str) or not isinstance(replacement, str):
        return
    try:
        pattern = compile_pattern(regex)
    except UnsafePatternError:
        return  # The reader reports it.
    for name in filter(CAPTURE.fullmatch, list_captures(replacement)):
        if not (int(name) <= pattern.groups if name.isdecimal() else name in pattern.groupindex):
            hint = "count its groups from 1, or name one: (?P<name>[0-9]+)"
            yield Fault((*path, "replacement"), f"has {{{name}}}, and regex has no such group", hint)
