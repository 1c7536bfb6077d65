"""deploy/kustomize: its base is what Helm renders of the chart, and the overlay of each region builds and is valid."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from edgeproxy import cli
from tests.support.chart import ENVIRON, HELM, ROOT

FOLDER = ROOT / "deploy" / "kustomize"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
KUBECTL = shutil.which("kubectl")
VERSION = "1.35"
"""The Kubernetes version. tests/test_helm.py checks these templates against other versions."""
kubectl = pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl here")


def build(overlay: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the manifests of a region by kind and name, as kubectl's kustomize builds them."""
    assert KUBECTL is not None
    built = subprocess.run(
        [KUBECTL, "kustomize", FOLDER / "overlays" / overlay], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert not built.stderr, "kustomize warns of what it will not know any more"
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(built.stdout)}


def environment(manifests: dict[tuple[str, str], dict[str, Any]]) -> dict[str, str]:
    """Return the variables of edges that are no secret."""
    (container,) = manifests["StatefulSet", "edges-edge"]["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def test_kustomize_bases_match_the_rendered_chart(tmp_path: Path) -> None:
    homes = {name: str(tmp_path) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    subprocess.run([FOLDER / "render", tmp_path / "base"], check=True, env={**os.environ, **homes, "HELM": HELM})
    for base in ("edges", "collector"):
        rendered = (tmp_path / "base" / base / "manifests.yaml").read_text()
        assert (FOLDER / "base" / base / "manifests.yaml").read_text() == rendered, "start deploy/kustomize/render"


@kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_builds_to_valid_manifests_of_its_region(tmp_path: Path, overlay: str) -> None:
    import kubernetes_validate

    manifests = build(overlay)
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        labels = manifest["spec"]["template"]["metadata"]["labels"] if "template" in manifest.get("spec", {}) else {}
        for each in (manifest["metadata"]["labels"], labels):
            assert each.get("app.kubernetes.io/managed-by") in (None, "kustomize")
    variables = environment(manifests)
    assert variables["REGION"] == overlay
    workloads = [manifest for (kind, _), manifest in manifests.items() if kind in ("StatefulSet", "Deployment", "Job")]
    images = [workload["spec"]["template"]["spec"]["containers"][0]["image"] for workload in workloads]
    assert set(images) == {f"registry.example.com/edgeproxy@sha256:{'0' * 64}"}

    for name, text in manifests["ConfigMap", "edges-edge"]["data"].items():
        (tmp_path / name).write_text(text.replace("/var/lib/edgeproxy", str(tmp_path / "state")))
    checked = CliRunner().invoke(cli.app, ["check", str(tmp_path / "edge.yaml")], env={**ENVIRON, **variables})
    assert checked.exit_code == 0, checked.output


@kubectl
def test_collector_of_one_region_knows_the_token_of_each_region() -> None:
    regions = {overlay: build(overlay) for overlay in OVERLAYS}
    (home,) = [name for name, manifests in regions.items() if ("Deployment", "edges-collector") in manifests]
    (port,) = regions[home]["Service", "edges-collector"]["spec"]["ports"]
    assert environment(regions[home])["COLLECTOR_URL"] == f"http://edges-collector:{port['port']}"
    collector = yaml.safe_load(regions[home]["ConfigMap", "edges-collector"]["data"]["collector.yaml"])
    assert sorted(token["region"] for token in collector["tokens"]) == OVERLAYS
    for name, manifests in regions.items():
        if name != home:
            assert not [each for _, each in manifests if "collector" in each or "migrate" in each]
            assert environment(manifests)["COLLECTOR_URL"].startswith("https://")
