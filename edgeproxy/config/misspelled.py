"""Misspelled names of sections. They are read as the correct ones, so that one slip hides no other problem."""

from collections.abc import Collection

from edgeproxy.config.explain import MISPLACED
from edgeproxy.config.nearest import find_nearest
from edgeproxy.config.tree import Table


def find_misspelled_sections(tree: Table, known: Collection[str]) -> dict[str, str]:
    """Return the unknown sections of a tree by the nearest known name, unless that exists too."""
    meant: dict[str, str] = {}
    for name in tree:
        if name not in known and name not in MISPLACED:
            section = find_nearest(name, known)
            if section is not None and section not in tree:
                meant.setdefault(section, name)
    return meant


def correct_sections(tree: Table, meant: dict[str, str]) -> Table:
    """Return a tree with its misspelled sections under their correct names."""
    written = {name: section for section, name in meant.items()}
    return Table({written.get(name, name): value for name, value in tree.items()}, tree.marks)
