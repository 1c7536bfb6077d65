"""Deployment files of the edge: image, compose file, systemd units, alerts, and the alerts page."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.base.scarce_goods import ScarceGood
from edgeproxy.collector.ledger.edges import EdgeStatus
from edgeproxy.collector.main import DRAIN_SECONDS
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.edge.load import load_edge
from edgeproxy.edge.metrics import METRICS
from loadtest.testbed.collector import sha256
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import until
from tests.support import absent_alerts
from tests.support.compose_files import read_compose

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "deploy" / "compose.yaml"
UNIT = ROOT / "deploy" / "edgeproxy.service"
UNIT_OF_PROBE = ROOT / "deploy" / "edgeproxy-probe.service"
UNIT_OF_BEACON = ROOT / "deploy" / "edgeproxy-beacon.service"
TIMERS = sorted((ROOT / "deploy").glob("*.timer"))
UNIT_OF_COLLECTOR = ROOT / "deploy" / "edgeproxy-collector.service"
PROMETHEUS = ROOT / "config" / "prometheus"
PAGE = (ROOT / "docs" / "operations" / "alerts.md").read_text()
TRUST = {"DIRECTORY_TRUST": f"ed25519:{'A' * 43}="}
"""The environment that config/edge.yaml requires."""
NOBODY = "65532"
"""The user id of the image."""

MEMORY = Path("/dev/shm")
"""A folder in memory, so that files need no disk."""
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on this machine")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here, as in most containers"
)


# ---- the image


def instructions(file: str = "Dockerfile") -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments, for all stages in order."""
    text = re.sub(r"\\\n\s*|^#.*\n", "", (ROOT / file).read_text(), flags=re.MULTILINE)
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def last_stage() -> dict[str, str]:
    """Return the instructions of the last stage, the edge's image."""
    found = instructions()
    begin = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    return dict(found[begin:])


