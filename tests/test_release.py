"""deploy/release on a real Docker, under clients that retry nothing: the image of scripts/image goes to the version
before and back, and one that does not start changes nothing.
"""

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

import edgeproxy
from loadtest.testbed.customers import key_line
from loadtest.testbed.http_client import ask
from loadtest.testbed.load_clients import Load, Plan
from loadtest.testbed.waiting import until
from tests.support.made_up_versions import BEFORE, unpack_version_before

ROOT = Path(__file__).parents[1]
REGISTRY = os.environ.get("EDGEPROXY_RELEASES")
"""The registry of the images: localhost. The test replaces an edge that may run in this machine's Docker."""
pytestmark = [
    pytest.mark.skipif(REGISTRY is None, reason="of the image: scripts/image --release"),
    pytest.mark.timeout(600),
]

CUSTOMERS = ("acme", "bolt")
REQUESTS = 2_000
"""The number of requests before, between and after releases."""


def run(*command: str | Path, folder: Path = ROOT) -> str:
    """Run a command, require exit code 0, and return its output."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def docker(*arguments: str | Path) -> str:
    return run("docker", *arguments)


def derive(folder: Path, name: str, change: Callable[[str], None]) -> None:
    """Run `change` on a container of an image, commit the result as another image, and load it into Docker."""
    container = run("buildah", "from", "--pull-never", f"{REGISTRY}/edgeproxy")
    try:
        change(container)
        run("buildah", "commit", "--format", "docker", container, f"{REGISTRY}/{name}")
    finally:
        run("buildah", "rm", container)
    load(folder, name)


def load(folder: Path, name: str) -> None:
    """Tag an image in Docker with its bare name."""
    archive = folder / f"{name}.tar"
    run("buildah", "push", f"{REGISTRY}/{name}", f"docker-archive:{archive}:{name}:latest")
    docker("load", "--quiet", "--input", archive)
    archive.unlink()


@pytest.fixture
def images(tmp_path: Path) -> None:
    """Load the images into Docker: the compose file's, one of the previous version, and one that does not start."""
    for name in ("edgeproxy", "edgeproxy-address", "edgeproxy-upstream"):
        load(tmp_path, name)
    docker("tag", "edgeproxy", "edgeproxy-new")
    unpack_version_before(tmp_path / "before")

    def put_version_before(container: str) -> None:
        (package,) = Path(run("buildah", "mount", container)).glob("opt/edgeproxy/lib/python*/site-packages/edgeproxy")
        run("rm", "-r", package)
        run("cp", "-r", tmp_path / "before" / "edgeproxy", package)
        compile_all = ("/opt/edgeproxy/bin/python", "-m", "compileall", "-qf", "--invalidation-mode", "unchecked-hash")
        run("buildah", "run", "--isolation", "chroot", "--user", "0", container, *compile_all, "/opt/edgeproxy/lib")
        run("buildah", "umount", container)

    derive(tmp_path, "edgeproxy-before", put_version_before)
    derive(tmp_path, "edgeproxy-broken", lambda it: run("buildah", "config", "--entrypoint", '["edgeproxy", "no"]', it))


