"""The build that runs: the .py files as they are, or the modules of compiled.txt compiled from them.

Both are in a compiled installation, and Python prefers what is compiled. EDGEPROXY_PURE=1 makes it run the .py files.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from types import ModuleType
from typing import Final

VARIABLE: Final = "EDGEPROXY_PURE"

COMPILED: Final = "compiled"
PURE: Final = "pure"

SAMPLE: Final = "edgeproxy.edge.limits.window"
"""One of the modules that are compiled, all of them or none."""


class SourceFinder:
    """Finds the modules of this package in their .py files only."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module as `sys.meta_path` asks for it; None for those of other packages."""
        if path is None or not name.startswith("edgeproxy."):
            return None
        for folder in path:
            spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name, target)
            if spec is not None:
                return spec
        return None


def run_sources() -> None:
    """Import the modules of this package from their .py files from now on, also where they are compiled."""
    sys.meta_path.insert(0, SourceFinder)


def describe_build() -> str:
    """Return which build this process runs: `compiled` or `pure`."""
    spec = find_spec(SAMPLE)
    assert spec is not None
    assert spec.origin is not None
    return COMPILED if spec.origin.endswith(tuple(EXTENSION_SUFFIXES)) else PURE
