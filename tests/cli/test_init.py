"""`edgeproxy init`: files that pass their checks, for their owner alone, and nothing overwritten or half-written."""

import hashlib
import os
import re
import socket
import stat
from contextlib import closing, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.base.free_ports import HOST
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.edge.load import load_edge
from edgeproxy.wire.directory_signatures import Signer

FILES = {"edge.yaml", "collector.yaml", "tiers.yaml", "plans.yaml", "directory.key", "operator.env"}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["init", *map(str, arguments)])


@pytest.mark.parametrize("name", ["first", 'a "quoted" näme: of it'])
def test_init_writes_valid_files_readable_by_the_owner_only(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "not there yet" / name
    mask = os.umask(0)
    try:
        result = run(folder, "--upstream", "https://10.0.0.5:9443", "--region", "eu-west")
    finally:
        os.umask(mask)
    assert result.exit_code == 0, result.output
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys(FILES, 0o600)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    edge, collector = load_edge(folder / "edge.yaml", {}), load_collector(folder / "collector.yaml", {})
    assert edge.usage is not None
    assert edge.usage.token is not None
    assert edge.directory is not None
    assert collector.directory is not None
    assert (edge.region, edge.upstreams["api"].endpoints[0].url) == ("eu-west", "https://10.0.0.5:9443")
    assert edge.usage.collector == f"http://{collector.listen[0].address}"
    assert edge.directory.trust == (Signer.load(collector.directory.key).public_key,)
    assert edge.tiers == collector.tiers
    assert {
        name: (plan.name, (plan.tier or name.partition("@")[0]) in edge.tiers) for name, plan in collector.plans.items()
    } == {
        "free@1": ("Free", True),
        "pro@1": ("Pro", True),
        "enterprise@1": ("Enterprise", True),
    }
    assert (edge.security_headers, edge.access_log is not None, collector.pages is not None) == (True, True, True)
    assert collector.rotation is not None
    assert collector.rotation.deliver == "portal"
    match = re.search(r"EDGEPROXY_TOKEN=(\w+)", (folder / "operator.env").read_text())
    assert match is not None
    secrets = {"admin": match[1], "edge": edge.usage.token}
    assert {token.role: token.sha256 for token in collector.tokens} == {
        role: (hashlib.sha256(secret.encode()).hexdigest(),) for role, secret in secrets.items()
    }
    assert not any(secret in result.output for secret in secrets.values())


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("kind", ["file", "link"])
def test_init_keeps_an_existing_file_and_writes_nothing(tmp_path: Path, name: str, kind: str) -> None:
    """Through a link, secrets would be written to a file that others may read."""
    path = tmp_path / name
    if kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(tmp_path / "elsewhere")
    result = run(tmp_path)
    assert (result.exit_code, f"{name}: it is there already" in result.output) == (1, True)
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert kind == "link" or path.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--listen", "8080"], "--listen: '8080' is not an address with a port"),
        (["--upstream", "foo"], "upstreams.api.endpoints.0: 'foo' is not an http or https URL"),
        (["--region", "a b"], "region: 'a b' is not a name"),
        (["--upstream", 'http://a"]}\nworkers: 9'], "upstreams.api.endpoints.0"),
    ],
)
def test_settings_that_cannot_be_used_leave_nothing_behind(tmp_path: Path, arguments: list[str], why: str) -> None:
    result = run(tmp_path / "x", *arguments)
    assert (result.exit_code, why in result.output) == (2, True), result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a${HOME}", "a\nb", "a?b"])
def test_a_directory_that_no_file_can_name_is_refused(tmp_path: Path, name: str) -> None:
    result = run(tmp_path / name)
    assert (result.exit_code, "cannot name this directory" in result.output) == (2, True)
    assert not list(tmp_path.iterdir())


def test_addresses_are_free_ports_or_those_of_the_options(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # Somebody else may have it already.
            taken.bind((HOST, 8080))
            taken.listen()
        assert run(tmp_path, "--admin", "[::1]:9090", "--collector", "10.0.0.5:9101").exit_code == 2
        assert run(tmp_path, "--admin", f"{HOST}:8081", "--collector", f"{HOST}:9777").exit_code == 0
    edge, collector = load_edge(tmp_path / "edge.yaml", {}), load_collector(tmp_path / "collector.yaml", {})
    ports = {*(each.address.port for each in edge.listen), *(each.address.port for each in collector.listen)}
    assert edge.admin.address is not None
    assert (edge.admin.address.port, collector.listen[0].address.port) == (8081, 9777)
    assert not ports & {8080, 8081}
    variables = dict(re.findall(r"export (\w+)=(.*)", (tmp_path / "operator.env").read_text()))
    assert variables["EDGEPROXY_COLLECTOR"] == "http://127.0.0.1:9777"
    assert variables["EDGEPROXY_EDGE"] == f"http://{edge.listen[0].address}"
    assert variables["EDGEPROXY_UPSTREAM"] == edge.upstreams["api"].endpoints[0].url


def test_files_that_are_there_say_how_to_begin_again(tmp_path: Path) -> None:
    (tmp_path / "edge.yaml").touch()
    assert f"to begin again, end what runs with it and remove it: rm -r {tmp_path}" in run(tmp_path).output
