"""The pages of settings equal those generated from the models, and examples in pages are valid."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.warnings import list_collector_warnings
from loadtest.testbed.authority import Authority
from tests.config.conftest import LEAST, write

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "edge" / "configuration.md").read_text()


@pytest.fixture
def reads_files():
    return False


def check_pages(root):
    command = [sys.executable, root / "scripts" / "settings-pages", "--check"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_page_of_settings_that_is_stale_is_noticed(tmp_path):
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copytree(DOCS.parent / "scripts", tmp_path / "scripts")
    page = tmp_path / "docs" / "edge" / "configuration.md"
    page.write_text(page.read_text().replace("| `drain` | time | `30s` |", "| `drain` | time | `31s` |"))
    done = check_pages(tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (1, "configuration.md")


COLLECTOR_TEXT = (DOCS / "operations" / "collector-configuration.md").read_text()


def test_the_shortest_collector_yaml_passes(tmp_path):
    example, *_ = EXAMPLES.findall(COLLECTOR_TEXT)
    file = tmp_path / "collector.yaml"
    file.write_text(example)
    assert load_collector(file, {}).tokens[0].role == "edge"


def test_every_example_of_a_directory_is_signed():
    examples = [
        example
        for page in (DOCS.parent / "README.md", *DOCS.rglob("*.md"))
        for example in EXAMPLES.findall(page.read_text())
        if "directory: {from:" in example
    ]
    assert len(examples) >= 3
    assert [example for example in examples if "trust:" not in example] == []


def test_the_collector_with_an_internal_listener_passes_without_a_warning(folder):
    section = (DOCS / "operations" / "collector.md").read_text().partition("\n## Listeners\n")[2]
    example = EXAMPLES.findall(section)[0]
    pair = Authority(folder).issue("collector.test")
    certs = {name: (pair.key if name.endswith("key") else pair.cert).read_text() for name in CERTS.findall(example)}
    tokens = f"tokens: [{{sha256: {'a' * 64}, role: edge}}]\n"
    write(folder, {**certs, "collector.yaml": example + tokens})
    settings = load_collector(Path("collector.yaml"), {})
    assert list(list_collector_warnings(settings)) == []
    assert [listener.address.host for listener in settings.listen if "api" in listener.groups] == ["10.0.0.5"]


CERTS = re.compile(r"certs/\w+\.\w+")


EXAMPLES = re.compile(r"```yaml\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES.findall(TEXT + (DOCS / "limits" / "limits.md").read_text()))
def test_examples_pass(problems, example):
    parts = yaml.safe_load(example)
    rest = [line for line in LEAST.splitlines() if line.partition(":")[0] not in parts]
    assert problems("\n".join([example, *rest])) == []
