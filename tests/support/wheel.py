"""The wheel built from the sources, and environments with the wheel but without a checkout."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9-]+)==", re.MULTILINE)
SOURCES = ("edgeproxy", "config", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
SANDBOX_SOURCES = ("stripe_sandbox",)
LOADTEST_SOURCES = ("loadtest", "LICENSE")
ELSEWHERE = {"async-timeout", "colorama"}
"""Pinned for other systems and Pythons."""


def build_wheel(folder: Path, sources: Iterable[str] = SOURCES, project: str = ".") -> Path:
    """Build a wheel of the files that git tracks, without a compiler, and return its path.

    `project` is the folder of its pyproject.toml.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *sources]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        copy = folder / "sources" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run(
        [*command, "--wheel-dir", str(folder / "wheels"), str(folder / "sources" / project)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(folder), "CC": str(folder / "cc"), "HOME": str(folder)},
    )
    assert built.returncode == 0, built.stderr
    (path,) = (folder / "wheels").iterdir()
    return path


def install_wheels(folder: Path, required: Iterable[Distribution], *wheels: Path) -> Path:
    """Make an environment of these wheels and distributions; return its Python."""
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for wheel in wheels:
        zipfile.ZipFile(wheel).extractall(packages)
    copy_bytecode(packages)
    for each in required:
        for top in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(each.locate_file(top))))
    return folder / "bin" / "python"


def copy_bytecode(packages: Path) -> None:
    """Give the modules the bytecode of equal files of the checkout: compiling it takes two seconds of CPU.

    Python compares the time and size of the source with those in the bytecode.
    """
    for module in packages.rglob("*.py"):
        source = ROOT / module.relative_to(packages)
        stored = Path(cache_from_source(str(source)))
        if stored.exists() and source.read_bytes() == module.read_bytes():
            os.utime(module, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
            copy = Path(cache_from_source(str(module)))
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(stored, copy)


def list_pinned(*sets: str) -> list[Distribution]:
    """Return what of the requirements is installed here."""
    installed = []
    for name in {name for set_ in sets for name in PIN.findall((ROOT / f"requirements/{set_}.txt").read_text())}:
        try:
            installed.append(distribution(name))
        except PackageNotFoundError:
            assert name in ELSEWHERE
    return installed


def list_required(*wheels: Path) -> list[Distribution]:
    """Return the direct and indirect requirements of these wheels, as installed here. Extras are followed."""
    own: dict[str, list[str]] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as files:
            (metadata,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
            text = files.read(metadata).decode()
        (name,) = re.findall(r"^Name: (.*)$", text, re.MULTILINE)
        own[name] = re.findall(r"^Requires-Dist: (.*)$", text, re.MULTILINE)
    required: dict[str, Distribution] = {}
    waiting, seen = [(each, "") for each in own], set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        if name not in own:
            required[name] = distribution(name)
        for line in own[name] if name in own else required[name].requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed.name, each) for each in ("", *needed.extras)]
    return list(required.values())
