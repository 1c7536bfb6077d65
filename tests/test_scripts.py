"""The commands of the README, and the requirements that they install."""

import os
import re
import select
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from demo.__main__ import main

ROOT = Path(__file__).parent.parent
PINNED = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"([a-z0-9.-]+==[\w.]+(?: ; [\w.' <>=!]+)?)( --hash=sha256:[0-9a-f]{64})+")
PYTHONS = ("3.11.0", "3.11.2", "3.11.9", "3.12.0", "3.13.0", "3.14.0")
STAGE = [sys.executable, "-m", "demo"]


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.name)
def test_every_requirement_is_pinned_with_hashes_and_without_a_source(path: Path) -> None:
    for line in lines(path):
        assert re.fullmatch(PIN, line)


@pytest.mark.parametrize("python", PYTHONS)
def test_a_release_is_pinned_alike_in_every_set(python: str) -> None:
    releases: dict[str, str] = {}
    for path in PINNED:
        for name, release in pins(path, python).items():
            assert releases.setdefault(name, release) == release, f"{name} in {path.name}"


LEFT_OUT = (("demo", "greenlet"), ("dev", "typer"))
"""Requirements of requirements that are not pinned in a set; requirements/compile says why."""


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("chosen", ["run", "parquet", "demo", "dev", "load"])
def test_all_that_is_asked_for_is_pinned(chosen: str, python: str) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = declared["dependencies"] if chosen == "run" else declared["optional-dependencies"][chosen]
    pinned = pins(ROOT / f"requirements/{chosen}.txt", python)
    waiting = applying(asked, python)
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if str(wanted) in seen or (chosen, name) in LEFT_OUT:
            continue
        seen.add(str(wanted))
        assert name in pinned, f"{wanted} is not pinned"
        assert pinned[name] in wanted.specifier, f"{name} {pinned[name]} is pinned, and {wanted} asked for"
        waiting += applying(needs(name), python, wanted.extras)


@cache
def lines(path: Path) -> list[str]:
    """The requirements in a file, each with its hashes in one line."""
    text = re.sub(r" *(\\\n\s*)|^ *#.*\n", " ", path.read_text(), flags=re.MULTILINE)
    return [line for line in map(str.strip, text.splitlines()) if line]


@cache
def pins(path: Path, python: str) -> dict[str, str]:
    """What a file pins for a version of Python: releases by name."""
    found = applying((line.partition(" --hash")[0] for line in lines(path)), python)
    releases = {pin.name: str(pin.specifier).removeprefix("==") for pin in found}
    assert len(releases) == len(found), "one package is pinned twice"
    return releases


def applying(lines: Iterable[str], python: str, extras: Iterable[str] = ()) -> list[Requirement]:
    """The requirements that hold on this version of Python, for whom asks for these extras."""
    minor, _, _ = python.rpartition(".")
    environment = {**default_environment(), "python_version": minor, "python_full_version": python}
    return [
        requirement
        for requirement in map(parsed, lines)
        if requirement.marker is None
        or any(requirement.marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras))
    ]


parsed = cache(Requirement)


def needs(name: str) -> list[str]:
    """What an installed package asks for; nothing is known here of one that only other Pythons need."""
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def test_the_demonstration_shows_all_that_its_lines_promise() -> None:
    command = [*STAGE, "--check"]
    tour = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert tour.returncode == 0, tour.stdout + tour.stderr
    assert tour.stdout.count("\nok ") == 12


def test_the_demonstration_ends_all_that_it_started_on_sigterm(tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    environ = {**os.environ, "EDGE_STATE": str(tmp_path / "edge"), "COLLECTOR_DATABASE": ledger}
    with subprocess.Popen(STAGE, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environ) as stage:
        try:
            shown = next((line for line in stage.stdout or () if "Ctrl-C" in line), None)
            started = [os.pidfd_open(process) for process in descendants(stage.pid)]
        finally:
            stage.terminate()
        assert stage.wait(60) == 0
    assert shown is not None
    assert len(started) >= 6, "httpbin and its worker, the edge and two workers, the collector"
    for process in started:
        assert select.select([process], [], [], 10)[0], "still there"


@pytest.fixture
def same_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, does in before.items():
        signal.signal(number, does)


@pytest.mark.usefixtures("same_signals")
def test_the_demonstration_says_in_one_line_which_process_ended_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("python", "edgeproxy"):
        (tmp_path / name).write_text('#!/bin/sh\n[ "$1" != edge ] || { echo one; echo two; exit 2; }\nexec sleep 60\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("demo.__main__.BIN", tmp_path)
    monkeypatch.setattr("sys.argv", ["demo"])
    assert main() == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("demo: the edge ended with exit code 2: two (all that it wrote: ")


def descendants(pid: int) -> set[int]:
    """The children of a process, theirs, and so on."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return set(children).union(*map(descendants, children))
