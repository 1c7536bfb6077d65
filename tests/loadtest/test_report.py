"""The report: figures as JSON has them, one page without any network, and runs beside each other."""

import copy
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest.compare import Different, compared
from loadtest.judge import judge
from loadtest.report import figures, html, text
from tests.loadtest.evidence import evidence
from tests.loadtest.test_judge import slow

FINDING = "</script><script>alert(1)</script>"


def of(run: Any) -> dict[str, Any]:
    given = SimpleNamespace(inject=None)
    its = figures.of(SimpleNamespace(given=given, told={}, begin=1e9, samples={}, done=[]), run, judge(run))
    body: dict[str, Any] = json.loads(json.dumps(its))
    return body


def test_report_figures_match_the_judged_evidence() -> None:
    its = of(evidence(slow(0.2, "us")))
    assert its["verdict"] == "fail"
    assert its["p95_by_region_ms"] == {"eu": pytest.approx(20, rel=0.01), "us": pytest.approx(200, rel=0.01)}
    (row,) = (one for one in its["latency"] if (one["region"], one["tier"]) == ("us", "pro"))
    assert row["response_ms"]["p50"] == pytest.approx(200, rel=0.01)
    assert len(row["blocks_p95_ms"]) == 2
    assert sum(its["series"]["due"]) == sum(its["series"]["started"])


def test_report_page_is_self_contained_and_runs_only_its_own_scripts() -> None:
    its = of(evidence())
    its["findings"] = [FINDING]
    page = html.page(its)
    assert FINDING not in page
    assert not re.search(r"(?:src|href)=|@import|url\(", page)
    assert re.search(r"script-src 'sha256-[^']+' 'sha256-[^']+'; style-src", page)
    assert len(page) < 120_000


def test_a_library_that_is_not_the_released_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SHA256SUMS").write_bytes((html.UPLOT / "SHA256SUMS").read_bytes())
    for file in html.UPLOT.glob("uPlot*"):
        (tmp_path / file.name).write_bytes(file.read_bytes().replace(b"uPlot", b"vPlot", 1))
    monkeypatch.setattr(html, "UPLOT", tmp_path)
    with pytest.raises(ValueError, match="is not the file of uPlot"):
        html.page(of(evidence()))


def test_the_same_run_is_not_slower_and_a_slower_one_is() -> None:
    before, now = of(evidence()), of(evidence(slow(0.03, "us")))
    assert {(one.quotients, one.slower) for one in compared(before, before)} == {((1.0, 1.0, 1.0), False)}
    for one in (one for one in compared(now, before) if one.tier == "pro"):
        assert one.slower == (one.region == "us")
        assert one.quotients[1] == pytest.approx(1.5 if one.region == "us" else 1.0, rel=0.01)


def test_another_workload_is_not_compared() -> None:
    before = of(evidence())
    other = copy.deepcopy(before)
    other["workload"]["seed"] = 8
    with pytest.raises(Different, match="differ in seed"):
        list(compared(before, other))
    with pytest.raises(Different, match="has no workload"):
        list(compared(before, {}))


def test_the_last_lines_say_p95_and_the_verdict() -> None:
    slow_run = evidence(slow(0.2, "us"))
    lines = list(text.summary(slow_run, judge(slow_run)))
    assert lines[-2:] == ["p95: 200 ms", "verdict: fail"]
    assert any(line.startswith("fail: p95 us 200 ms > 80 ms") for line in lines)
    (row,) = (line.split() for line in lines if line.startswith("p95 ") and " us " in line)
    assert row == ["p95", "us", "200.1", "≤", "80", "ms", "broken"]
    outside = evidence(outside=True, fresh=False)
    lines = list(text.summary(outside, judge(outside)))
    assert lines[-1] == "verdict: pass (not judged: conserved, moved_p95, false_429)"
    assert "not judged: conserved: the ledger of these edges is not read" in lines
    its = of(outside)
    assert {one["threshold"] for one in its["not_judged"] if one["whole"]} == {"conserved", "moved_p95", "false_429"}
    assert {one["unit"] for one in its["measured"] if one["threshold"].endswith("p95")} == {"ms"}
    assert [row["name"] for row in its["by_region"]] == ["eu", "us", "direct"]
