"""A release in three regions: the gate between regions, and the rollback of all after each kind of failure."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from loadtest.testbed.waiting import until
from tests.support.deployment import REGISTRY, ROOT, Hosts

OLD, NEW = f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"
IMAGE = f"{REGISTRY}@{NEW}"
REGIONS = {"eu-west": ["eu-1", "eu-2"], "us-east": ["us-1"], "ap-southeast": ["ap-1"]}
ALL = [host for hosts in REGIONS.values() for host in hosts]
QUICK = ("--soak", "0", "--every", "0.02", "--patience", "0")


class Regions(Hosts):
    """Three regions and a Prometheus with requests of each region, and with errors if a test sets them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ALL, OLD)
        self.registry = {NEW}
        self.left = dict.fromkeys(REGIONS, 0.5)
        self.requests = dict.fromkeys(REGIONS, 10_000.0)
        self.errors_of_new = dict.fromkeys(REGIONS, 0.0)
        self.answers = self.answer
        self.file = folder / "regions"
        self.file.write_text("".join(f"{name} {' '.join(hosts)}  # {name}\n" for name, hosts in REGIONS.items()))

    def answer(self, query: str) -> dict[str, float] | None:
        region = re.search(r'region="(.*?)"', query)
        assert region
        if "left28d" in query:
            return {"": self.left[region[1]]}
        runs_new = all(self.starts(host)[-1] == NEW for host in REGIONS[region[1]])
        errors = self.errors_of_new[region[1]] if runs_new else 0.0
        return {"": self.requests[region[1]] - errors, "5xx": errors}

    def roll_out(self, *options: str) -> tuple[int, str]:
        """Roll out the new image. Return the exit code and the messages."""
        done = self.rollout("--regions", str(self.file), *QUICK, *options, IMAGE)
        return done.returncode, done.stderr

    def images(self) -> dict[str, str]:
        """Return the image that each host runs."""
        return {host: self.starts(host)[-1] for host in ALL}


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[Regions]:
    regions = Regions(tmp_path)
    yield regions
    regions.close()


def test_regions_get_one_digest_in_order_despite_errors_within_the_objective(
    regions: Regions,
) -> None:
    regions.errors_of_new = dict.fromkeys(REGIONS, 72.0)  # Of 10,000: 14.4 times 0.05 %.
    code, output = regions.roll_out()
    assert code == 0, output
    assert regions.fetched == [(host, NEW) for host in ALL]
    assert [regions.starts(host) for host in ALL] == [[OLD, NEW]] * 4
    assert re.findall(r"rollout: (\S+): good", output) == list(REGIONS)


@pytest.mark.parametrize(
    ("region", "released", "fault"),
    [("us-east", 3, "is not ready"), ("ap-southeast", 4, "has errors"), ("us-east", 3, "another has errors")],
)
def test_bad_region_rolls_back_all_regions(regions: Regions, region: str, released: int, fault: str) -> None:
    host = REGIONS[region][0]
    if fault == "is not ready":
        regions.serves = lambda name, starts: (name, starts[-1]) != (host, NEW)
    elif fault == "has errors":
        regions.errors_of_new[region] = 73.0
    else:  # A good region gets errors after the release of the next one.
        quiet = regions.answer
        regions.answers = lambda query: (
            {"": 0.0, "5xx": 5.0} if "eu-west" in query and regions.starts(host)[-1] == NEW else quiet(query)
        )
    code, output = regions.roll_out()
    assert code == 1, output
    assert regions.images() == dict.fromkeys(ALL, OLD)
    assert [regions.starts(host) for host in ALL] == [[OLD, NEW, OLD]] * released + [[OLD]] * (4 - released)
    back = re.findall(r"rollout: (\S+): back", output)
    assert back == ALL[:released][::-1], "the last one first"
    assert not (regions.folder / "rollout.json").exists()


