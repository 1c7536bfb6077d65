"""The wheel that the sources become, and environments in which it is installed without a checkout."""

import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9-]+)==", re.MULTILINE)
SOURCES = ("edgeproxy", "config", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
ELSEWHERE = {"async-timeout", "colorama"}
"""Pinned for other systems and Pythons."""


def build_wheel(folder: Path) -> Path:
    """Build the wheel of what git tracks, where there is no compiler; return its path."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SOURCES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        copy = folder / "sources" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run(
        [*command, "--wheel-dir", str(folder / "wheels"), str(folder / "sources")],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(folder), "CC": str(folder / "cc"), "HOME": str(folder)},
    )
    assert built.returncode == 0, built.stderr
    (path,) = (folder / "wheels").iterdir()
    return path


def install_wheel(wheel: Path, folder: Path, *sets: str) -> Path:
    """Make an environment of the wheel and the pins of these sets of requirements; return its Python."""
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    for each in list_pinned(sets):
        for top in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(each.locate_file(top))))
    return folder / "bin" / "python"


def list_pinned(sets: tuple[str, ...]) -> list[Distribution]:
    """Return what of the requirements is installed here."""
    installed = []
    for name in {name for each in sets for name in PIN.findall((ROOT / f"requirements/{each}.txt").read_text())}:
        try:
            installed.append(distribution(name))
        except PackageNotFoundError:
            assert name in ELSEWHERE
    return installed
