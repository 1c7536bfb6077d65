"""CI proves what it claims: a test that would be skipped for want of a program fails there."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ABILITIES = (
    "a long test: only with --soak",
    "root may write everywhere",
    "systemd-analyze is not here, as in most containers",
    "there is no Node here",
    "this process may not mount a file system",
    "file systems cannot be mounted here",
    "this machine gives no process a hosts file of its own (unshare --mount)",
    "no sandbox here: ",
    "the access log is not beside the project",
    "the recorded log is not at hand",
    "Stripe's description is not beside the project",
)
"""Reasons to skip that are no program: what the kernel allows, and files that are not in the tree."""


def test_a_test_without_its_program_fails_in_ci(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.skipif(True, reason='nothing is on this machine')\n"
        "def test_marked(): pass\n"
        "def test_called(): pytest.skip('there is no server on this machine')\n"
        "def test_long(): pytest.skip('a long test: only with --soak')\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"), "-rA"]
    ran = subprocess.run(
        [*command, "--rootdir", str(ROOT), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "CI": "true"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "1 failed, 1 skipped, 1 error" in ran.stdout


def reasons(source: str) -> Iterator[str]:
    """The reasons in a file for which tests are skipped."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr not in ("skip", "skipif"):
            continue
        said = [word.value for word in node.keywords if word.arg == "reason"] or node.args[:1]
        for part in ast.walk(said[0]):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value
                break


def test_every_reason_to_skip_is_a_program_or_known() -> None:
    sources = (path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    found = {why for source in sources if ".skip" in source for why in reasons(source)}
    assert len(found) > len(ABILITIES)
    assert not {why for why in found if "on this machine" not in why and not why.startswith(ABILITIES)}
