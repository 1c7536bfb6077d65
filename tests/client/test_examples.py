"""The examples of docs/usage/events.md work against a collector."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from edgeproxy.client import EventClient
from loadtest.testbed.collector import SERVICE, Collector

PAGE = (Path(__file__).parents[2] / "docs/usage/events.md").read_text()
TAKEN = {"accepted": 1, "duplicates": 0, "rejected": []}
METERS = {"tokens": {"count": "events", "dimensions": {"model": 50}}}
RUNS = {"sh": ["bash", "-c"], "js": ["node", "--input-type=module", "-e"]}


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector with the meter of the examples."""
    folder = tmp_path_factory.mktemp("examples")
    made = Collector(folder / "collector", f"sqlite:///{folder}/ledger.db", meters=METERS)
    yield made.start()
    made.close()


def example(language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("language", RUNS)
def test_an_event_is_reported(collector: Collector, language: str) -> None:
    program = RUNS[language]
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not on this machine")
    here = example(language).replace("127.0.0.1:9100", f"127.0.0.1:{collector.port}")
    done = subprocess.run([*program, here], capture_output=True, env={**os.environ, "TOKEN": SERVICE}, check=False)
    assert done.returncode == 0, done.stderr
    match = re.search(rb"\{.*\}", done.stdout.replace(b"\n", b" "))
    assert match is not None
    if language == "sh":
        assert orjson.loads(match[0]) == TAKEN == orjson.loads(example("json"))
        again = subprocess.run([*program, here], capture_output=True, env={**os.environ, "TOKEN": SERVICE}, check=True)
        assert orjson.loads(again.stdout) == {**TAKEN, "accepted": 0, "duplicates": 1}
    else:
        assert b"accepted: 1" in match[0]


def test_python_s_reports_with_its_client(collector: Collector, tmp_path: Path) -> None:
    here = example("python").replace("127.0.0.1:9100", f"127.0.0.1:{collector.port}")
    names: dict[str, object] = {"token": SERVICE}
    exec(here.replace("/var/lib/worker/events", str(tmp_path)), names)
    client = names["client"]
    assert isinstance(client, EventClient)
    assert client.close(30.0)
    rows = collector.usage(by="model", meter="tokens")["rows"]
    assert {"model": "m1", "value": 1200} in rows
