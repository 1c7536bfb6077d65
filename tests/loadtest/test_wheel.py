"""The wheel of the load test runs without a checkout, as its README says."""

import re
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy import __version__
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from loadtest.topology import Upstream
from tests.support.wheel import LOADTEST_SOURCES, build_wheel, install_wheels, list_required

README = ROOT / "loadtest/README.md"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheels of the load test and of edgeproxy, and all that they require."""
    wheels = [build_wheel(tmp_path_factory.mktemp("edgeproxy"))]
    wheels.append(build_wheel(tmp_path_factory.mktemp("loadtest"), LOADTEST_SOURCES, "loadtest"))
    return install_wheels(tmp_path_factory.mktemp("venv"), list_required(*wheels), *wheels)


def test_wheel_requires_edgeproxy_of_its_own_version(python: Path) -> None:
    says = "import importlib.metadata as m; print(m.version('edgeproxy-loadtest'), *m.requires('edgeproxy-loadtest'))"
    done = subprocess.run([python, "-P", "-c", says], capture_output=True, text=True, check=True)
    own, *required = done.stdout.split()
    assert own == __version__
    assert f"edgeproxy[collector]=={__version__}" in required


def test_wheel_contains_the_imports_of_each_module(python: Path) -> None:
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    files = [path.relative_to(packages).with_suffix("") for path in (packages / "loadtest").rglob("*.py")]
    modules = [".".join(path.parts).removesuffix(".__init__") for path in files if path.name != "locustfile"]
    assert "loadtest.upstream" in modules
    assert not [name for name in modules if name.startswith("loadtest.bench")]
    program = "".join(f"import {name}\n" for name in sorted(modules))
    done = subprocess.run([python, "-P", "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_command_of_its_readme_loads_an_edge_and_reports(python: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```(sh|yaml)\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    (workload,) = (block for language, block in blocks if language == "yaml")
    (command,) = (block for language, block in blocks if language == "sh" and "--edges" in block)
    (tmp_path / "calm.yaml").write_text(workload)
    start = "from loadtest.__main__ import start; start()"
    with closing(Upstream(tmp_path, 0.0)) as service:
        until(service.ready, "the service answers")
        words = command.replace("8080", str(service.port)).split()[1:]
        program = [python, "-P", "-c", start, *words]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode in (0, 1, 3), done.stderr  # A busy machine may miss the threshold.
    assert re.search(r"^p95: \d+ ms\nverdict: \w+", done.stdout, re.MULTILINE), done.stdout + done.stderr
    (report,) = (tmp_path / "var/loadtest").glob("calm-*/report.html")
    assert "eu-west" in report.read_text()
