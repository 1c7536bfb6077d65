"""In CI a test fails if it would be skipped because a program is missing."""

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from tests import conftest

ROOT = Path(__file__).parents[1]
ABILITIES = (
    "a long test: only with --soak",
    "a test of the night: only with --night",
    "root may write everywhere",
    "systemd-analyze is not here, as in most containers",
    "there is no Node here",
    "there is no herd7 here",
    "there is no chdb here",
    "there is no terraform here",
    "there is no history of the sources here",
    "there is no Go here",
    "there is no Java here",
    "there is no docker compose here",
    "there is no kubectl here",
    "of the compiled build: scripts/test-compiled",
    "of a checkout: the package of these tests is installed",
    "of the image: scripts/image",
    "the methods of compiled classes cannot be patched",
    "this process may not mount a file system",
    "file systems cannot be mounted here",
    "this machine gives no process a hosts file of its own (unshare --mount)",
    "no sandbox here: ",
    "this machine gives no network namespaces: ",
    "the access log is not beside the project",
    "the recorded log is not at hand",
    "Stripe's description is not beside the project",
)
"""Reasons to skip other than a missing program: limits of the kernel, and files outside the repository."""


@pytest.mark.parametrize("when", ["setup", "call"])
@pytest.mark.parametrize(
    ("why", "outcome"),
    [("there is no server on this machine", "failed"), ("a long test: only with --soak", "skipped")],
)
def test_missing_program_fails_a_test_in_ci(
    why: str,
    outcome: str,
    when: Literal["setup", "call"],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "true")
    call = pytest.CallInfo.from_call(lambda: pytest.skip(why), when=when)
    hook = conftest.pytest_runtest_makereport(request.node)
    next(hook)
    with pytest.raises(StopIteration) as end:
        hook.send(pytest.TestReport.from_item_and_call(request.node, call))
    assert end.value.value.outcome == outcome
    assert why in str(end.value.value.longrepr)


class Reporter:
    """The part of pytest's terminal reporter that lists skipped tests."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def getreports(self, _: str) -> list[SimpleNamespace]:
        reasons = ["Skipped: a long test: only with --soak"] * 2 + ["Skipped: there is no server on this machine"]
        return [SimpleNamespace(longrepr=("file", 1, reason)) for reason in reasons]

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def test_run_lists_skipped_tests_by_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reporter: Any = Reporter()
    monkeypatch.delenv("EDGEPROXY_SKIPPED", raising=False)
    conftest.pytest_terminal_summary(reporter)
    assert reporter.lines == [
        "skipped: 2 × a long test: only with --soak",
        "skipped: 1 × there is no server on this machine",
    ]
    monkeypatch.setenv("EDGEPROXY_SKIPPED", str(tmp_path / "skipped"))
    conftest.pytest_terminal_summary(reporter)
    assert len(reporter.lines) == 2
    assert len((tmp_path / "skipped").read_text().splitlines()) == 3


def reasons(source: str) -> Iterator[str]:
    """Yield the reasons in a file to skip tests."""
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


def test_every_skip_reason_names_a_program_or_is_listed() -> None:
    sources = (path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    found = {why for source in sources if ".skip" in source for why in reasons(source)}
    assert len(found) > len(ABILITIES)
    assert not {why for why in found if "on this machine" not in why and not why.startswith(ABILITIES)}


def test_list_of_the_night_marks_tests_and_returns_lines_without_a_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    night = tmp_path / "night.txt"
    night.write_text("# Why.\ntests/a.py::test_a[x-*]\ntests/a.py::test_b\ntests/gone.py::test_c\n\n")
    monkeypatch.setattr(conftest, "NIGHT", night)
    marked: list[str] = []
    names = ("tests/a.py::test_a[x-1]", "tests/a.py::test_a[y-1]", "tests/a.py::test_b", "tests/b.py::test_b")
    items: Any = [SimpleNamespace(nodeid=name, add_marker=lambda _, name=name: marked.append(name)) for name in names]
    assert conftest.mark_night(items) == ["tests/gone.py::test_c"]
    assert marked == ["tests/a.py::test_a[x-1]", "tests/a.py::test_b"]
