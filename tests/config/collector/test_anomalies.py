"""`anomalies` of collector.yaml."""

from pathlib import Path

import pytest

from edgeproxy.config.collector import load as collector_load
from edgeproxy.config.collector.anomalies import A_PAUSE_AT, A_SCORE, A_SIMILARITY, Anomalies, Thresholds
from edgeproxy.config.problems import ConfigError
from tests.config.conftest import write

TOKENS = f"tokens: [{{sha256: {'a' * 64}, role: edge}}]\n"


def anomalies(folder: Path, text: str) -> Anomalies:
    write(folder, {"collector.yaml": f"{TOKENS}anomalies: {text}\n"})
    return collector_load.load_collector(Path("collector.yaml"), {}).anomalies


def test_customers_have_thresholds_of_their_own(folder: Path) -> None:
    own = "{a: {score: 5}, b: {pause: off, similarity: 0.5}, c: {ignore: yes}}"
    result = anomalies(folder, f"{{score: 4, pause: 5, customers: {own}}}")
    assert result.find_thresholds("z") == result
    assert result.find_thresholds("a") == Thresholds(score=5.0, similarity=0.9, pause=5.0)
    assert result.find_thresholds("b") == Thresholds(score=4.0, similarity=0.5, pause=None)
    assert result.find_thresholds("c") is None
    assert anomalies(folder, "{}") == Anomalies()
    assert Anomalies.model_validate(result.model_dump()) == result
    assert anomalies(folder, "{keep: 30day}").keep == 30 * 86400


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{score: 0.5}", f"score: '0.5' is out of range, {A_SCORE}"),
        ("{score: high}", f"score: 'high' is out of range, {A_SCORE}"),
        ("{similarity: 2}", f"similarity: '2' is out of range, {A_SIMILARITY}"),
        ("{pause: 1}", f"pause: '1' is out of range, {A_PAUSE_AT}"),
        ("{keep: 0day}", "keep: '0day' is out of range, whole days from 1day to 3650day"),
        ("{keep: 1.5day}", "keep: '1.5day' is out of range, whole days from 1day to 3650day"),
        ("{customers: {a: {pause: [1]}}}", f"customers.a.pause: is not a single value, {A_PAUSE_AT}"),
    ],
)
def test_invalid_setting_reports_its_line(folder: Path, written: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        anomalies(folder, written)
    assert str(caught.value) == f"collector.yaml:2: anomalies.{problem}"
