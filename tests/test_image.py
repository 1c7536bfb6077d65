"""The images that scripts/image built, run by an OCI runtime as deploy/compose.yaml says."""

import hashlib
import json
import os
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from loadtest.testbed.waiting import SLOWNESS, until
from tests.support.containers import Compose, Image, run

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "deploy" / "compose.yaml"
REGISTRY = os.environ.get("EDGEPROXY_IMAGES")
"""The registry of the images localhost/edgeproxy and localhost/edgeproxy-upstream."""
pytestmark = pytest.mark.skipif(REGISTRY is None, reason="of the image: scripts/image")

ARCHITECTURE = os.environ.get("ARCH", "")
MACHINES = {"amd64": 62, "arm64": 183}
"""The machine in the head of an ELF file, for each architecture."""
COMPRESSED_BYTES_MAX = 120_000_000
KEY = "X-API-Key: ek_demo_pro"
READER = "Authorization: Bearer demo-read-token"


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, Image]]:
    with ExitStack() as ends:
        yield {name: Image(f"{REGISTRY}/{name}", ends) for name in ("edgeproxy", "edgeproxy-upstream")}


@pytest.fixture
def compose(images: dict[str, Image], tmp_path: Path) -> Iterator[Compose]:
    with ExitStack() as ends:
        yield Compose(COMPOSE, images, tmp_path, ends)


def test_the_image_is_small(tmp_path: Path) -> None:
    run("buildah", "push", "--compression-format", "gzip", f"{REGISTRY}/edgeproxy", f"dir:{tmp_path}")
    layers = json.loads((tmp_path / "manifest.json").read_text())["layers"]
    size = sum((tmp_path / layer["digest"].partition(":")[2]).stat().st_size for layer in layers)
    print(f"compressed: {size / 1e6:.1f} MB in {len(layers)} layers")
    assert size <= COMPRESSED_BYTES_MAX


def test_image_architecture_matches_its_compiled_libraries(images: dict[str, Image]) -> None:
    described = json.loads(run("buildah", "inspect", "--type", "image", f"{REGISTRY}/edgeproxy"))
    assert described["OCIv1"]["architecture"] == ARCHITECTURE
    libraries = list(Path(images["edgeproxy"].root).glob("opt/edgeproxy/**/*.so*"))
    machines = {struct.unpack_from("<H", path.read_bytes(), 18)[0] for path in libraries if not path.is_symlink()}
    assert machines == {MACHINES[ARCHITECTURE]}


def test_image_has_no_compiler_no_pip_and_no_build_host_files(images: dict[str, Image]) -> None:
    root = Path(images["edgeproxy"].root)
    assert not [name for name in ("gcc", "cc", "curl") if (root / "usr/bin" / name).exists()]
    assert not list((root / "opt/edgeproxy").glob("lib/python*/site-packages/pip"))
    assert not (root / "etc/pip.conf").exists() or (root / "etc/pip.conf").read_text() == ""
    owners = {path.stat().st_uid for path in (root / "opt").rglob("*") if not path.is_symlink()}
    assert owners == {0}, "the user of the image changes nothing of what runs"


def test_its_bill_of_materials_names_all_that_is_installed(images: dict[str, Image]) -> None:
    listed = json.loads((ROOT / "build" / "edgeproxy.cdx.json").read_text())
    parts = {
        (component["purl"].partition("/")[0], component["name"]): component["version"]
        for component in listed["components"]
    }
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / "run.txt").read_text(), re.MULTILINE)
    named = {name: version for (kind, name), version in parts.items() if kind == "pkg:pypi"}
    assert named.items() <= set(pins)
    own = [name for kind, name in parts if kind == "pkg:generic"]
    assert own == ["stripe-sandbox"]
    packages = Path(images["edgeproxy"].root).glob("opt/edgeproxy/lib/python*/site-packages/*.dist-info")
    assert len(named) + len(own) + 1 == len(list(packages))  # and the product itself
    status = (Path(images["edgeproxy"].root) / "var/lib/dpkg/status").read_text()
    assert sum(kind == "pkg:deb" for kind, _ in parts) == status.count("Status: install ok installed")


def test_provenance_names_the_image_base_and_layers(images: dict[str, Image]) -> None:
    statement = json.loads((ROOT / "build" / "edgeproxy.intoto.json").read_text())
    described = json.loads(run("buildah", "inspect", "--type", "image", f"{REGISTRY}/edgeproxy"))
    (subject,) = statement["subject"]
    assert subject["digest"] == {"sha256": described["FromImageID"]}
    build, details = (statement["predicate"][part] for part in ("buildDefinition", "runDetails"))
    layers = [f"sha256:{byproduct['digest']['sha256']}" for byproduct in details["byproducts"]]
    assert layers == described["OCIv1"]["rootfs"]["diff_ids"]
    base = json.loads(run("buildah", "inspect", "--type", "image", build["externalParameters"]["base"]))
    source, from_image, *recipe = build["resolvedDependencies"]
    assert from_image["digest"] == {"sha256": base["FromImageID"]}
    below = base["OCIv1"]["rootfs"]["diff_ids"]
    assert layers[: len(below)] == below, "the image is built on it"
    head = run("git", "-C", ROOT, "rev-parse", "HEAD").strip()
    assert head in (source.get("digest", {}).get("gitCommit"), source.get("annotations", {}).get("changedSince"))
    for file in recipe:
        content = (ROOT / file["uri"].removeprefix("file:")).read_bytes()
        assert file["digest"] == {"sha256": hashlib.sha256(content).hexdigest()}


