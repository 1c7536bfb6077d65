"""Which build runs, and that a compiled installation can be told to run its .py files."""

from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from pathlib import Path

import pytest

from edgeproxy.base import build
from edgeproxy.base.build import COMPILED, SAMPLE, SourceFinder, describe_build

SOURCES = Path("edgeproxy/compiled.txt")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder as of a compiled installation: a module is there as .py and as .so."""
    (tmp_path / "window.py").write_text("")
    (tmp_path / f"window{EXTENSION_SUFFIXES[0]}").write_text("")
    return str(tmp_path)


def test_source_finder_prefers_source_to_a_compiled_module(folder: str) -> None:
    spec = SourceFinder.find_spec(SAMPLE, [folder])
    assert spec is not None
    assert spec.origin == f"{folder}/window.py"


def test_pure_leaves_other_packages_alone(folder: str) -> None:
    assert SourceFinder.find_spec("other.window", [folder]) is None
    assert SourceFinder.find_spec("edgeproxy.none", [folder]) is None
    assert SourceFinder.find_spec("edgeproxy", None) is None


def test_build_description_names_a_compiled_module(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = FileFinder(folder, (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec(SAMPLE)
    monkeypatch.setattr(build, "find_spec", lambda name: found)
    assert describe_build() == COMPILED
