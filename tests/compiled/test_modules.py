"""The modules of the compiled build: all of them are compiled, and a switch runs the .py files."""

import importlib
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import edgeproxy

pytestmark = pytest.mark.compiled

LIST = Path(edgeproxy.__file__).with_name("compiled.txt")


def module_names() -> list[str]:
    """Return the modules that are compiled, all or none."""
    return [source.removesuffix(".py").replace("/", ".") for source in LIST.read_text().split()]


@pytest.mark.parametrize("name", module_names())
def test_each_module_is_compiled(name: str) -> None:
    file = importlib.import_module(name).__file__
    assert file is not None
    assert file.endswith(tuple(EXTENSION_SUFFIXES))


@pytest.mark.parametrize("name", module_names())
def test_each_module_can_be_imported_first(name: str) -> None:
    """A .pxd file that takes types of another module imports that module as well."""
    subprocess.run([sys.executable, "-c", f"import {name}"], check=True, timeout=60)


def test_a_switch_runs_the_sources() -> None:
    program = "import importlib, sys; print(*[importlib.import_module(name).__file__ for name in sys.argv[1:]])"
    run = subprocess.run(
        [sys.executable, "-c", program, *module_names()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "EDGEPROXY_PURE": "1"},
    )
    assert {Path(file).suffix for file in run.stdout.split()} == {".py"}