@pytest.mark.parametrize(
    ("requests", "says"),
    [(None, "eu-west: Prometheus does not answer on eu-1"), (299.0, "us-east: 299 requests are too few")],
)
def test_gate_without_enough_data_fails(regions: Regions, requests: float | None, says: str) -> None:
    quiet = regions.answer
    regions.requests["us-east"] = requests or 300.0
    if requests is None:
        regions.answers = lambda query: None if regions.starts("us-1")[-1] == NEW else quiet(query)
    code, output = regions.roll_out()
    assert (code, regions.images()) == (1, dict.fromkeys(ALL, OLD))
    assert says in output


def test_rollout_waits_for_a_gate_without_an_answer(regions: Regions) -> None:
    regions.file.write_text("us-east us-1\n")
    quiet, missed = regions.answer, []

    def answer(query: str) -> dict[str, float] | None:
        if regions.starts("us-1")[-1] == NEW and len(missed) < 3:
            missed.append(query)
            return None
        return quiet(query)

    regions.answers = answer
    assert regions.roll_out("--patience", "20")[0] == 0
    assert len(missed) == 3


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("spent", "ap-southeast: the error budget is spent"),
        ("burning", "eu-west: 100 of 10000 answers are 5xx"),
        ("no budget", "ap-southeast: Prometheus has no error budget"),
        ("no answer", "eu-west: Prometheus does not answer on eu-1"),
        ("no image", f"eu-west: eu-1 cannot be reached, or has no {IMAGE}"),
        ("no host", f"ap-southeast: ap-1 cannot be reached, or has no {IMAGE}"),
        ("no daemon", f"us-east: us-1 cannot be reached, or has no {IMAGE}"),
    ],
)
def test_rollout_changes_nothing_if_a_region_cannot_be_released(regions: Regions, fault: str, says: str) -> None:
    quiet = regions.answer
    match fault:
        case "spent":
            regions.left["ap-southeast"] = 0.0
        case "burning":
            regions.answers = lambda query: quiet(query) if "left28d" in query else {"": 9_900.0, "5xx": 100.0}
        case "no budget":
            regions.answers = lambda query: {} if "left28d" in query and "ap-" in query else quiet(query)
        case "no answer":
            regions.answers = lambda query: None
        case "no image":
            regions.registry.clear()
        case "no host":
            regions.cut_off("ap-1")
        case "no daemon":
            (regions.folder / "us-1/no-daemon").touch()
    code, output = regions.roll_out()
    assert code == 2, output
    assert says in output
    assert [regions.starts(host) for host in ALL] == [[OLD]] * 4


def test_fix_option_releases_with_a_spent_error_budget(regions: Regions) -> None:
    regions.file.write_text("us-east us-1\n")
    regions.left["us-east"] = -3.0
    assert regions.roll_out()[0] == 2
    assert regions.roll_out("--fix")[0] == 0


def test_failed_rollback_of_a_host_is_reported_and_stops_no_other(regions: Regions) -> None:
    regions.errors_of_new["ap-southeast"] = 1_000.0
    # On one host the old image does not become ready again. Another host is unreachable after its release.
    regions.serves = lambda host, starts: host != "eu-2" or starts.count(OLD) == 1 or starts[-1] == NEW
    quiet = regions.answer

    def answer(query: str) -> dict[str, float] | None:
        if regions.starts("ap-1")[-1] == NEW:
            regions.cut_off("us-1")
        return quiet(query)

    regions.answers = answer
    code, output = regions.roll_out()
    assert code == 3, output
    assert regions.images() == {"eu-1": OLD, "eu-2": NEW, "us-1": NEW, "ap-1": OLD}
    assert output.count("rollout: eu-2: back") == output.count("rollout: us-1: back") == 3
    for host in ("us-1", "eu-2"):
        assert f"{host}: is not back; there: cd edgeproxy && ./deploy/release {OLD}\n" in output
    assert json.loads((regions.folder / "rollout.json").read_text()) == dict.fromkeys(ALL, OLD)
    # Once the hosts are repaired, the rollback can be repeated.
    regions.serves = lambda host, starts: True
    (regions.folder / "us-1/cut-off").unlink()
    assert regions.rollout("--every", "0.02", "--back").returncode == 1
    assert regions.images() == dict.fromkeys(ALL, OLD)
    assert regions.rollout("--back").returncode == 2


