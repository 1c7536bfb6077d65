"""The wheel, installed where there is no checkout: an edge with the pins of requirements/edge.txt alone."""

import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import ask
from loadtest.testbed.upstream import Upstream

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"^([a-z0-9-]+)==", re.MULTILINE)


def pinned() -> list[Distribution]:
    """Return what of requirements/edge.txt is installed here: the rest is for other systems and Pythons."""
    found = []
    for name in set(PIN.findall((ROOT / "requirements" / "edge.txt").read_text())):
        try:
            found.append(distribution(name))
        except PackageNotFoundError:
            assert name in {"async-timeout", "colorama"}
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel that the sources become where there is no compiler."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "edgeproxy", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
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


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment in which the wheel is, and an edge's requirements."""
    folder = tmp_path_factory.mktemp("edge-only")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    for each in pinned():
        for top in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            (packages / top).symlink_to(Path(str(each.locate_file(top))))
    return folder / "bin" / "python"


def command(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-P", "-m", "edgeproxy", *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_it_is_of_plain_python_where_there_is_no_compiler(wheel: Path, python: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    says = "from edgeproxy.base import build; print(build.__file__, build.describe_build())"
    told = subprocess.run([python, "-P", "-c", says], capture_output=True, text=True, check=True)
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    assert told.stdout == f"{packages}/edgeproxy/base/build.py pure\n"


def test_an_edge_serves_without_the_packages_of_a_collector(python: Path, tmp_path: Path) -> None:
    upstream = Upstream(tmp_path)
    edge = Edge(tmp_path / "edge", upstream.port)
    edge.command = (str(python), "-P", "-m", "edgeproxy", "edge", "-c")
    try:
        edge.start()
        assert ask(edge.port, "/x", key=key_of(UNLIMITED)).status == 200
        edge.end()
    finally:
        edge.close()
        upstream.stop()


def test_a_command_of_the_collector_says_what_to_install(python: Path, tmp_path: Path) -> None:
    file = tmp_path / "collector.yaml"
    file.write_text(f"listen: 127.0.0.1:9100\ntokens: [{{sha256: {'0' * 64}, role: edge}}]\n")
    ended = command(python, "collector", "-c", str(file))
    assert ended.returncode == 2
    assert re.fullmatch(
        r"This command needs \w+, which is not installed: pip install 'edgeproxy\[collector]'\n", ended.stderr
    )
