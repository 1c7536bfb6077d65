"""The wheel runs an edge without a checkout, with only the packages of requirements/edge.txt.

The wheel of the load test runs beside it, as its README says.
"""

import re
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy import __version__
from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from loadtest.topology import Upstream as Service
from tests.support.wheel import LOADTEST_SOURCES, build_wheel, install_wheels, list_pinned, list_required

pytestmark = pytest.mark.checkout


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


# ---- the load test


@pytest.fixture(scope="module")
def loads(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheels of the load test and of edgeproxy, and all that they require."""
    wheels = wheel, build_wheel(tmp_path_factory.mktemp("loadtest"), LOADTEST_SOURCES, "loadtest")
    return install_wheels(tmp_path_factory.mktemp("venv"), list_required(*wheels), *wheels)


def test_wheel_of_the_load_test_requires_edgeproxy_of_its_own_version(loads: Path) -> None:
    says = "import importlib.metadata as m; print(m.version('edgeproxy-loadtest'), *m.requires('edgeproxy-loadtest'))"
    done = subprocess.run([loads, "-P", "-c", says], capture_output=True, text=True, check=True)
    own, *required = done.stdout.split()
    assert own == __version__
    assert f"edgeproxy[collector]=={__version__}" in required


def test_wheel_of_the_load_test_contains_the_imports_of_each_module(loads: Path) -> None:
    (packages,) = loads.parents[1].glob("lib/python*/site-packages")
    files = [path.relative_to(packages).with_suffix("") for path in (packages / "loadtest").rglob("*.py")]
    modules = [".".join(path.parts).removesuffix(".__init__") for path in files if path.name != "locustfile"]
    assert "loadtest.upstream" in modules
    assert not [name for name in modules if name.startswith("loadtest.bench")]
    program = "".join(f"import {name}\n" for name in sorted(modules))
    done = subprocess.run([loads, "-P", "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_command_of_the_load_test_s_readme_loads_an_edge_and_reports(loads: Path, tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```(sh|yaml)\n(.*?)^```", (ROOT / "loadtest/README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    (workload,) = (block for language, block in blocks if language == "yaml")
    (command,) = (block for language, block in blocks if language == "sh" and "--edges" in block)
    (tmp_path / "calm.yaml").write_text(workload)
    start = "from loadtest.__main__ import start; start()"
    with closing(Service(tmp_path, 0.0)) as service:
        until(service.ready, "the service answers")
        words = command.replace("8080", str(service.port)).split()[1:]
        program = [loads, "-P", "-c", start, *words]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode in (0, 1, 3), done.stderr  # A busy machine may miss the threshold.
    assert re.search(r"^p95: \d+ ms\nverdict: \w+", done.stdout, re.MULTILINE), done.stdout + done.stderr
    (report,) = (tmp_path / "var/loadtest").glob("calm-*/report.html")
    assert "eu-west" in report.read_text()
