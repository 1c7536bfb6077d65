"""The requirements that the scripts install, and the pages that scripts write."""

import re
import runpy
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PINNED = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"([a-z0-9.-]+==[\w.]+(?: ; [\w.' <>=!]+)?)( --hash=sha256:[0-9a-f]{64})+")
WRITERS = ("api-page", "bounds-page", "dialect-page", "problems-page", "sandbox-differences", "settings-pages")
"""The scripts that write pages from the code."""
PYTHONS = ("3.11.0", "3.11.2", "3.11.9", "3.12.0", "3.13.0", "3.14.0")


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.name)
def test_every_requirement_is_pinned_with_hashes_and_without_a_source(path: Path) -> None:
    for line in lines(path):
        assert re.fullmatch(PIN, line)


@pytest.mark.parametrize("python", PYTHONS)
def test_a_release_is_pinned_alike_in_every_set(python: str) -> None:
    releases: dict[str, str] = {}
    for path in PINNED:
        if path.stem == APART:
            continue
        for name, release in pins(path, python).items():
            assert releases.setdefault(name, release) == release, f"{name} in {path.name}"


APART = "sdks"
"""The set that is installed into an environment of its own, as it excludes releases of the others."""
LEFT_OUT = (("demo", "greenlet"), ("dev", "typer"))
"""Requirements of requirements that are not pinned in a set; requirements/compile says why."""


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("chosen", ["run", "parquet", "kms", "demo", "dev", "load"])
def test_each_requirement_is_pinned(chosen: str, python: str) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = declared["dependencies"] if chosen == "run" else declared["optional-dependencies"][chosen]
    pinned = pins(ROOT / f"requirements/{chosen}.txt", python)
    waiting = applying(asked, python)
    seen: set[str] = set()
    while waiting:
        expected = waiting.pop()
        name = canonicalize_name(expected.name)
        if str(expected) in seen or (chosen, name) in LEFT_OUT:
            continue
        seen.add(str(expected))
        assert name in pinned, f"{expected} is not pinned"
        assert pinned[name] in expected.specifier, f"{name} {pinned[name]} is pinned, and {expected} asked for"
        waiting += applying(needs(name), python, expected.extras)


@pytest.mark.parametrize("name", WRITERS)
def test_each_page_that_a_script_writes_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--check"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as end:  # In this process, because the imports take seconds of CPU.
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
    assert not end.value.code, f"run scripts/{name}"


@cache
def lines(path: Path) -> list[str]:
    """The requirements in a file, each with its hashes in one line."""
    text = re.sub(r" *(\\\n\s*)|^ *#.*\n", " ", path.read_text(), flags=re.MULTILINE)
    return [line for line in map(str.strip, text.splitlines()) if line]


@cache
def pins(path: Path, python: str) -> dict[str, str]:
    """Return the releases that a file pins for a version of Python, by name."""
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
    """Return the requirements of an installed package.

    A package for other Pythons only is not installed, and has none.
    """
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []
