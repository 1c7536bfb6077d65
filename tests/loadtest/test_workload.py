"""Workload files: the ones here are right, and of a wrong one every error is told at once, with its line."""

import os
from pathlib import Path

import pytest

from edgeproxy.config.problems import ConfigError
from loadtest.schedule import Phase, length
from loadtest.workload import WORKLOADS, Workload, load

RIGHT = """\
regions: {eu: 50%, us: 50%}
shape: [{warm_up: 1s}, {ramp: {from: 10/s, to: 50/s}, for: 4s}, {spike: {to: 200/s, for: 500ms}}]
tiers:
  basic: {share: 80%, customers: 3, limit: 60/min}
  anonymous: {share: 10%, addresses: 2}
misbehaving: {burst: 10%}
"""
WRONG = """\
seed: x
regions: {eu: 40%, us: 35}
shape:
  - {steady: 600/s}
  - {warm_up: 2s, ramp: {from: 3/s}}
tiers:
  basic: {share: 30%, custmers: 3}
  direct: {share: 3%, customers: 3, addresses: 4}
events:
  - {at: 40%, lose: uss, how: kil, for: 90%}
  - {lose: us, cut: hub}
thresholds: {p95: 80, moved_p95: 80ms + dist, conserved: yes, limit_error: LIMIT}
"""


def loaded(folder: Path, text: str) -> Workload:
    file = folder / "some.yaml"
    file.write_text(text)
    return load(file, {})


@pytest.mark.parametrize("file", sorted(WORKLOADS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_workloads_here_are_right(file: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text('1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 5\n' * 3)
    workload = load(file, {**os.environ, "LOG": str(log)})
    assert workload.thresholds.p95 == 0.080
    assert sum(kind.share for kind in workload.kinds.values()) == pytest.approx(1)


def test_shapes_become_phases_with_the_warm_up_at_their_first_rate(tmp_path: Path) -> None:
    workload = loaded(tmp_path, RIGHT)
    assert workload.phases() == [Phase(1, 10, 10), Phase(4, 10, 50), Phase(0.5, 200, 200)]
    assert workload.limits == {"basic": (60, 60.0), "burst": (60, 60.0)}


def test_seconds_and_rate_scale_the_whole_shape(tmp_path: Path) -> None:
    workload = loaded(tmp_path, RIGHT)
    assert length(workload.scaled(9).phases()) == pytest.approx(10)
    assert workload.at_rate(20).phases()[1:] == [Phase(4, 20, 100), Phase(0.5, 400, 400)]


def test_workload_reports_all_errors_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, WRONG)
    told = [str(problem).partition("some.yaml:")[2] for problem in raised.value.problems]
    assert [one.partition(",")[0] for one in told] == [
        "1: seed: 'x' is not a whole number",
        "2: regions.us: '35' is not a share",
        "4: shape.0: steady has no end",
        "5: shape.1.ramp: to is missing",
        "5: shape.1: has warm_up and ramp",
        "6: tiers: makes 33% with misbehaving and direct",
        "7: tiers.basic: comes from nobody",
        "7: tiers.basic.custmers: unknown field",
        "8: tiers.direct: is the name of another kind of requests",
        "8: tiers.direct: has customers and addresses",
        "10: events.0.lose: there is no region uss",
        "10: events.0.for: goes on after the end",
        "10: events.0.how: 'kil' is not known here",
        "11: events.1: at is missing",
        "11: events.1: for is missing",
        "11: events.1: has lose and cut",
        "12: thresholds.p95: '80' lacks a unit",
        "12: thresholds.moved_p95: 'dist' is not known here",
        "12: thresholds.limit_error: 'LIMIT' is not known here",
        "12: thresholds.conserved: 'yes' is not known here",
    ]
    assert all(", " in one for one in told)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("shape: [", "shape: [{steady: 5/s, for: 1s}, "), "1: comes after what is judged"),
        (("{warm_up: 1s}, ", "{replay: {log: nowhere.log}}, "), "nowhere.log is not there"),
        (("eu: 50%, us: 50%", "eu: 50%, us: 60%"), "makes 110%"),
        (("tiers:", "events: [{at: 10%, for: 5%, lose: eu}]\ntiers:"), None),
    ],
)
def test_workload_sections_must_agree(change: tuple[str, str], said: str | None, tmp_path: Path) -> None:
    text = RIGHT.replace(*change)
    if said is None:
        assert loaded(tmp_path, text).events[0].lasts == 0.05
        return
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)
    assert said.split(": ")[-1] in str(raised.value)