@pytest.mark.checkout
def test_package_data_contains_every_file_that_is_not_a_module() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["edgeproxy"]
    packed = {path for pattern in patterns for path in (ROOT / "edgeproxy").glob(pattern)}
    tracked = subprocess.run(["git", "ls-files", "edgeproxy"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert packed == {
        ROOT / name for name in tracked.stdout.split() if not name.endswith((".py", ".pxd"))
    }  # Cython reads the .pxd files at build time only.


def test_image_installs_only_packages_with_hashes() -> None:
    words = [*instructions(), *instructions("deploy/jobs.Dockerfile")]
    commands = [command for name, rest in words if name == "RUN" for command in rest.split("&&")]
    installs = [command for command in commands if "pip " in command and " install " in command]
    assert len(installs) == 6
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command


def test_platforms_are_valid_for_builders_without_buildkit() -> None:
    """Docker's classic builder rejects an empty platform; buildah 1.28 rejects one without an architecture."""
    platforms = [
        words.split()[0] for name, words in instructions() if name == "FROM" and words.startswith("--platform")
    ]
    assert len(platforms) == 3
    for platform in platforms:
        assert re.fullmatch(r"--platform=\$\{(BUILD|TARGET)PLATFORM:-linux/amd64\}", platform)


@pytest.mark.skipif(shutil.which("buildah") is None, reason="there is no buildah on this machine")
def test_buildah_parses_the_dockerfile_up_to_the_base_image(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    isolated = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    stored = ("--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run"))
    command = ["buildah", *stored, "bud", "--pull-never", "--build-arg", "PYTHON=localhost/not-here", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60.0, env=isolated, check=False)
    assert "not-here" in done.stderr.splitlines()[-1], done.stderr


OWN_IMAGES = {"edgeproxy", "edgeproxy-address", "edgeproxy-upstream"}
"""Images that are built from the Dockerfile."""


def test_third_party_images_are_pinned_by_digest() -> None:
    stages = [words.split() for name, words in instructions() if name == "FROM"]
    assert {words[words.index("AS") - 1] for words in stages} == {"${PYTHON}", "${BUILD_PYTHON}"}
    assert ("ARG", "BUILD_PYTHON=${PYTHON}") in instructions()
    images = [words.partition("=")[2] for name, words in instructions() if words.startswith("PYTHON=")]
    services = yaml.safe_load(COMPOSE.read_text())["services"].values()
    images += [service["image"] for service in services if service["image"] not in OWN_IMAGES]
    assert len(images) > 1
    for image in images:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_image_runs_without_root_and_signals_reach_the_supervisor() -> None:
    stage = last_stage()
    assert stage["USER"] == f"{NOBODY}:{NOBODY}"
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(stage["ENTRYPOINT"]) == ["edgeproxy"]
    arguments = json.loads(stage["CMD"])
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{arguments[-1]}:1: file: {arguments[-1]} cannot be read")


def test_image_health_check_is_an_edgeproxy_command() -> None:
    name, *arguments = json.loads(last_stage()["HEALTHCHECK"].partition("CMD ")[2])
    assert name == "edgeproxy"
    with closing(Ports(1)) as ports:
        arguments[-1] = f"{HOST}:{ports.numbers[0]}"
        result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("nobody answers at")


# ---- the image's environment without Docker: another user, a read-only root, process 1

READS = "+dac_read_search"
"""The only capability kept: the Python of the tests may be in a home directory that is closed to others."""
SANDBOX = f"""
mount -t tmpfs -o size=64m,mode=0755 tmpfs /mnt
mkdir -m 0700 /mnt/state
chown {NOBODY}:{NOBODY} /mnt/state
printf %s "$CONFIG" >/mnt/edge.yaml
mount -o remount,bind,ro /
exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --no-new-privs \\
    --bounding-set=-all,{READS} --inh-caps=-all,{READS} --ambient-caps=-all,{READS} "$@"
"""
UNSHARE = (
    shutil.which("unshare") or "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation",
    "private",
)
WRITES = "import os, pathlib; assert os.getpid() == 1; pathlib.Path('/mnt/state/x').touch(); open('/x', 'w')"


def sandboxed(*command: str) -> list[str]:
    """Return a command line that runs `command` as the image does: read-only root, the image's user, process 1."""
    return [*UNSHARE, "sh", "-euc", SANDBOX, "sh", sys.executable, *command]


@pytest.fixture(scope="module")
def sandbox() -> None:
    """Skip the test if the sandbox cannot be created, for example without root."""
    environ = {**os.environ, "CONFIG": ""}
    tried = subprocess.run(sandboxed("-c", WRITES), check=False, capture_output=True, text=True, env=environ)
    if "Read-only file system: '/x'" not in tried.stderr:
        pytest.skip(f"no sandbox here: {tried.stderr[-200:]}")


@pytest.fixture
def contained(sandbox: None, tmp_path: Path) -> Iterator[tuple[Process, int]]:
    """A ready edge in the sandbox, and the port of its admin listener."""
    with closing(Ports(2)) as ports:
        settings = {
            "listen": f"{HOST}:{ports.numbers[0]}",
            "admin": f"{HOST}:{ports.numbers[1]}",
            "workers": 2,
            "state": "/mnt/state",
            "tables": {"customers": 1000, "addresses": 1000},
            "upstreams": {"api": {"endpoints": [f"http://{HOST}:1"]}},
            "routes": [{"path": "/*", "upstream": "api"}],
            "drain": "2s",
        }
        command = sandboxed("-B", "-m", "edgeproxy", "edge", "-c", "/mnt/edge.yaml")
        process = Process(command, tmp_path / "log", environ={"CONFIG": yaml.safe_dump(settings)})
        try:
            until(lambda: not process.running or ready(ports.numbers[1]), "the edge is ready")
            assert process.running, process.output
            yield process, ports.numbers[1]
        finally:
            process.stop()
            print(process.output)


def ready(admin: int) -> bool:
    """Return whether `/readyz` answers 200."""
    try:
        return ask(admin, "/readyz").status == 200
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Return the child processes of a process, zombies included."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers_of(supervisor: int) -> set[int]:
    """Return the workers of a supervisor, zombies included, without the template that forks them."""
    return {child for child in children(supervisor) if not command_of(child).endswith(b"\0template")}


def command_of(pid: int) -> bytes:
    """Return the command line of a process; empty for a zombie or an ended process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return b""


def state_of(pid: int) -> str:
    """Return the state letter of a process: S if it sleeps, Z for a zombie; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_edge_as_process_1_on_a_read_only_root_replaces_workers_and_exits_with_0(
    contained: tuple[Process, int],
) -> None:
    process, admin = contained
    (supervisor,) = children(process.pid)
    assert Path(f"/proc/{supervisor}/status").read_text().split("Uid:")[1].split()[0] == NOBODY
    workers = workers_of(supervisor)
    assert len(workers) == 2
    killed = min(workers)
    os.kill(killed, signal.SIGKILL)
    until(lambda: workers_of(supervisor) - workers, "the worker is replaced")
    until(lambda: not state_of(killed), "the process is no zombie")
    until(lambda: ready(admin), "the edge is ready")
    os.kill(supervisor, signal.SIGHUP)
    assert CliRunner().invoke(cli.app, ["probe", "--admin", f"{HOST}:{admin}"]).stdout == "ready\n"
    os.kill(supervisor, signal.SIGTERM)
    assert process.wait(20) == 0


# ---- the compose file


def services() -> dict[str, Any]:
    """Return the services of the compose file."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def demonstration() -> dict[str, Any]:
    """The services with the overlay that charges."""
    merged: dict[str, Any] = read_compose("compose.yaml", "compose.demo.yaml")["services"]
    return merged


def test_compose_services_have_existing_volumes_and_build_stages() -> None:
    assert set(services()) == {
        "edge",
        "edge-address",
        "upstream",
        "collector",
        "redis",
        "prometheus",
        "alertmanager",
        "grafana",
        "probe",
    }
    assert set(demonstration()) == {*services(), "collector-address", "stripe"}
    stages = re.findall(r"^FROM .* AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    volumes = read_compose("compose.yaml", "compose.demo.yaml")["volumes"]
    for name, service in demonstration().items():
        assert service["read_only"], name
        if "build" in service:
            assert (COMPOSE.parent / service["build"]["context"]).resolve() == ROOT
            assert service["build"]["target"] in stages
        else:
            assert not service["image"].endswith(":latest")
        for mounted in service.get("volumes", ()):
            source = mounted.split(":")[0]
            assert source in volumes or (COMPOSE.parent / source).is_dir(), source


def test_compose_files_match_their_schema(tmp_path: Path) -> None:
    files = tmp_path / "compose.yaml", tmp_path / "demo.yaml"
    for file, names in zip(files, (("compose.yaml",), ("compose.yaml", "compose.demo.yaml")), strict=True):
        file.write_text(yaml.safe_dump(read_compose(*names)))
    # One process: its imports are most of its work.
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_networks_connect_only_the_required_services() -> None:
    known = yaml.safe_load(COMPOSE.read_text())["networks"]
    # The edge uses the network of the service edge-address, which has the alias "edge".
    joined = {name: set(service["networks"]) for name, service in services().items() if "network_mode" not in service}
    assert {tuple(network["aliases"]) for network in services()["edge-address"]["networks"].values()} == {("edge",)}
    there = {"edge" if name == "edge-address" else name: networks for name, networks in joined.items()}
    assert there.keys() == services().keys() - {"edge-address"}
    assert set().union(*there.values()) == set(known)
    reached = {frozenset((one, other)) for one in there for other in there if one < other and there[one] & there[other]}
    for pair in (("edge", "upstream"), ("edge", "redis"), ("edge", "collector"), ("prometheus", "edge")):
        assert frozenset(pair) in reached, pair
    assert {tuple(pair - {"redis"}) for pair in reached if "redis" in pair} == {("edge",)}
    assert {tuple(pair - {"upstream"}) for pair in reached if "upstream" in pair} == {("edge",)}
    for name in ("upstream", "redis"):
        assert all(known[network]["internal"] for network in there[name]), "the network has no way out"
        assert "ports" not in services()[name]


def collector_environ(service: dict[str, Any]) -> dict[str, str]:
    """The environment of a collector of compose, with the plans of this tree."""
    assert service["environment"]["PLANS"] == "/etc/edgeproxy/plans.yaml"
    return {**service["environment"], "PLANS": str(ROOT / "config" / "plans.yaml")}


def test_compose_file_has_billing_off() -> None:
    environ = collector_environ(services()["collector"])
    assert load_collector(ROOT / "config" / "collector.yaml", environ).billing.mode == "off"
    assert not [name for name in environ if name.startswith("STRIPE_")]


def test_demonstration_charges_only_at_its_sandbox_and_with_its_own_secrets() -> None:
    """Neither a real key nor another base can come from outside, and no port leads to the sandbox."""
    collector, stripe, probe = (demonstration()[name] for name in ("collector", "stripe", "probe"))
    settings = load_collector(ROOT / "config" / "collector.yaml", collector_environ(collector)).billing
    listen = stripe["command"][stripe["command"].index("--listen") + 1]
    assert (settings.mode, settings.stripe.base) == ("live", f"http://{listen}")
    assert listen.startswith("127.0.0.1:")
    charging = [value for name, value in collector["environment"].items() if name.startswith(("STRIPE_", "BILLING_"))]
    assert not [value for value in charging if "$" in value]
    assert collector["environment"]["STRIPE_WEBHOOK_SECRETS"] == stripe["environment"]["STRIPE_WEBHOOK_SECRETS"]
    state = Path(stripe["command"][stripe["command"].index("--state") + 1])
    assert f"stripe:{state.parent}" in stripe["volumes"], "the ledger has ids of its objects"
    # A container that only sleeps owns their network, so it stays while one of them restarts.
    owner = demonstration()["collector-address"]
    assert "command" not in owner
    for service in (collector, stripe, probe):
        assert service["network_mode"] == "service:collector-address"
        assert not service.keys() & {"networks", "ports"}, "Docker takes neither beside another's network"
    assert owner["ports"] == services()["collector"]["ports"]
    assert owner["networks"].keys() == set(services()["collector"]["networks"])
    names = {name for network in owner["networks"].values() for name in network["aliases"]}
    assert names == {"collector", "probe"}, "Prometheus and the edge find them by these"
    assert {"--charge", "--checkout"} <= set(probe["command"])


def test_compose_edge_settings_match_its_ports_and_drain_time() -> None:
    edge = services()["edge"]
    environ = TRUST | {name: value for name, value in edge["environment"].items() if not value.startswith("$")}
    settings = load_edge(ROOT / "config" / "edge.yaml", environ)
    assert [str(listener.address) for listener in settings.listen] == ["0.0.0.0:8080"]
    assert str(settings.admin.address) == "0.0.0.0:9090"
    assert {"edge", "127.0.0.1"} <= set(settings.admin.hosts), "Prometheus and who comes by the published port"
    assert sha256("demo-admin-token") in settings.admin.tokens[0].sha256
    assert any(volume.endswith(f":{settings.state}") for volume in edge["volumes"])
    assert int(edge["stop_grace_period"].removesuffix("s")) > settings.drain
    (entry,) = [rest for name, rest in instructions() if name == "ENTRYPOINT" and "gunicorn" in rest]
    assert f"0.0.0.0:{environ['API_URL'].rpartition(':')[2]}" in json.loads(entry)
    for published in services()["edge-address"]["ports"]:
        if published.endswith(":9090"):
            assert published.startswith("127.0.0.1:"), "the port is published on loopback only"


def test_compose_collector_accepts_the_edges_usage() -> None:
    collector, edge = services()["collector"], services()["edge"]
    assert collector["image"] == edge["image"]
    settings = load_collector(ROOT / "config" / "collector.yaml", collector_environ(collector))
    url = edge["environment"]["COLLECTOR_URL"]
    assert url == f"http://collector:{settings.listen[0].address.port}"
    environ = TRUST | {name: value for name, value in edge["environment"].items() if not value.startswith("$")}
    usage = load_edge(ROOT / "config" / "edge.yaml", environ).usage
    assert usage is not None
    assert usage.collector == url
    assert usage.token is not None
    (role,) = [token.role for token in settings.tokens if sha256(usage.token) in token.sha256]
    assert role == "edge"
    assert edge["environment"]["COLLECTOR_TOKEN"] == f"${{COLLECTOR_TOKEN:-{usage.token}}}"
    volume = next(mounted.split(":")[1] for mounted in collector["volumes"] if mounted.startswith("ledger:"))
    assert settings.database == f"sqlite:///{volume}/ledger.db"
    keygen = f"collector directory keygen {collector['environment']['DIRECTORY_KEY']})"
    assert keygen in COMPOSE.read_text(), "what signs is made, and whom to trust is said"
    assert Path(collector["environment"]["DIRECTORY_KEY"]).is_relative_to(volume)
    assert edge["environment"]["DIRECTORY_TRUST"] == "${DIRECTORY_TRUST:-}"
    name, *arguments = collector["command"]
    result = CliRunner().invoke(cli.app, [name, *arguments])
    assert (result.exit_code, result.stderr.split(": ")[1]) == (2, "file")
    # The collector answers its health check. The edge does not depend on the collector.
    assert collector["healthcheck"]["test"][1:3] == ["edgeproxy", "probe"]
    assert collector["healthcheck"]["test"][-1].endswith(f":{settings.listen[0].address.port}")
    assert "collector" not in edge["depends_on"]
    assert int(collector["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS


# ---- the units


def unit(file: Path = UNIT) -> dict[str, list[str]]:
    """Return the settings of a unit, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_edge_unit_starts_the_edge_and_waits_longer_than_it_drains() -> None:
    found = unit()
    assert found["Type"] == ["notify"]
    (start,) = found["ExecStart"]
    command, *arguments = shlex.split(start)
    assert command.endswith("/bin/edgeproxy")
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert "/etc/edgeproxy/edge.yaml cannot be read" in result.stderr
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert found["KillMode"] == ["process"], "workers outlive a supervisor that is killed"
    assert "RemoveIPC" not in found, "systemd would empty a tables.dir in /dev/shm"
    settings = load_edge(ROOT / "config" / "edge.yaml", TRUST)
    assert int(found["TimeoutStopSec"][0].removesuffix("s")) > settings.drain + 1
    assert int(found["LimitNOFILE"][0]) > settings.limits.connections


def test_collector_unit_starts_reloads_and_always_restarts_it() -> None:
    found = unit(UNIT_OF_COLLECTOR)
    (start,) = found["ExecStart"]
    command, *arguments = shlex.split(start)
    assert command.endswith("/bin/edgeproxy")
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert "/etc/edgeproxy/collector.yaml cannot be read" in result.stderr
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert int(found["TimeoutStopSec"][0].removesuffix("s")) > DRAIN_SECONDS
    assert found["Restart"] == ["always"]
    assert "RestartPreventExitStatus" not in found, "the database of another host may not be there yet"
    assert found["User"] != unit()["User"], "the edge's user cannot read the ledger"


def test_beacon_unit_starts_the_beacon() -> None:
    found = unit(UNIT_OF_BEACON)
    (start,) = found["ExecStart"]
    result = CliRunner().invoke(cli.app, shlex.split(start)[1:])
    assert result.exit_code == 2
    assert "/etc/edgeproxy/regions.yaml cannot be read" in result.stderr


def probe(arguments: list[str], secrets: dict[str, str]) -> Result:
    """Run the probe once with a command line from a deployment file, against a port without a server."""
    assert arguments.pop(0) == "probe"
    with closing(Ports(1)) as ports:
        for option in ("--through", "--collector"):
            arguments[arguments.index(option) + 1] = f"http://{HOST}:{ports.numbers[0]}"
        return CliRunner(env=secrets).invoke(cli.app, ["probe", *arguments])


def test_probe_unit_runs_one_round_and_writes_its_metrics_file(tmp_path: Path) -> None:
    found = unit(UNIT_OF_PROBE)
    assert found["Type"] == ["oneshot"]
    (start,) = found["ExecStart"]
    command, *arguments = shlex.split(start)
    assert command.endswith("/bin/edgeproxy")
    arguments[arguments.index("$PROBE_OPTIONS")] = "--charge"
    assert arguments[-1].startswith(f"/var/lib/{found['StateDirectory'][0]}/")
    arguments[-1] = str(tmp_path / "edgeproxy.prom")
    result = probe(arguments, {"EDGEPROXY_PROBE_KEY": "k", "EDGEPROXY_PROBE_TOKEN": "t"})
    assert result.exit_code == 1
    assert 'step="request"} 0.0' in (tmp_path / "edgeproxy.prom").read_text()
    assert set(re.findall(r"[A-Z]+_[A-Z_]+", UNIT_OF_PROBE.read_text())) >= {"EDGEPROXY_PROBE_KEY", "PROBE_THROUGH"}


def test_compose_probe_uses_the_key_and_token_of_the_demo_customer() -> None:
    service, edge = services()["probe"], services()["edge"]
    assert "import -c /etc/edgeproxy/demo.yaml" in COMPOSE.read_text(), "how the customer comes to be"
    name, *arguments = service["command"]
    assert name == "probe"
    secrets = {name: value.partition(":-")[2].rstrip("}") for name, value in service["environment"].items()}
    settings = load_collector(ROOT / "config" / "demo.yaml", {})
    (customer,) = [key.customer for key in settings.keys if key.sha256 == sha256(secrets["EDGEPROXY_PROBE_KEY"])]
    (owner,) = [token.customer for token in settings.tokens if sha256(secrets["EDGEPROXY_PROBE_TOKEN"]) in token.sha256]
    assert owner == customer, "the token reads the usage of the customer whose key is used"
    assert arguments[arguments.index("--through") + 1].startswith("http://edge:8080/")
    assert arguments[arguments.index("--collector") + 1] == edge["environment"]["COLLECTOR_URL"]


def find_started_unit(file: Path) -> Path:
    """Return the unit that a timer starts, or the file itself if it is not a timer."""
    if file.suffix != ".timer":
        return file
    named = unit(file).get("Unit", [f"{file.stem}.service"])[0]
    return file.with_name(re.sub(r"@.*\.service", "@.service", named))


@needs_systemd
@pytest.mark.parametrize(
    "file", [UNIT, UNIT_OF_COLLECTOR, UNIT_OF_PROBE, UNIT_OF_BEACON, *TIMERS], ids=lambda file: file.name
)
def test_systemd_verifies_the_units(file: Path, tmp_path: Path) -> None:
    for unit in {file, find_started_unit(file)}:
        copy = tmp_path / unit.name
        copy.write_text(re.sub(r"/opt/edgeproxy/\S+/(edgeproxy|job)", "/bin/true", unit.read_text()))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / file.name)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# ---- the alerts

RULE_FILES = [PROMETHEUS / name for name in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["rule_files"]]
RULES = [rule for file in RULE_FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
TRIALS = ("tests/alerts.yml", "tests/alerts_of_hours.yml", "tests/alerts_of_days.yml")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
PARTS = {name + suffix: metric for name, metric in METRICS.items() for suffix in SUFFIXES[metric.kind]}
"""The edge's metrics by the names of their samples in Prometheus."""


def told_by_collector() -> dict[str, tuple[str, ...]]:
    """Return the names of the collector's samples and their labels."""
    metrics = Metrics()
    metrics.expiry = lambda: {"collector.pem": 0.0}
    metrics.row_security = lambda: True
    metrics.goods.append(ScarceGood("mails", lambda: 100, lambda: 0))
    standing = EdgeStatus(edges=1, retired=0, gaps=0, quarantined=0, until={"edge-1": 0}, gaps_of={"edge-1": 0})
    families = text_string_to_metric_families(metrics.exposition(True, standing).decode())
    return {sample.name: tuple(sample.labels) for family in families for sample in family.samples}


TOLD = {name: metric.labels for name, metric in PARTS.items()} | told_by_collector()


def check_asks_for_what_is_told(expression: str) -> None:
    """Assert that each metric of an expression exists with the labels used, or that a rule records it."""
    assert set(re.findall(r"\b\w+:\w+:\w+", expression)) <= RECORDED
    for name in re.findall(r"(?<![:\w])(?:edge|collector)_\w+", expression):
        assert name in TOLD, name
    for name, matchers in re.findall(r"\b((?:edge|collector)_\w+)\{(.*?)\}", expression):
        labels = re.findall(r"(\w+)(?:=|!=|=~|!~)\"", matchers)
        told = (*TOLD[name], "le") if name.endswith("_bucket") else TOLD[name]
        assert set(labels) <= {"job", *told}, name


@pytest.mark.parametrize("rule", [rule for rule in RULES if "record" in rule], ids=lambda rule: rule["record"])
def test_recording_rule_uses_existing_metrics_and_labels(rule: dict[str, Any]) -> None:
    check_asks_for_what_is_told(rule["expr"])


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alert_uses_existing_metrics_and_links_to_its_runbook(rule: dict[str, Any]) -> None:
    check_asks_for_what_is_told(rule["expr"])
    assert rule["labels"]["severity"] in ("warning", "critical") or rule["alert"] == "Watchdog"
    assert rule["labels"]["team"] in ("platform", "billing", "security")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    page, _, anchor = notes["runbook_url"].partition("#")
    assert page == "{{ $externalLabels.runbooks }}docs/operations/alerts.md"
    assert anchor in {heading.lower() for heading in headings()}
    assert f"`{rule['alert']}`" in PAGE or rule["alert"] in headings()


ABSENT = [rule for group in yaml.safe_load(absent_alerts.FILE.read_text())["groups"] for rule in group["rules"]]


@needs_promtool
def test_absent_metric_alerts_fire_and_end_and_ignore_targets_that_are_down(
    tmp_path: Path,
) -> None:
    """The metrics are absent for 25 minutes. A second pair of targets is down and has no metrics at all."""
    there = dict.fromkeys(('up{job="edgeproxy", instance="a"}', 'up{job="collector", instance="a"}'), "1x60")
    there |= {name.replace('"a"', '"b"'): "0x60" for name in there}
    for guard in set(absent_alerts.GUARDS.values()):
        job = "edgeproxy" if guard.startswith("edge_") else "collector"
        there[f'{guard}{{job="{job}", instance="a"}}'] = "1x60"
    for rule in ABSENT:
        metric, job = re.search(r"unless on \(job, instance\) (\w+)\{(job=\"\w+\")", rule["expr"]).groups()  # type: ignore[union-attr]
        there.setdefault(f'{metric}{{{job}, instance="a"}}', "_x25 1x35")
    firing = 'count(ALERTS{alertname="MetricAbsent", alertstate="firing"}) or vector(0)'
    looks = [
        {"expr": firing, "eval_time": f"{minutes}m", "exp_samples": [{"value": count}]}
        for minutes, count in ((14, 0), (20, len(ABSENT)), (40, 0))
    ]
    series = [{"series": name, "values": values} for name, values in there.items()]
    trial = {"interval": "1m", "input_series": series, "promql_expr_test": looks}
    file = tmp_path / "absent.yml"
    settings = {"rule_files": [str(absent_alerts.FILE)], "evaluation_interval": "1m", "tests": [trial]}
    file.write_text(yaml.safe_dump(settings))
    done = subprocess.run(["promtool", "test", "rules", file], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_metric_read_by_rules_has_an_absence_alert() -> None:
    assert absent_alerts.FILE.read_text() == absent_alerts.render(), "python -m tests.support.absent_alerts writes it"
    read = absent_alerts.list_metrics()
    assert set(absent_alerts.SOMETIMES) <= set(read)
    assert all(absent_alerts.SOMETIMES.values())


def headings() -> list[str]:
    """Return the headings of the alerts page."""
    return re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)


def test_every_alert_has_a_trial_and_names_a_scraped_job() -> None:
    tried = "".join((ROOT / file).read_text() for file in TRIALS)
    for rule in ALERTS:
        if rule["alert"] == "Watchdog":
            continue  # e2e/test_alertmanager.py tests it.
        if rule in ABSENT:
            continue  # The test of absent metrics covers these.
        assert f'alertname="{rule["alert"]}"' in tried, rule["alert"]
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {job["job_name"] for job in jobs}
    assert {name for rule in ALERTS for name in re.findall(r'job="(\w+)"', rule["expr"])} == scraped
    for job in jobs:
        (target,) = job["static_configs"][0]["targets"]
        assert target.split(":")[0] in services()


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "config/prometheus/prometheus.yml"),
        ("check", "rules", *(str(file) for file in RULE_FILES)),
        *(("test", "rules", trials) for trials in TRIALS),
    ],
    ids=lambda arguments: (
        " ".join(arguments[:2]) + "".join(f" {argument}" for argument in arguments[2:] if argument in TRIALS)
    ),
)
def test_promtool_accepts_the_files_and_alert_trials_pass(arguments: tuple[str, ...]) -> None:
    # Garbage collection was a quarter of the work. Each case has a database, and a disk would sync each of its files.
    environ = {**os.environ, "GOGC": "400", **({"TMPDIR": str(MEMORY)} if os.access(MEMORY, os.W_OK) else {})}
    done = subprocess.run(["promtool", *arguments], check=False, cwd=ROOT, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