class Project:
    """A host's copy of deploy/ and config/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "deploy").mkdir(parents=True)
        shutil.copytree(ROOT / "config", folder / "config")
        shutil.copy(ROOT / "deploy" / "release", folder / "deploy")
        compose = (ROOT / "deploy" / "compose.yaml").read_text()
        # A Docker that may not raise the limits has the limits of this machine.
        descriptors = min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        assert compose.count("65536") == 2
        (folder / "deploy" / "compose.yaml").write_text(compose.replace("65536", str(descriptors)))

    def compose(self, *arguments: str | Path) -> str:
        return run("docker", "compose", "--file", "deploy/compose.yaml", *arguments, folder=self.folder)

    def release(self, image: str) -> int:
        """Release an image, and return the exit code."""
        environ = {**os.environ, "STEADY": "3", "PATIENCE": "20" if image == "edgeproxy-broken" else "120"}
        done = subprocess.run([self.folder / "deploy/release", image], env=environ, check=False)
        return done.returncode


@pytest.fixture
def project(tmp_path: Path, images: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose services all run, except the edge."""
    project = Project(tmp_path / "project")
    with ExitStack() as ends:
        ends.callback(project.compose, "down", "--volumes", "--timeout", "5")
        keygen = ("collector", "directory", "keygen", "/var/lib/edgeproxy/directory.key")
        key = project.compose("run", "--rm", "--no-deps", *keygen)
        monkeypatch.setenv("DIRECTORY_TRUST", key.splitlines()[-1])
        project.compose("up", "--detach", "--wait", "--no-build", "collector", "upstream", "edge-address")
        customers = {name: {"tier": "enterprise"} for name in CUSTOMERS}
        described = {"customers": customers, "keys": [key_line(name) for name in CUSTOMERS]}
        people = project.folder / "config" / "people.yaml"
        people.write_text(yaml.safe_dump({"include": ["collector.yaml"], **described}))
        project.compose("run", "--rm", "--no-deps", "collector", "import", "-c", "/etc/edgeproxy/people.yaml")
        # Use this machine's Redis instead of a third-party image.
        words = ("--read-only", "--user", "65532", "--volume", "/usr:/usr:ro", "--entrypoint", "/usr/bin/redis-server")
        network = ("--network", "edgeproxy_hub", "--network-alias", "redis", "--workdir", "/tmp")
        options = ("--protected-mode", "no", "--save", "")
        redis = docker("run", "--detach", "--rm", *network, *words, "edgeproxy", *options)
        ends.callback(docker, "rm", "--force", redis)
        yield project


def show(path: str) -> str:
    return ask(9090, path, fields={"Authorization": "Bearer demo-admin-token"}).body.decode()


def find_versions() -> set[str]:
    return set(re.findall(r'edge_build_info\{.*version="(.*?)"', show("/metrics")))


def count_in_ledger() -> dict[str, int]:
    url = "/v1/usage?meter=requests&by=customer"
    answer = ask(9100, url, fields={"Authorization": "Bearer demo-read-token"}).json()
    return {row["customer"]: row["value"] for row in answer["rows"]}


def test_no_request_fails_while_an_edge_is_released_and_taken_back(
    project: Project, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert project.release("edgeproxy-new") == 0, "there was none before"
    until(lambda: "edge_hub_up 1" in show("/metrics"), "the edge has its hub")
    clients = Load(tmp_path, "clients", Plan(8080, [*CUSTOMERS], ["/status/200"], connections=8))
    request.addfinalizer(clients.kill_all)

    def go_on() -> None:
        expected = sum(count_in_ledger().values()) + REQUESTS
        until(lambda: sum(count_in_ledger().values()) >= expected, "requests arrive", seconds=120)

    go_on()
    for image, code, version in (
        ("edgeproxy-before", 0, BEFORE),
        ("edgeproxy-broken", 1, BEFORE),
        ("edgeproxy-new", 0, edgeproxy.__version__),
    ):
        (running,) = project.compose("ps", "--quiet", "edge").split()
        assert project.release(image) == code
        (now,) = project.compose("ps", "--all", "--quiet", "edge").split()
        assert (now == running) == (code == 1)
        assert find_versions() == {version}
        inspected = "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.RestartCount}}"
        assert docker("inspect", "--format", inspected, now) == "true 65532:65532 0"
        go_on()
    account = clients.finish()
    print(account)
    assert account.reset == account.refused == account.wrong == 0
    assert not any(account.lost.values())
    assert {status for statuses in account.answers.values() for status in statuses} == {"200"}
    answered = {name: account.answered(name, 200) for name in CUSTOMERS}
    until(lambda: count_in_ledger() == answered, "the ledger has each request once", seconds=60)
