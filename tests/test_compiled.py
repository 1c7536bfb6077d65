"""The declarations in the .pxd files of the compiled build match their .py files."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from loadtest.testbed.process import PACKAGE

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).parents[1]
MODULES = (PACKAGE / "compiled.txt").read_text().split()
CLASS = re.compile(r"cdef class (\w+)(?:\((\w+)\))?:")
FIELDS = re.compile(r"    cdef public (?:unsigned )?(?:long )?\w+ (.*)")
DECLARED: dict[str, set[str]] = {}
BASES: dict[str, str | None] = {}

for declarations in sorted(ROOT.glob("edgeproxy/**/*.pxd")):
    name = ""
    for line in declarations.read_text().splitlines():
        if declared := CLASS.fullmatch(line):
            name, BASES[declared[1]] = declared.groups()
            DECLARED[name] = set()
        elif fields := FIELDS.fullmatch(line):
            DECLARED[name].update(fields[1].split(", "))
        elif line == "    cdef object __weakref__":
            DECLARED[name].add("__weakref__")


def fields_of(kind: str | None) -> set[str]:
    """Return the fields of a compiled class and of its bases."""
    return set() if kind is None else DECLARED[kind] | fields_of(BASES[kind])


def slots_of(kind: ast.ClassDef) -> set[str] | None:
    """Return the slots of a class, or None if it has a dictionary."""
    for statement in kind.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__slots__":
            slots = ast.literal_eval(statement.value)
            return {slots} if isinstance(slots, str) else set(slots)
    return None


@pytest.mark.parametrize("module", MODULES)
def test_each_slot_is_declared(module: str) -> None:
    """One that is not is an AttributeError when it is first set, in the compiled build alone."""
    classes = [each for each in ast.parse((ROOT / module).read_text()).body if isinstance(each, ast.ClassDef)]
    lacking = {
        f"{kind.name}.{slot}"
        for kind in classes
        if kind.name in DECLARED
        for slot in (slots_of(kind) or set()) - fields_of(kind.name)
    }
    assert not lacking


@pytest.mark.parametrize("module", MODULES)
def test_each_declared_class_has_the_base_that_it_has_in_python(module: str) -> None:
    """Another one, a generic one or a second one does not compile."""
    for kind in ast.parse((ROOT / module).read_text()).body:
        if isinstance(kind, ast.ClassDef) and kind.name in DECLARED:
            assert [ast.unparse(base) for base in kind.bases] == ([BASES[kind.name]] if BASES[kind.name] else [])


def test_each_file_of_declarations_is_compiled() -> None:
    declared = {str(path.relative_to(ROOT).with_suffix(".py")) for path in ROOT.glob("edgeproxy/**/*.pxd")}
    assert declared <= set(MODULES)
    assert len(DECLARED) > 25
    assert sorted(MODULES) == MODULES


def test_build_requires_cython_for_an_isolated_pip_build(tmp_path: Path) -> None:
    """pip builds in an isolated environment, and asks for the requirements before it installs them."""
    for name in (
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "edgeproxy/__init__.py",
        "edgeproxy/compiled.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    program = (
        "import sys; sys.modules['Cython'] = None; from setuptools import build_meta; "
        "print(build_meta.get_requires_for_build_wheel())"
    )
    environ = {**os.environ, "EDGEPROXY_COMPILED": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    (cython,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["compiled"]
    assert result.stdout.splitlines()[-1] == f"['{cython}']"
