"""The chart in deploy/helm renders valid, complete manifests and rolls out without a lost request."""

import json
import re
import shutil
import subprocess
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.edge.metrics import METRICS
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.testbed.collector import Collector
from loadtest.testbed.customers import TIERS, UNLIMITED, key_line
from loadtest.testbed.load_clients import Load, Plan
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.chart import ENVIRON, helm, render
from tests.support.collector_fixtures import StartCollector, only_sqlite
from tests.support.kubelet import Pod, Service, ready_pods, roll_out
from tests.test_deploy import needs_promtool

ROOT = Path(__file__).parents[1]
VOLUME_BYTES_MAX = 64 << 20
"""The size of the tables in values.yaml."""
POD_OPTIONS: dict[str, Any] = {
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "priorityClassName": "high",
    "podLabels": {"team": "edges"},
    "podAnnotations": {"example.com/scrape": "no"},
    "serviceAccount": {
        "create": True,
        "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/a"},
    },
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
    "extraEnvFrom": [{"configMapRef": {"name": "site"}}],
    "extraVolumes": [{"name": "authorities", "configMap": {"name": "authorities"}}],
    "extraVolumeMounts": [{"name": "authorities", "mountPath": "/etc/authorities", "readOnly": True}],
    "extraContainers": [{"name": "beside", "image": "registry.example.com/beside"}],
    "initContainers": [{"name": "before", "image": "registry.example.com/before"}],
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db.example.com"]}],
    "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
}
"""All options for the pods of a component."""
PROBE_OPTIONS = (
    *("nodeSelector", "tolerations", "affinity", "priorityClassName", "hostAliases", "dnsConfig"),
    *("extraEnv", "extraVolumes", "extraVolumeMounts"),
)
EVERYTHING: dict[str, Any] = {
    "edge": {"autoscaling": {"loopLag": "5m"}, **POD_OPTIONS},
    "collector": POD_OPTIONS,
    "ipFamilyPolicy": "RequireDualStack",
    "ipFamilies": ["IPv6", "IPv4"],
    "listenAddresses": ["[::]", "0.0.0.0"],
    "jobs": {"enabled": True, "claim": "backups", "image": {"digest": f"sha256:{'1' * 64}"}, "secret": "bucket"},
    "secrets": {"collectorEnvironment": "stripe", "edgeEnvironment": "edges"},
    "probe": {
        "through": "https://api.example.com/v1/ping",
        "options": ["--charge"],
        **{name: value for name, value in POD_OPTIONS.items() if name in PROBE_OPTIONS},
    },
}
"""Values that turn on all options that are off by default."""
OUTSIDE = ("EdgeProbeFails", "MoneyProbeFails", "EdgeProbeSilent", "ScheduledJobMissed")
"""The alerts about probes and jobs on hosts. They belong to no release."""
RATE_MIN = 50.0
"""The minimum of requests a second from the clients, even on a busy machine."""
VERSIONS = ("1.27", "1.31", "1.35")
"""Kubernetes versions: the oldest supported by the chart, and later ones."""


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(tmp_path: Path, version: str) -> None:
    # Not at the top: the import takes more than a second of CPU, and each process of a run imports every test file.
    import kubernetes_validate

    kinds = set()
    for manifest in render(tmp_path, **EVERYTHING).values():
        kinds.add(manifest["kind"])
        if "coreos" not in manifest["apiVersion"]:
            kubernetes_validate.validate(manifest, version, strict=True)
    assert kinds >= {
        "StatefulSet",
        "Deployment",
        "Job",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "CronJob",
        "NetworkPolicy",
    }


