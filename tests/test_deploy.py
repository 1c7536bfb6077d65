"""What the edge is deployed and watched with: image, compose file, unit, alerts, and the page about them."""

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
"""What whoever starts the edge of config/edge.yaml has to say."""
NOBODY = "65532"
"""The user of the image."""

MEMORY = Path("/dev/shm")
"""Where files need no disk."""
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on this machine")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here, as in most containers"
)


# ---- the image


def instructions(file: str = "Dockerfile") -> list[tuple[str, str]]:
    """Those of a file, with what follows each; of the Dockerfile's last stage, the edge, and of those before it."""
    text = re.sub(r"\\\n\s*|^#.*\n", "", (ROOT / file).read_text(), flags=re.MULTILINE)
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def last_stage() -> dict[str, str]:
    """The instructions that make the image of the edge."""
    found = instructions()
    begin = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    return dict(found[begin:])


def test_every_file_of_the_package_that_is_no_module_is_packed() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["edgeproxy"]
    packed = {path for pattern in patterns for path in (ROOT / "edgeproxy").glob(pattern)}
    tracked = subprocess.run(["git", "ls-files", "edgeproxy"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert packed == {
        ROOT / name for name in tracked.stdout.split() if not name.endswith((".py", ".pxd"))
    }  # What compiles it is read where it is built.


def test_the_image_installs_nothing_without_a_hash() -> None:
    words = [*instructions(), *instructions("deploy/jobs.Dockerfile")]
    commands = [command for name, rest in words if name == "RUN" for command in rest.split("&&")]
    installs = [command for command in commands if "pip " in command and " install " in command]
    assert len(installs) == 5
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command


def test_builders_without_buildkit_read_the_platforms() -> None:
    """Docker's classic builder takes no empty platform, and buildah 1.28 none without an architecture."""
    platforms = [
        words.split()[0] for name, words in instructions() if name == "FROM" and words.startswith("--platform")
    ]
    assert len(platforms) == 2
    for platform in platforms:
        assert re.fullmatch(r"--platform=\$\{(BUILD|TARGET)PLATFORM:-linux/amd64\}", platform)


@pytest.mark.skipif(shutil.which("buildah") is None, reason="there is no buildah on this machine")
def test_buildah_gets_as_far_as_the_base(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    isolated = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    stored = ("--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run"))
    command = ["buildah", *stored, "bud", "--pull-never", "--build-arg", "PYTHON=localhost/not-here", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60.0, env=isolated, check=False)
    assert "not-here" in done.stderr.splitlines()[-1], done.stderr


OWN_IMAGES = {"edgeproxy", "edgeproxy-address", "edgeproxy-upstream"}
"""Built here, of the Dockerfile."""


def test_images_of_others_are_named_by_digest() -> None:
    stages = [words.split() for name, words in instructions() if name == "FROM"]
    assert {words[words.index("AS") - 1] for words in stages} == {"${PYTHON}", "${BUILD_PYTHON}"}
    assert ("ARG", "BUILD_PYTHON=${PYTHON}") in instructions()
    images = [words.partition("=")[2] for name, words in instructions() if words.startswith("PYTHON=")]
    services = yaml.safe_load(COMPOSE.read_text())["services"].values()
    images += [service["image"] for service in services if service["image"] not in OWN_IMAGES]
    assert len(images) > 1
    for image in images:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_the_image_is_not_roots_and_signals_reach_the_supervisor() -> None:
    stage = last_stage()
    assert stage["USER"] == f"{NOBODY}:{NOBODY}"
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(stage["ENTRYPOINT"]) == ["edgeproxy"]
    arguments = json.loads(stage["CMD"])
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{arguments[-1]}:1: file: {arguments[-1]} cannot be read")


def test_the_health_check_of_the_image_is_a_command_of_the_edge() -> None:
    name, *arguments = json.loads(last_stage()["HEALTHCHECK"].partition("CMD ")[2])
    assert name == "edgeproxy"
    with closing(Ports(1)) as ports:
        arguments[-1] = f"{HOST}:{ports.numbers[0]}"
        result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("nobody answers at")


# ---- the same without Docker: another user, a root that cannot be written, process 1

READS = "+dac_read_search"
"""The only capability left: the Python that runs the tests may be in a home that is closed to others."""
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
    """The command line that runs this one as the image would: on a read-only root, as its user, as process 1."""
    return [*UNSHARE, "sh", "-euc", SANDBOX, "sh", sys.executable, *command]


@pytest.fixture(scope="module")
def sandbox() -> None:
    """Skips where there can be none: it takes root."""
    environ = {**os.environ, "CONFIG": ""}
    tried = subprocess.run(sandboxed("-c", WRITES), check=False, capture_output=True, text=True, env=environ)
    if "Read-only file system: '/x'" not in tried.stderr:
        pytest.skip(f"no sandbox here: {tried.stderr[-200:]}")


@pytest.fixture
def contained(sandbox: None, tmp_path: Path) -> Iterator[tuple[Process, int]]:
    """An edge in the sandbox, ready, and the port of its admin listener."""
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
    """Whether `/readyz` says so."""
    try:
        return ask(admin, "/readyz").status == 200
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The children of a process, zombies among them."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers_of(supervisor: int) -> set[int]:
    """Its workers, zombies among them; not the template that they are forked from."""
    return {child for child in children(supervisor) if not command_of(child).endswith(b"\0template")}


def command_of(pid: int) -> bytes:
    """The command line of a process, empty for a zombie and where there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return b""


def state_of(pid: int) -> str:
    """A letter: S for one that sleeps, Z for a zombie; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_an_edge_that_is_process_1_of_a_read_only_root_serves_replaces_workers_and_ends_with_0(
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
    until(lambda: not state_of(killed), "it is no zombie")
    until(lambda: ready(admin), "the edge is ready")
    os.kill(supervisor, signal.SIGHUP)
    assert CliRunner().invoke(cli.app, ["probe", "--admin", f"{HOST}:{admin}"]).stdout == "ready\n"
    os.kill(supervisor, signal.SIGTERM)
    assert process.wait(20) == 0


# ---- the compose file


def services() -> dict[str, Any]:
    """Those of the compose file."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def test_compose_has_the_edge_and_what_is_around_it_with_the_files_that_they_want() -> None:
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
        "stripe",
    }
    stages = re.findall(r"^FROM .* AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for name, service in services().items():
        assert service["read_only"], name
        if "build" in service:
            assert (COMPOSE.parent / service["build"]["context"]).resolve() == ROOT
            assert service["build"]["target"] in stages
        else:
            assert not service["image"].endswith(":latest")
        for mounted in service.get("volumes", ()):
            source = mounted.split(":")[0]
            assert source in volumes or (COMPOSE.parent / source).is_dir(), source


def test_compose_is_as_its_specification_has_it() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_lets_speak_to_each_other_only_who_have_to() -> None:
    known = yaml.safe_load(COMPOSE.read_text())["networks"]
    # That of the edge is of a service whose place it has there, by its name.
    joined = {name: set(service["networks"]) for name, service in services().items() if "network_mode" not in service}
    # The probe and the sandbox share the collector's network: the sandbox listens on its loopback alone.
    guests = {name: service.get("network_mode") for name, service in services().items() if "network_mode" in service}
    assert guests == {"edge": "service:edge-address", **dict.fromkeys(("probe", "stripe"), "service:collector")}
    assert services()["collector"]["networks"]["metrics"]["aliases"] == ["probe"], "by which Prometheus reaches it"
    assert any(word.startswith("127.0.0.1:") for word in services()["stripe"]["command"])
    assert {tuple(each["aliases"]) for each in services()["edge-address"]["networks"].values()} == {("edge",)}
    there = {"edge" if name == "edge-address" else name: networks for name, networks in joined.items()}
    assert there.keys() == services().keys() - {"edge-address", "probe", "stripe"}
    assert set().union(*there.values()) == set(known)
    reached = {frozenset((one, other)) for one in there for other in there if one < other and there[one] & there[other]}
    for pair in (("edge", "upstream"), ("edge", "redis"), ("edge", "collector"), ("prometheus", "edge")):
        assert frozenset(pair) in reached, pair
    assert {tuple(pair - {"redis"}) for pair in reached if "redis" in pair} == {("edge",)}
    assert {tuple(pair - {"upstream"}) for pair in reached if "upstream" in pair} == {("edge",)}
    for name in ("upstream", "redis"):
        assert all(known[network]["internal"] for network in there[name]), "it has no way out"
        assert "ports" not in services()[name]


def test_compose_gives_the_edge_a_configuration_that_fits_its_ports_and_time_to_drain() -> None:
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
            assert published.startswith("127.0.0.1:"), "it is not for the public"


def test_compose_gives_the_edge_a_collector_that_takes_what_it_ships() -> None:
    collector, edge = services()["collector"], services()["edge"]
    assert collector["image"] == edge["image"]
    defaults = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in collector["environment"].items()}
    environ = {**defaults, "PLANS": str(ROOT / "config" / "plans.yaml")}
    assert environ["PLANS"] != collector["environment"]["PLANS"] == "/etc/edgeproxy/plans.yaml"
    settings = load_collector(ROOT / "config" / "collector.yaml", environ)
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
    # Its health check is one that it answers, and an edge that outlives it waits for nothing of it.
    assert collector["healthcheck"]["test"][1:3] == ["edgeproxy", "probe"]
    assert collector["healthcheck"]["test"][-1].endswith(f":{settings.listen[0].address.port}")
    assert "collector" not in edge["depends_on"]
    assert int(collector["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS


# ---- the units


def unit(file: Path = UNIT) -> dict[str, list[str]]:
    """The settings of a unit, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_starts_a_command_of_the_edge_and_waits_longer_than_it_drains() -> None:
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
    assert "RemoveIPC" not in found, "it would empty a tables.dir in /dev/shm"
    settings = load_edge(ROOT / "config" / "edge.yaml", TRUST)
    assert int(found["TimeoutStopSec"][0].removesuffix("s")) > settings.drain + 1
    assert int(found["LimitNOFILE"][0]) > settings.limits.connections


def test_the_unit_of_the_collector_starts_it_reloads_it_and_tries_again_whatever_it_ended_with() -> None:
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
    assert found["User"] != unit()["User"], "whoever has the edge has not the ledger"


def test_the_unit_of_the_beacon_starts_it() -> None:
    found = unit(UNIT_OF_BEACON)
    (start,) = found["ExecStart"]
    result = CliRunner().invoke(cli.app, shlex.split(start)[1:])
    assert result.exit_code == 2
    assert "/etc/edgeproxy/regions.yaml cannot be read" in result.stderr


def probe(arguments: list[str], secrets: dict[str, str]) -> Result:
    """What the probe does with a command line of ours, once, where nobody answers."""
    assert arguments.pop(0) == "probe"
    with closing(Ports(1)) as ports:
        for option in ("--through", "--collector"):
            arguments[arguments.index(option) + 1] = f"http://{HOST}:{ports.numbers[0]}"
        return CliRunner(env=secrets).invoke(cli.app, ["probe", *arguments])


def test_the_unit_of_the_probe_makes_one_round_with_its_secrets_and_where_metrics_are_read(tmp_path: Path) -> None:
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


def test_compose_probes_its_edge_with_a_key_and_a_token_of_the_demonstration() -> None:
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
    """Return the unit that a timer starts, or the file itself where it is none."""
    if file.suffix != ".timer":
        return file
    named = unit(file).get("Unit", [f"{file.stem}.service"])[0]
    return file.with_name(re.sub(r"@.*\.service", "@.service", named))


@needs_systemd
@pytest.mark.parametrize(
    "file", [UNIT, UNIT_OF_COLLECTOR, UNIT_OF_PROBE, UNIT_OF_BEACON, *TIMERS], ids=lambda file: file.name
)
def test_systemd_understands_the_units(file: Path, tmp_path: Path) -> None:
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
"""What Prometheus knows of an edge, by the names of its samples."""


def told_by_collector() -> dict[str, tuple[str, ...]]:
    """The samples of a collector and their labels."""
    metrics = Metrics()
    metrics.expiry = lambda: {"collector.pem": 0.0}
    metrics.row_security = lambda: True
    metrics.goods.append(ScarceGood("mails", lambda: 100, lambda: 0))
    standing = EdgeStatus(edges=1, retired=0, gaps=0, quarantined=0, until={"edge-1": 0}, gaps_of={"edge-1": 0})
    families = text_string_to_metric_families(metrics.exposition(True, standing).decode())
    return {sample.name: tuple(sample.labels) for family in families for sample in family.samples}


TOLD = {name: metric.labels for name, metric in PARTS.items()} | told_by_collector()


def check_asks_for_what_is_told(expression: str) -> None:
    """Every metric of this expression is told by something, with the labels that it asks for, or is recorded."""
    assert set(re.findall(r"\b\w+:\w+:\w+", expression)) <= RECORDED
    for name in re.findall(r"(?<![:\w])(?:edge|collector)_\w+", expression):
        assert name in TOLD, name
    for name, matchers in re.findall(r"\b((?:edge|collector)_\w+)\{(.*?)\}", expression):
        labels = re.findall(r"(\w+)(?:=|!=|=~|!~)\"", matchers)
        told = (*TOLD[name], "le") if name.endswith("_bucket") else TOLD[name]
        assert set(labels) <= {"job", *told}, name


@pytest.mark.parametrize("rule", [rule for rule in RULES if "record" in rule], ids=lambda rule: rule["record"])
def test_what_is_recorded_is_made_of_what_is_told(rule: dict[str, Any]) -> None:
    check_asks_for_what_is_told(rule["expr"])


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_told_and_says_what_to_do(rule: dict[str, Any]) -> None:
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
def test_each_alert_for_an_absent_metric_fires_and_ends_and_one_of_a_target_that_is_down_does_not(
    tmp_path: Path,
) -> None:
    """The metrics are away for 25 minutes and then there. Another pair of targets is down, and sells nothing."""
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


def test_each_metric_that_is_read_has_an_alert_for_its_absence() -> None:
    assert absent_alerts.FILE.read_text() == absent_alerts.render(), "python -m tests.support.absent_alerts writes it"
    read = absent_alerts.list_metrics()
    assert set(absent_alerts.SOMETIMES) <= set(read)
    assert all(absent_alerts.SOMETIMES.values())


def headings() -> list[str]:
    """Those of the page of alerts."""
    return re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)


def test_every_alert_is_tried_and_its_job_is_the_one_that_is_scraped() -> None:
    tried = "".join((ROOT / file).read_text() for file in TRIALS)
    for rule in ALERTS:
        if rule["alert"] == "Watchdog":
            continue  # e2e/test_alertmanager.py has seen it arrive.
        if rule in ABSENT:
            continue  # Each of these is tried below.
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
    ids=lambda arguments: " ".join(arguments[:2]) + "".join(f" {each}" for each in arguments[2:] if each in TRIALS),
)
def test_prometheus_understands_its_files_and_the_alerts_fire_when_they_should(arguments: tuple[str, ...]) -> None:
    # Collecting garbage was a quarter of the work, and each case has a database, of which a disk would sync each file.
    environ = {**os.environ, "GOGC": "400", **({"TMPDIR": str(MEMORY)} if os.access(MEMORY, os.W_OK) else {})}
    done = subprocess.run(["promtool", *arguments], check=False, cwd=ROOT, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
