"""Each shipped alert ends after its cause is gone. The trials of tests/alerts*.yml are continued.

A trial makes alerts fire. Each continues from its last check: counters stand still, and gauges have healthy values, by
WELL or as in the trial's first minute. Then no alert that fired may still fire.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_deploy import ALERTS, MEMORY, ROOT, RULE_FILES, RULES, TRIALS, needs_promtool

STEP = re.compile(r"(?P<start>_|-?[\d.e+]+?)(?:(?P<slope>[+-][\d.e]+))?x(?P<times>\d+)")
COUNTER = re.compile(r"_(total|count|sum|bucket)$")
CLOCK, LAST = "the time", "the last value"
WELL = {
    r"up\{": "1",
    "edge_worker_open_descriptors": "30",
    "edge_table_rows": "0",
    "edge_acme_failures": "0",
    "edge_directory_version": "7",
    "(edge|collector)_tls_expiry_seconds": "5000000",
    r'edge_upstream_endpoints\{.*state="up"': "2",
    r'edge_upstream_endpoints\{.*state="down"': "0",
    "edgeproxy_probe_finished_seconds": CLOCK,
    "edgeproxy_job_last_success_timestamp_seconds": CLOCK,
    "billing_refunds": LAST,
    r'edge_requests_total\{.*code="200"': "+600000",
}
"""Healthy values for series without a healthy last (counter) or first (gauge) value."""
ADDED = {
    "EdgeDown": 'up{job="edgeproxy", instance="a"}',
    "EdgeNoWorkers": 'edge_worker_open_descriptors{job="edgeproxy", instance="a", worker="0"}',
}
"""Series that an alert reports as absent."""
HOURS = {"10m": 40, "1m": 4}
"""The longest continuation of a trial in hours, by its interval."""
HOURS_OF = {"BillingRefundsHigh": 25}
"""HOURS of alerts with a longer window."""
MARGIN_MINUTES = 30
"""Minutes after the windows of an alert until it must have ended: gauges lag, and groups are evaluated in turn."""
DURATION = re.compile(r"(?:\[|offset )(\d+)([smhd])")


def name_rule(rule: Mapping[str, Any]) -> str:
    """Return the name of an alert or of a recorded series."""
    return str(rule.get("alert") or rule["record"])


RECORDED = {rule["record"]: rule for rule in RULES if "record" in rule}
NAMED = {name_rule(rule): rule for rule in RULES}
GROUPS = [group for file in RULE_FILES for group in yaml.safe_load(file.read_text())["groups"]]


def expand(values: str) -> list[str]:
    """Return the samples of a series as promtool expands them."""
    samples: list[str] = []
    for word in values.split():
        step = STEP.fullmatch(word)
        if step is None:
            samples.append(word)
        elif step["slope"] is None:
            samples += [step["start"]] * (int(step["times"]) + 1)
        else:
            start, slope = float(step["start"]), float(step["slope"])
            samples += [repr(start + slope * at) for at in range(int(step["times"]) + 1)]
    return samples


def go_on(name: str, values: str, steps: int, more: int, minutes: int) -> dict[str, str]:
    """Return a series of `steps` steps, each of `minutes` minutes, and healthy values for `more` steps after it."""
    samples = expand(values)[:steps]
    samples += ["_"] * (steps - len(samples))
    seen = [sample for sample in samples if sample not in ("_", "stale")] or ["0"]
    well = next((value for pattern, value in WELL.items() if re.match(pattern, name)), None)
    if well is None:
        well = LAST if COUNTER.search(name.partition("{")[0]) else seen[0]
    if well == CLOCK:
        well = f"{steps * minutes * 60}+{minutes * 60}"
    elif well.startswith("+"):
        well = seen[-1] + well
    return {"series": name, "values": f"{' '.join(samples)} {seen[-1] if well == LAST else well}x{more}"}


def sum_windows(rule: dict[str, Any]) -> int:
    """Return the minutes that a rule looks back: its windows and waits, and the longest of the rules that it reads."""
    own = [find_minutes("".join(duration)) for duration in DURATION.findall(rule["expr"])]
    read = [sum_windows(RECORDED[name]) for name in re.findall(r"[\w:]+", rule["expr"]) if name in RECORDED]
    waits = [find_minutes(rule[name]) for name in ("for", "keep_firing_for") if name in rule]
    return max(own, default=0) + max(read, default=0) + sum(waits)


def select_groups(alerts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the groups of rules, reduced to these alerts and the rules that they read.

    promtool evaluates each rule at each step. The other rules took three quarters of its time.
    """
    names, unread = set(alerts), list(alerts)
    while unread:
        read = set(re.findall(r"[\w:]+", NAMED[unread.pop()]["expr"])) & NAMED.keys() - names
        unread += read
        names |= read
    groups = [{**group, "rules": [rule for rule in group["rules"] if name_rule(rule) in names]} for group in GROUPS]
    return [group for group in groups if group["rules"]]


def find_minutes(time: str) -> int:
    """Return the minutes in a time like 90m or 2h."""
    return int(time[:-1]) * {"m": 1, "h": 60, "d": 1440}[time[-1]]


SETTINGS: dict[str, dict[str, Any]] = {file: yaml.safe_load((ROOT / file).read_text()) for file in TRIALS}
"""The content of each file."""


def list_trials() -> list[tuple[str, dict[str, Any], int]]:
    """Return the trials that make an alert fire, with their file and the minute of the last check that expects one."""
    trials = []
    for file in TRIALS:
        for trial in SETTINGS[file]["tests"]:
            looks = [find_minutes(look["eval_time"]) for look in trial["promql_expr_test"] if look["exp_samples"]]
            if looks and "ALERTS" in str(trial["promql_expr_test"]):
                trials.append((file, trial, max(looks)))
    return trials


FOUND = list_trials()


@needs_promtool
@pytest.mark.parametrize(("file", "trial", "last"), FOUND, ids=[trial["name"][:60] for _, trial, _ in FOUND])
def test_alerts_end_once_all_is_well(file: str, trial: dict[str, Any], last: int, tmp_path: Path) -> None:
    interval = trial["interval"]
    minutes = find_minutes(interval)
    fired = sorted(set(re.findall(r'alertname="(\w+)"', str(trial["promql_expr_test"]))))
    windows = max(sum_windows(rule) for rule in ALERTS if rule["alert"] in fired)
    rest = min(max(HOURS_OF.get(name, HOURS[interval]) for name in fired) * 60, windows + MARGIN_MINUTES)
    steps, more = last // minutes + 1, rest // minutes + 1
    names = "|".join(fired)
    firing = f'count by (alertname) (ALERTS{{alertstate="firing", alertname=~"{names}"}})'
    given = {one["series"]: one["values"] for one in trial["input_series"]}
    missing = {ADDED[name]: "_" for name in fired if name in ADDED and ADDED[name] not in given}
    series = [go_on(name, values, steps, more, minutes) for name, values in {**missing, **given}.items()]
    look = {"expr": firing, "eval_time": f"{last + rest}m", "exp_samples": []}
    test = {"interval": interval, "input_series": series, "promql_expr_test": [look]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": select_groups(fired)}))
    settings = SETTINGS[file] | {"rule_files": ["rules.yml"], "tests": [test]}
    path = tmp_path / "ends.yml"
    path.write_text(yaml.safe_dump(settings))
    environ = {**os.environ, "GOGC": "400", **({"TMPDIR": str(MEMORY)} if os.access(MEMORY, os.W_OK) else {})}
    done = subprocess.run(["promtool", "test", "rules", path], check=False, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_rule_has_a_trial_until_it_resolves() -> None:
    tried = {name for _, trial, _ in FOUND for name in re.findall(r'alertname="(\w+)"', str(trial["promql_expr_test"]))}
    assert {rule["alert"] for rule in ALERTS} - tried == {"Watchdog", "MetricAbsent"}
    assert set(ADDED) <= tried