@pytest.mark.parametrize("addresses", [["0.0.0.0"], ["[::]"], ["0.0.0.0", "[::]"]])
@pytest.mark.parametrize("component", ["edge", "collector"])
def test_rendered_configurations_pass_the_check_command(tmp_path: Path, component: str, addresses: list[str]) -> None:
    files = render(tmp_path, listenAddresses=addresses)["ConfigMap", f"acme-{component}"]["data"]
    for name, text in files.items():
        (tmp_path / name).write_text(text.replace("/var/lib/edgeproxy", str(tmp_path / "state")))
    directory_signatures.create_key_file(tmp_path / "directory.key")
    file = tmp_path / f"{component}.yaml"
    file.write_text(file.read_text().replace("/var/run/secrets/edgeproxy", str(tmp_path)))
    checked = CliRunner().invoke(cli.app, ["check", str(file)], env=ENVIRON)
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"region": ""}, "region names the region"),
        ({"trust": ""}, "edgeproxy directory keygen"),
        ({"edge": {"admin": {"tokens": ""}}}, "edge.admin.tokens"),
        ({"collector": {"metrics": {"tokens": ""}}}, "collector.metrics.tokens"),
        ({"collector": {"settings": {"metrics": {}}}}, "collector.settings.metrics: the chart sets it"),
        ({"image": {"digest": "", "tag": ""}}, "image.digest says which image"),
        ({"collector": {"enabled": False}}, "collector.url says where edges ship to"),
        ({"jobs": {"enabled": True, "image": {"tag": "1"}}}, "jobs.claim names the volume of backups"),
        ({"jobs": {"enabled": True, "claim": "c"}}, "jobs.image.digest says which image"),
        ({"jobs": {"enabled": True, "image": {"tag": "1"}, "schedules": {"tidy": ""}}}, "there is no such job"),
        ({"edge": {"settings": {"state": "/tmp"}}}, "edge.settings.state: the chart sets it"),
        ({"collector": {"settings": {"database": "sqlite:///x"}}}, "collector.settings.database: the chart sets it"),
    ],
)
def test_invalid_values_are_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    done = helm(tmp_path, **changes)
    assert done.returncode != 0
    assert why in done.stderr


@pytest.mark.parametrize("component", ["edge", "collector"])
def test_pods_have_each_option(tmp_path: Path, component: str) -> None:
    manifests = render(tmp_path, **EVERYTHING)
    kind = {"edge": "StatefulSet", "collector": "Deployment"}[component]
    template = manifests[kind, f"acme-{component}"]["spec"]["template"]
    assert POD_OPTIONS["podLabels"].items() <= template["metadata"]["labels"].items()
    assert POD_OPTIONS["podAnnotations"].items() <= template["metadata"]["annotations"].items()
    spec = template["spec"]
    own, beside = spec["containers"]
    for name in (
        *("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName"),
        *("initContainers", "hostAliases", "dnsConfig"),
    ):
        assert spec[name] == POD_OPTIONS[name]
    assert [beside] == POD_OPTIONS["extraContainers"]
    for field, option in (("env", "extraEnv"), ("envFrom", "extraEnvFrom"), ("volumeMounts", "extraVolumeMounts")):
        assert POD_OPTIONS[option][0] in own[field]
    assert POD_OPTIONS["extraVolumes"][0] in spec["volumes"]
    assert spec["serviceAccountName"] == f"acme-{component}"
    account = manifests["ServiceAccount", f"acme-{component}"]
    assert account["metadata"]["annotations"] == POD_OPTIONS["serviceAccount"]["annotations"]
    service = manifests["Service", f"acme-{component}"]["spec"]
    assert (service["ipFamilyPolicy"], service["ipFamilies"]) == ("RequireDualStack", ["IPv6", "IPv4"])


