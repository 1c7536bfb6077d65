"""What the .pxd files of the compiled build declare, held against the .py files that they are of."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = (ROOT / "edgeproxy" / "compiled.txt").read_text().split()
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
    """Return the slots of a class; None where it has a dictionary."""
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


def test_where_there_is_no_compiler_the_sources_become_a_wheel_of_plain_python(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "edgeproxy", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        copy = tmp_path / "sources" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    nothing = {"PATH": str(tmp_path), "CC": str(tmp_path / "cc"), "HOME": str(tmp_path)}
    built = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path / "wheels"), str(tmp_path / "sources")],
        capture_output=True,
        text=True,
        check=False,
        env=nothing,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    says = "from edgeproxy.base import build; print(build.__file__, build.describe_build())"
    run = [sys.executable, "-c", says]
    run_in = tmp_path / "installed"
    said = subprocess.run(run, cwd=run_in, capture_output=True, text=True, check=True, env=nothing).stdout
    assert said == f"{run_in}/edgeproxy/base/build.py pure\n"