def begin_rollout(regions: Regions) -> "subprocess.Popen[str]":
    """Start a roll-out in a process of its own. Returns once the first region is released."""
    every: list[str | Path] = ["--prometheus", regions.url, "--regions", regions.file, "--every", "0.05"]
    command = [ROOT / "deploy/rollout", *every, IMAGE]
    process = subprocess.Popen(command, env=regions.environ, cwd=regions.folder, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: regions.starts("eu-2")[-1] == NEW, "the first region is released")
    except BaseException:
        process.kill()
        raise
    return process


def test_cancelled_rollout_rolls_back(regions: Regions) -> None:
    process = begin_rollout(regions)
    try:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 1, said
    assert "interrupted" in said
    assert regions.images() == dict.fromkeys(ALL, OLD)


def test_killed_rollout_is_rolled_back_from_its_state_file(regions: Regions) -> None:
    process = begin_rollout(regions)
    process.kill()
    process.communicate(timeout=30)
    done = regions.rollout("--back")
    assert done.returncode == 1, done.stderr
    assert regions.images() == dict.fromkeys(ALL, OLD)


def test_image_without_a_digest_is_refused(regions: Regions) -> None:
    done = regions.rollout(f"{REGISTRY}:latest")
    assert done.returncode == 2
    assert "name the image by its digest" in done.stderr
    assert regions.fetched == []


# ---- files in the repository


def load_rollout() -> ModuleType:
    """Return the script as a module."""
    loader = SourceFileLoader("rollout", str(ROOT / "deploy/rollout"))
    spec = spec_from_loader("rollout", loader)
    assert spec
    module = sys.modules["rollout"] = module_from_spec(spec)  # Its data classes look up their types here.
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("text", ["", "eu-west", "eu-west a\neu-west b", "eu-west a\nus-east a", "eu-west -oProxy=x"])
def test_invalid_regions_file_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "regions"
    file.write_text(text)
    rollout = load_rollout()
    with pytest.raises(rollout.RejectedError, match=str(file)):
        rollout.read_regions(file)


def test_regions_are_named_in_the_regions_file_and_not_in_the_workflow() -> None:
    rollout = load_rollout()
    regions = rollout.read_regions(ROOT / "deploy/regions")
    beacons = yaml.safe_load((ROOT / "config/regions.yaml").read_text())["regions"]
    assert {region.name for region in regions} == set(beacons)
    workflow = (ROOT / ".github/workflows/deploy.yml").read_text()
    assert not [name for name in beacons if name in workflow]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on this machine")
def test_prometheus_evaluates_the_queries_of_the_gate(tmp_path: Path) -> None:
    rollout = load_rollout()
    answers, budget = rollout.ANSWERS, rollout.BUDGET
    labels = 'job="edgeproxy",region="eu-west"'
    trial = {
        "rule_files": [str(ROOT / "config/prometheus/objectives.yml")],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": f'edge_requests_total{{{labels},code="200"}}', "values": "0+990x80"},
                    {"series": f'edge_requests_total{{{labels},code="503"}}', "values": "0+10x80"},
                    {"series": 'edge_requests_total{job="edgeproxy",region="us-east",code="503"}', "values": "0+10x80"},
                ],
                "promql_expr_test": [
                    {
                        "expr": answers.format(region="eu-west", seconds=600),
                        "eval_time": "15m",
                        "exp_samples": [
                            {"value": 39_600, "labels": "{}"},
                            {"value": 400, "labels": '{failed="5xx"}'},
                        ],
                    },
                    {
                        "expr": f"ceil({budget.format(region='eu-west')})",  # 1 - 1 % / 0.05 %
                        "eval_time": "15m",
                        "exp_samples": [{"value": -19, "labels": f"{{{labels}}}"}],
                    },
                ],
            }
        ],
    }
    file = tmp_path / "trial.yml"
    file.write_text(yaml.safe_dump(trial))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_gate_and_alert_have_the_same_objective() -> None:
    rollout = load_rollout()
    rules = (ROOT / "config/prometheus/objectives.yml").read_text()
    objective = rollout.OBJECTIVE
    assert f"> 14.4 * {objective}" in rules
    assert f"/ {objective}\n" in rules
