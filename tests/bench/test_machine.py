"""How a Python was built."""

import sys
from pathlib import Path

import pytest

from loadtest.bench.machine import Interpreter, interpreter

CASES = {
    "'--enable-optimizations' '--with-lto' '--enable-shared'": "PGO + LTO",
    "'--enable-shared'": "plain build (no PGO, no LTO)",
    "'--with-wheel-pkg-dir=/usr/share/python-wheels/'": "PGO + LTO",
}


@pytest.mark.parametrize(("configured", "built"), CASES.items())
def test_a_build_is_told_by_its_configure_arguments(configured: str, built: str) -> None:
    python = Interpreter("python3", "3.11.7", configured, "0.21.0", "3.14.5")
    assert str(python) == f"Python 3.11.7, {built}, uvloop 0.21.0"


def test_an_interpreter_says_its_own_version() -> None:
    assert interpreter(Path(sys.executable)).version == sys.version.split()[0]
