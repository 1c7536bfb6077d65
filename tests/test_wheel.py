"""The wheel runs an edge without a checkout, with only the packages of requirements/edge.txt."""

import re
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.wheel import build_wheel, install_wheels, list_pinned


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the sources without a compiler, and return it."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the wheel and an edge's requirements."""
    return install_wheels(tmp_path_factory.mktemp("edge-only"), list_pinned("edge"), wheel)


def command(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-P", "-m", "edgeproxy", *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_wheel_built_without_a_compiler_is_pure_python(wheel: Path, python: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    says = "from edgeproxy.base import build; print(build.__file__, build.describe_build())"
    result = subprocess.run([python, "-P", "-c", says], capture_output=True, text=True, check=True)
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    assert result.stdout == f"{packages}/edgeproxy/base/build.py pure\n"


def test_edge_serves_without_the_collectors_packages(python: Path, tmp_path: Path) -> None:
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


def test_collector_command_names_the_extra_to_install(python: Path, tmp_path: Path) -> None:
    file = tmp_path / "collector.yaml"
    file.write_text(f"listen: 127.0.0.1:9100\ntokens: [{{sha256: {'0' * 64}, role: edge}}]\n")
    ended = command(python, "collector", "-c", str(file))
    assert ended.returncode == 2
    assert re.fullmatch(
        r"This command needs \w+, which is not installed: pip install 'edgeproxy\[collector]'\n", ended.stderr
    )


def test_demo_names_the_extras_to_install(python: Path, tmp_path: Path) -> None:
    ended = command(python, "demo", "--data", str(tmp_path / "data"))
    assert ended.returncode == 2
    packages = "'edgeproxy[collector,demo]' stripe_sandbox-….whl"
    assert ended.stderr == f"demo: sqlalchemy is not installed: pip install {packages}\n"
    assert not (tmp_path / "data").exists()


def test_quick_serves_an_upstream(python: Path, tmp_path: Path) -> None:
    upstream, ports = Upstream(tmp_path), Ports(1)
    options = ("--to", f"http://{HOST}:{upstream.port}", "--listen", f"{HOST}:{ports.numbers[0]}")
    with closing(ports):
        process = Process([str(python), "-P", "-m", "edgeproxy", "quick", *options], tmp_path / "log")
        try:
            until(lambda: answers(ports.numbers[0]), "the edge serves")
        finally:
            process.stop()
            upstream.stop()


def answers(port: int) -> bool:
    try:
        return ask(port, "/x").status == 200
    except OSError:
        return False