def test_jobs_have_the_variables_and_volumes_of_the_collector(tmp_path: Path) -> None:
    """They use the collector's database, key service, authorities and proxy."""
    manifests = render(tmp_path, **EVERYTHING)
    specs = [manifests["Job", "acme-migrate"]["spec"]["template"]["spec"]]
    specs.append(manifests["CronJob", "acme-backup"]["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    for spec in specs:
        assert POD_OPTIONS["extraEnv"][0] in spec["containers"][0]["env"]
        assert POD_OPTIONS["extraVolumeMounts"][0] in spec["containers"][0]["volumeMounts"]
        assert POD_OPTIONS["extraVolumes"][0] in spec["volumes"]
        assert POD_OPTIONS["extraEnvFrom"][0] in spec["containers"][0]["envFrom"]
        for name in ("hostAliases", "dnsConfig"):
            assert spec[name] == POD_OPTIONS[name]


def test_probe_runs_on_nodes_and_by_authorities_of_the_site(tmp_path: Path) -> None:
    manifests = render(tmp_path, **EVERYTHING)
    spec = manifests["CronJob", "acme-probe"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    places = {"extraEnv": container.get("env"), "extraVolumeMounts": container.get("volumeMounts")}
    places["extraVolumes"] = spec.get("volumes")
    for name in PROBE_OPTIONS:
        assert places.get(name, spec.get(name)) == POD_OPTIONS[name]


def test_cluster_that_assigns_users_gets_no_user_of_the_chart(tmp_path: Path) -> None:
    """OpenShift's restricted-v2, for example, refuses a pod that names its own user or group."""
    unset = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"))
    manifests = render(tmp_path, **{**EVERYTHING, "podSecurityContext": unset})
    text = yaml.safe_dump_all(manifests.values())
    assert not re.search("runAsUser|runAsGroup|fsGroup", text)
    assert text.count("runAsNonRoot: true") >= 4
    assert text.count("type: RuntimeDefault") >= 4


def test_two_releases_in_a_namespace_have_distinct_names(tmp_path: Path) -> None:
    first = set(render(tmp_path, **EVERYTHING))
    second = set(render(tmp_path, release="other", **EVERYTHING))
    assert first
    assert not first & second


@needs_promtool
def test_rules_of_a_release_concern_only_its_own_targets(tmp_path: Path) -> None:
    """A release in a region has no edge, and its edges have errors before. Others share its name or its namespace."""
    files = []
    releases = [("prod", "acme"), ("prod", "other"), ("staging", "acme")]
    for namespace, release in releases:
        manifests = render(tmp_path, release=release, namespace=namespace, monitoring={"enabled": True})
        for (kind, name), manifest in manifests.items():
            if kind == "PrometheusRule":
                files.append(f"{namespace}-{name}.yml")
                (tmp_path / files[-1]).write_text(yaml.safe_dump(manifest["spec"]))
            elif kind == "PodMonitor":
                (endpoint,) = manifest["spec"]["podMetricsEndpoints"]
                label = {"targetLabel": "release", "replacement": f"{namespace}/{release}"}
                assert label in endpoint["relabelings"]
    names = [f"{namespace}/{release}" for namespace, release in releases]
    lost = names[0]
    there = 'job="edgeproxy", region="eu", instance='
    series = [{"series": 'edgeproxy_probe_ok{edge="a", step="request"}', "values": "0x40"}]
    for name in names:
        code = "500" if name == lost else "200"
        series += [
            {"series": f'up{{release="{name}", {there}"{name}"}}', "values": "1x20 _x20" if name == lost else "1x40"},
            {
                "series": f'edge_requests_total{{release="{name}", {there}"{name}", code="{code}"}}',
                "values": "0+600x40",
            },
        ]
    looks = [
        {
            "expr": 'count by (alertname, release) (ALERTS{alertname=~"EdgeDown|EdgeProbeFails", alertstate="firing"})',
            "eval_time": "30m",
            "exp_samples": [
                {"labels": f'{{alertname="EdgeDown", release="{lost}"}}', "value": 1},
                {"labels": '{alertname="EdgeProbeFails"}', "value": 1},
            ],
        },
        {
            "expr": "region:edge_errors:ratio_rate5m",
            "eval_time": "15m",
            "exp_samples": [
                {
                    "labels": f'region:edge_errors:ratio_rate5m{{release="{name}", job="edgeproxy", region="eu"}}',
                    "value": int(name == lost),
                }
                for name in names
            ],
        },
    ]
    trial = {"interval": "1m", "input_series": series, "promql_expr_test": looks}
    settings = {"rule_files": files, "evaluation_interval": "1m", "tests": [trial]}
    (tmp_path / "trial.yml").write_text(yaml.safe_dump(settings))
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "trial.yml"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"edges": {}}, "Additional property edges is not allowed"),
        ({"edge": {"replica": 3}}, "Additional property replica is not allowed"),
        ({"collector": {"service": {"prot": 1}}}, "Additional property prot is not allowed"),
        ({"edge": {"replicas": "three"}}, "edge.replicas"),
        ({"image": {"digest": "latest"}}, "image.digest"),
        ({"listenAddresses": ["::"]}, "listenAddresses.0"),
        ({"secrets": {"hub": {"nmae": "x"}}}, "Additional property nmae is not allowed"),
    ],
)
def test_misspelled_value_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    done = helm(tmp_path, **changes)
    assert done.returncode != 0
    assert why in done.stderr


def test_schema_knows_each_value(tmp_path: Path) -> None:
    """A value without a row in the schema could not be set; a row without a value does nothing."""
    schema = json.loads((ROOT / "deploy" / "helm" / "values.schema.json").read_text())
    values = yaml.safe_load((ROOT / "deploy" / "helm" / "values.yaml").read_text())

    def compare(known: dict[str, Any], written: dict[str, Any], path: str) -> None:
        properties = known.get("properties")
        if properties is None:
            return
        assert properties.keys() - {"global"} == written.keys(), path
        for name, value in written.items():
            if isinstance(value, dict):
                compare(properties[name], value, f"{path}.{name}")

    compare(schema, values, "values")


