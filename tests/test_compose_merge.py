"""The compose files as docker compose itself reads and merges them. Other tests merge them by `read_compose`."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from loadtest.testbed.process import ROOT
from tests.support.compose_files import read_compose


def find_compose() -> list[str]:
    """Return the command of docker compose: the plugin, or the program alone; empty if there is none."""
    if (alone := shutil.which("docker-compose")) is not None:
        return [alone]
    plugin = ["docker", "compose"]
    try:
        done = subprocess.run([*plugin, "version"], capture_output=True, check=False)
    except FileNotFoundError:
        return []
    return plugin if done.returncode == 0 else []


COMMAND = find_compose()


def merge_by_docker(*names: str) -> dict[str, Any]:
    """Return the merged files, with long forms and without default values."""
    files = [word for name in names for word in ("-f", str(ROOT / "deploy" / name))]
    command = [*COMMAND, *files, "config", "--no-interpolate", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    merged: dict[str, Any] = json.loads(done.stdout)
    return merged


def read_environment(service: dict[str, Any]) -> dict[str, str]:
    """Return the environment of a service. A merged one is a list."""
    written = service.get("environment", {})
    return written if isinstance(written, dict) else dict(variable.split("=", 1) for variable in written)


def write_port(port: dict[str, Any]) -> str:
    """Return the short form of a published port."""
    return ":".join(filter(None, (port.get("host_ip"), port["published"], str(port["target"]))))


def list_sources(service: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the name of the source and the target of each volume of a service in long form."""
    return [(each["source"].rpartition("/")[2], each["target"]) for each in service.get("volumes", ())]


@pytest.mark.skipif(not COMMAND, reason="there is no docker compose here")
@pytest.mark.parametrize("names", [("compose.yaml",), ("compose.yaml", "compose.demo.yaml")])
def test_docker_compose_merges_the_files_as_other_tests_do(names: tuple[str, ...]) -> None:
    ours, theirs = read_compose(*names), merge_by_docker(*names)
    assert theirs["services"].keys() == ours["services"].keys()
    assert theirs["volumes"].keys() == ours["volumes"].keys()
    assert theirs["networks"].keys() == ours["networks"].keys()
    for name, service in ours["services"].items():
        merged = theirs["services"][name]
        assert merged.get("command") == service.get("command"), name
        assert read_environment(merged) == service.get("environment", {}), name
        assert merged.get("network_mode") == service.get("network_mode"), name
        assert set(merged.get("networks", ())) == set(service.get("networks", ())), name
        assert [write_port(port) for port in merged.get("ports", ())] == service.get("ports", []), name
        sources = [tuple(volume.split(":")[:2]) for volume in service.get("volumes", ())]
        assert list_sources(merged) == [(source.rpartition("/")[2], target) for source, target in sources], name
        # A service in the network of another one waits for it, too.
        owner = {service["network_mode"].removeprefix("service:")} if "network_mode" in service else set()
        assert set(merged.get("depends_on", ())) == {*service.get("depends_on", ()), *owner}, name
