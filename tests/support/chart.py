"""The chart of deploy/helm as Helm renders it, with the first values of docs/operations/kubernetes.md."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from loadtest.testbed.collector import EDGE
from loadtest.testbed.process import ROOT

CHART = ROOT / "deploy" / "helm"
HELM = str(Path(sys.executable).with_name("helm"))
VALUES: dict[str, Any] = yaml.safe_load(
    (ROOT / "docs" / "operations" / "kubernetes.md").read_text().partition("```yaml\n")[2].partition("```")[0]
)
"""The first values on the page about Kubernetes."""
ENVIRON = {
    "HUB_URL": "memory://",
    "EDGE_TOKEN": EDGE,
    "DATABASE_URL": "postgresql://edgeproxy@127.0.0.1:1/ledger",
}
"""The environment from Secrets."""


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the values with these changed, mappings within mappings."""
    both = {
        name: merged(values[name], value) if isinstance(value, dict) and isinstance(values.get(name), dict) else value
        for name, value in changes.items()
    }
    return {**values, **both}


def helm(
    folder: Path, *, release: str = "acme", namespace: str = "default", chart: Path = CHART, **changes: Any
) -> subprocess.CompletedProcess[str]:
    (folder / "values.yaml").write_text(yaml.safe_dump(merged(VALUES, changes)))
    command = [HELM, "template", release, chart, "--namespace", namespace, "--values", folder / "values.yaml"]
    homes = {name: str(folder) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **homes})


def render(
    folder: Path, *, release: str = "acme", namespace: str = "default", chart: Path = CHART, **changes: Any
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the manifests by kind and name."""
    done = helm(folder, release=release, namespace=namespace, chart=chart, **changes)
    assert done.returncode == 0, done.stderr
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout) if each}