def test_notes_name_the_next_commands(tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(ROOT / "deploy" / "helm", chart)
    notes = (chart / "templates" / "NOTES.txt").read_text()  # Helm prints notes only with a cluster.
    begin = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata:\n  notes: |\n"
    (chart / "templates" / "notes.yaml").write_text(begin + textwrap.indent(notes, "    "))
    text = render(tmp_path, chart=chart)["ConfigMap", "notes"]["data"]["notes"]
    for command in ("rollout status statefulset/acme-edge", "logs job/acme-migrate", "edgeproxy hub load"):
        assert command in text


def test_chart_without_a_collector_ships_to_the_configured_url(tmp_path: Path) -> None:
    manifests = render(tmp_path, collector={"enabled": False, "url": "https://collector.example.com"})
    assert not [name for _, name in manifests if "collector" in name or "migrate" in name]
    edge = yaml.safe_load(manifests["ConfigMap", "acme-edge"]["data"]["edge.yaml"])
    assert edge["usage"]["collector"] == "https://collector.example.com"


def test_only_prometheus_reaches_admin_ports_and_no_manifest_has_a_secret(tmp_path: Path) -> None:
    manifests = render(tmp_path)
    rules = manifests["NetworkPolicy", "acme-edge"]["spec"]["ingress"]
    (admin,) = [rule["from"] for rule in rules if {"port": "admin"} in rule["ports"]]
    assert admin == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert not [kind for kind, _ in manifests if kind == "Secret"]
    services = [manifest["spec"]["ports"] for (kind, _), manifest in manifests.items() if kind == "Service"]
    assert not [port for ports in services for port in ports if port["targetPort"] == "admin"]
    owner = [
        name for (_, name), manifest in manifests.items() if "EDGEPROXY_DATABASE_OWNER" in yaml.safe_dump(manifest)
    ]
    assert owner == ["acme-migrate"]


def test_the_jobs_of_a_cluster_are_those_of_hosts_at_the_same_times(tmp_path: Path) -> None:
    manifests = render(tmp_path, **EVERYTHING)
    jobs = {
        name.removeprefix("acme-"): manifest["spec"]
        for (kind, name), manifest in manifests.items()
        if kind == "CronJob"
    }
    probe = jobs.pop("probe")
    timers = {}
    for timer in (ROOT / "deploy").glob("*.timer"):
        if unit := re.search(r"^Unit=edgeproxy-job@(.*)\.service$", timer.read_text(), re.MULTILINE):
            calendar = re.search(r"^OnCalendar=(.*)$", timer.read_text(), re.MULTILINE)
            assert calendar
            timers[unit[1]] = as_calendar(jobs[unit[1]]["schedule"]) == calendar[1]
    assert timers == dict.fromkeys(jobs, True)
    script = (ROOT / "deploy" / "job").read_text()
    periods = {
        job: int(seconds)
        for names, seconds in re.findall(r"^    ([\w| -]+)\) period=(\d+) ;;$", script, re.MULTILINE)
        for job in names.split(" | ")
    }
    rules = manifests["PrometheusRule", "acme-jobs"]["spec"]["groups"][0]["rules"]
    late = {rule["labels"]["task"]: int(rule["expr"].rpartition("> ")[2]) for rule in rules}
    assert late == {job: seconds * 3 // 2 for job, seconds in periods.items()}
    for job, spec in jobs.items():
        (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert container["args"] == [job]
        assert container["image"].startswith("edgeproxy-jobs@sha256:")
        # The settings of the collector have variables, too.
        sources = [next(iter(each.values()))["name"] for each in container["envFrom"]]
        assert sources == ["stripe", "site", "bucket"]
    (container,) = probe["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    collector = ["--collector", "http://acme-collector:9100"]
    assert container["args"] == ["probe", "--through", "https://api.example.com/v1/ping", *collector, "--charge"]


def as_calendar(schedule: str) -> str:
    """Return a schedule of cron as systemd says it."""
    minute, hour, day, month, weekday = schedule.split()
    months = ",".join(f"{int(part):02}" for part in month.split(",")) if month != "*" else "*"
    date = f"*-{months}-{int(day):02}" if day != "*" else "*-*-*"
    time = f"{hour if hour == '*' else f'{int(hour):02}'}:{int(minute):02}:00 UTC"
    return f"{'Sun ' if weekday == '0' else ''}{date} {time}"


def test_chart_scales_edges_by_loop_lag_if_an_adapter_serves_it(tmp_path: Path) -> None:
    assert len(render(tmp_path)["HorizontalPodAutoscaler", "acme-edge"]["spec"]["metrics"]) == 1
    metrics = render(tmp_path, **EVERYTHING)["HorizontalPodAutoscaler", "acme-edge"]["spec"]["metrics"]
    pods = metrics[1]["pods"]
    (rule,) = yaml.safe_load((ROOT / "deploy" / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert rule["name"]["as"] == pods["metric"]["name"] in METRICS
    assert pods["target"] == {"type": "AverageValue", "averageValue": "5m"}


def test_chart_rules_equal_the_tested_prometheus_rules(tmp_path: Path) -> None:
    manifests = render(tmp_path)
    for name in ("alerts", "objectives", "absent"):
        written = yaml.safe_load((ROOT / "config" / "prometheus" / f"{name}.yml").read_text())
        spec = manifests["PrometheusRule", f"acme-{name}"]["spec"]
        for rule in (rule for group in spec["groups"] for rule in group["rules"]):
            own = rule["labels"].pop("release", None)
            assert own == (None if rule.get("alert") in OUTSIDE else "default/acme")
            if "record" in rule:
                assert rule.pop("labels") == {}
            rule["expr"] = re.sub(r'release="[a-z/]+", |\{release="[a-z/]+"\}|(?<=\()release, ', "", rule["expr"])
        assert spec == written


@pytest.mark.parametrize(
    ("kind", "endpoints"), [("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")]
)
def test_prometheus_sends_the_token_by_which_the_collector_tells_money(
    tmp_path: Path, kind: str, endpoints: str
) -> None:
    manifests = render(tmp_path, monitoring={"kind": kind})
    spec = manifests[kind, "acme-collector"]["spec"]
    (scraped,) = spec[endpoints]
    assert scraped["authorization"] == {"credentials": {"name": "edgeproxy-metrics", "key": "token"}}
    assert "authorization" not in manifests["PodMonitor", "acme-edge"]["spec"]["podMetricsEndpoints"][0]
    collector = yaml.safe_load(manifests["ConfigMap", "acme-collector"]["data"]["collector.yaml"])
    assert collector["metrics"]["tokens"].startswith("prometheus:")
    service = manifests["Service", "acme-collector"]
    assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert scraped["port"] in [port["name"] for port in service["spec"]["ports"]]


def counted(collector: Collector) -> int:
    """Return the requests of all edges in the ledger."""
    return sum(row["value"] for row in collector.usage(by="region")["rows"])


@only_sqlite("database")
def test_a_rollout_of_three_pods_under_load_loses_no_request_and_no_count(
    start_collector: StartCollector, tmp_path: Path
) -> None:
    """Clients that never retry are served all the time. Afterwards the ledger has every answered request."""
    directory_signatures.create_key_file(tmp_path / "directory.key")
    collector = start_collector(directory={"key": str(tmp_path / "directory.key")}, customers={}, tiers=TIERS)
    known = tmp_path / "people.yaml"
    described = {"customers": {UNLIMITED: {"tier": "free"}}, "keys": [key_line(UNLIMITED)]}
    known.write_text(yaml.safe_dump({"include": [str(collector.file)], **described}))
    assert CliRunner().invoke(cli.app, ["import", "-c", str(known)]).exit_code == 0
    with ExitStack() as ends:
        upstream = Upstream(tmp_path / "upstream")
        ends.callback(upstream.stop)
        settings = {"upstreams": {"api": {"endpoints": [f"http://127.0.0.1:{upstream.port}"]}}}
        manifests = render(
            tmp_path,
            trust=Signer.load(tmp_path / "directory.key").public_key,
            tiers={"tiers": TIERS},
            edge={"settings": settings, "preStopSeconds": 2, "autoscaling": {"enabled": False}},
            collector={"url": f"http://127.0.0.1:{collector.port}"},
        )
        stateful_set = manifests["StatefulSet", "acme-edge"]
        files = manifests["ConfigMap", "acme-edge"]["data"]
        pods = [
            Pod(tmp_path / f"pod-{number}", stateful_set, files, ENVIRON)
            for number in range(stateful_set["spec"]["replicas"])
        ]
        service = ends.enter_context(Service())
        ends.enter_context(ready_pods(service, pods))
        load = Load(tmp_path, "clients", Plan(service.port, [UNLIMITED], paths=["/v1/x?wait=20"], connections=6))
        roll_out(service, pods)
        account = load.finish()
        print(account)
        assert account.reset == account.refused == account.wrong == 0
        assert not account.lost.get(UNLIMITED)
        answered = account.answered(UNLIMITED, 200)
        assert sum(account.answers[UNLIMITED].values())
        assert answered / account.seconds > RATE_MIN
        tables = [file for file in (tmp_path / "pod-0" / "volume").rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in tables) <= VOLUME_BYTES_MAX
        until(lambda: counted(collector) == answered, "the ledger has each request once", seconds=30)
