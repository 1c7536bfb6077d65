"""Sections whose names are written wrong: read as what is meant, so that a slip is one problem and hides no other."""

from collections.abc import Collection

from edgeproxy.config.explain import MISPLACED
from edgeproxy.config.nearest import find_nearest
from edgeproxy.config.tree import Table


def find_misspelled_sections(tree: Table, known: Collection[str]) -> dict[str, str]:
    """Return the unknown sections of a tree, by what is meant: the nearest known name, if that is not there too."""
    meant: dict[str, str] = {}
    for name in tree:
        if name not in known and name not in MISPLACED:
            section = find_nearest(name, known)
            if section is not None and section not in tree:
                meant.setdefault(section, name)
    return meant


def correct_sections(tree: Table, meant: dict[str, str]) -> Table:
    """Return a tree with its misspelled sections under the names that are meant."""
    written = {name: section for section, name in meant.items()}
    return Table({written.get(name, name): value for name, value in tree.items()}, tree.marks)
