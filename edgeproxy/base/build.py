"""The running build: the .py files, or the modules of compiled.txt compiled from them.

A compiled installation has both, and Python prefers compiled modules. EDGEPROXY_PURE=1 makes it run the .py files.
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
"""One of the compiled modules. Either all of them are compiled or none."""


class SourceFinder:
    """Finds the modules of this package in their .py files only."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module for `sys.meta_path`. None: the module is in another package."""
        if path is None or not name.startswith("edgeproxy."):
            return None
        for folder in path:
            spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name, target)
            if spec is not None:
                return spec
        return None


def run_sources() -> None:
    """From now on import the modules of this package from their .py files, even if they are compiled."""
    sys.meta_path.insert(0, SourceFinder)


def describe_build() -> str:
    """Return the build that this process runs: `compiled` or `pure`."""
    spec = find_spec(SAMPLE)
    assert spec is not None
    assert spec.origin is not None
    return COMPILED if spec.origin.endswith(tuple(EXTENSION_SUFFIXES)) else PURE