def test_image_runs_the_compiled_build_beside_its_sources(compose: Compose) -> None:
    assert compose.run("edge", "--version").strip().endswith("(compiled)")
    modules = (ROOT / "edgeproxy" / "compiled.txt").read_text().split()
    (packages,) = Path(compose.images["edgeproxy"].root).glob("opt/edgeproxy/lib/python*/site-packages")
    for module in modules:
        assert (packages / module).is_file()
        assert len(list((packages / module).parent.glob(f"{Path(module).stem}.cpython-*-linux-gnu.so"))) == 1


def test_image_without_a_configuration_exits_with_2(compose: Compose) -> None:
    container = compose.start("edge", ["edge", "-c", "/etc/nothing.yaml"])
    assert container.process.wait(30) == 2, container.process.output
    assert "/etc/nothing.yaml cannot be read" in container.process.output


def trickle(compose: Compose) -> "subprocess.Popen[str]":
    """Start a request whose body comes from this process, so that it is under way for as long as that is open."""
    url = "http://127.0.0.1:8080/anything/slow"
    command = ["curl", "--silent", "--no-buffer", "--upload-file", "-", "--request", "POST", "--header", KEY, url]
    words = ["ip", "netns", "exec", compose.space, *command, "--write-out", "%{http_code}", "--output", "/dev/null"]
    request = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert request.stdin is not None
    request.stdin.write("{}\n" * 10)
    request.stdin.flush()
    return request


def in_flight(compose: Compose) -> bool:
    admin = compose.ask("--header", "Authorization: Bearer demo-admin-token", "http://127.0.0.1:9090/metrics")
    return re.search(r'^edge_connections\{side="upstream"\} [1-9]', admin, re.MULTILINE) is not None


def probe_metrics(compose: Compose) -> str:
    """Return the probe's metrics, or an empty text while it does not listen yet."""
    try:
        return compose.ask("http://127.0.0.1:9102/metrics")
    except subprocess.CalledProcessError:
        return ""


def counted(compose: Compose) -> int:
    """Return the requests of demo-pro in the ledger."""
    url = "http://127.0.0.1:9100/v1/usage?customer=demo-pro&meter=requests"
    total: int = json.loads(compose.ask("--header", READER, url))["total"]
    return total


def test_the_services_of_compose_serve_drain_and_count(compose: Compose) -> None:
    health = compose.images["edgeproxy"].settings["Healthcheck"]["Test"][1:]
    key = compose.run("collector", "directory", "keygen", "/var/lib/edgeproxy/directory.key").strip()
    compose.environ["DIRECTORY_TRUST"] = key.splitlines()[-1]
    collector = compose.start("collector")
    until(lambda: collector.execute("edgeproxy", "probe", "--admin", "127.0.0.1:9100") == 0, "the collector is ready")
    compose.run("collector", "import", "-c", "/etc/edgeproxy/demo.yaml")
    compose.start_beside("redis-server", "--save", "", "--bind", "127.0.0.1")
    compose.start("upstream")

    began = time.monotonic()
    edge = compose.start("edge")
    until(lambda: edge.execute(*health) == 0, "the edge is healthy")
    print(f"start to healthy: {time.monotonic() - began:.1f} s")
    assert "hello" in compose.ask("--header", KEY, "http://127.0.0.1:8080/anything/hello")
    assert edge.execute("touch", "/opt/edgeproxy/x") != 0, "its root cannot be written"
    edge.kill("HUP")
    assert edge.execute(*health) == 0

    request = trickle(compose)
    until(lambda: in_flight(compose), "the slow request is under way")
    edge.kill("TERM")
    # A probe may take longer than the drain.
    until(lambda: '"event": "edge draining"' in edge.process.output, "the edge drains")
    answer, _ = request.communicate("{}\n", timeout=30 * SLOWNESS)
    assert answer == "200", "the active request is answered"
    assert edge.process.wait(30) == 0, edge.process.output

    edge = compose.start("edge")
    until(lambda: edge.execute(*health) == 0, "the edge is healthy again")
    compose.ask("--header", KEY, "http://127.0.0.1:8080/anything/again")
    until(lambda: counted(compose) == 3, "each request is in the ledger, also from before the restart")
    compose.start("probe")
    until(
        lambda: 'edgeproxy_probe_ok{edge="edge:8080",step="request"} 1' in probe_metrics(compose),
        "the probe is content",
    )
    for container in (collector, edge):
        container.kill("TERM")
        assert container.process.wait(40) == 0, container.process.output
