"""docs/edge/configuration.md against the code: all settings, and no others; and the examples of limits.md."""

import json
import re
from pathlib import Path

import pytest
import yaml

from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.schema import ELSEWHERE as COLLECTOR_ELSEWHERE
from edgeproxy.config.collector.schema import build_collector_schema
from edgeproxy.config.collector.warnings import list_collector_warnings
from edgeproxy.config.edge.schema import ELSEWHERE, build_edge_schema
from tests.config.conftest import LEAST, write
from tests.support.authority import Authority

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "edge" / "configuration.md").read_text()
SECTIONS = dict(re.findall(r"^## `?(.+?)`?\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
MADE, MADE_OF_COLLECTOR = build_edge_schema(), build_collector_schema()


@pytest.fixture
def reads_files():
    return False


def table(section):
    """The rows of a section's table, each a list of its cells."""
    rows = [line.strip("|").split(" | ") for line in SECTIONS[section].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


def mapping(value):
    """The name of the mapping that a value may be, or of that which its members are."""
    if "$ref" in value:
        return value["$ref"].rpartition("/")[2]
    inner = [value.get("items"), *value.get("patternProperties", {}).values(), *value.get("anyOf", ())]
    return next(filter(None, map(mapping, filter(None, inner))), None)


def described(section):
    """The name and the schema of the mapping that a section is about, such as upstreams.NAME.tls."""
    name, part = "EdgeFile", MADE
    for step in section.replace(".NAME", "").split(".") if section != "At the top" else ():
        name = mapping(part["properties"][step])
        part = MADE["$defs"][name]
    return name, part


DESCRIBED = [section for section in SECTIONS if section == "At the top" or re.fullmatch(r"[a-zA-Z_.]+", section)]


LITERAL = re.compile(r"`[^`\[{]+`")
"""How a default is written that is a number or a word, and so is in the schema."""


@pytest.mark.parametrize("section", DESCRIBED)
def test_a_section_has_every_setting_with_its_default(section):
    name, part = described(section)
    rows = {row[0].strip("`"): row[1:] for row in table(section)}
    assert len(rows) == len(table(section))
    assert rows.keys() == part["properties"].keys()
    needed = {*part.get("required", ()), *(ELSEWHERE["EdgeFile"] if name == "EdgeFile" else ())}
    for setting, (value, default, meaning) in rows.items():
        assert value
        assert meaning
        assert (default == "**required**") == (setting in needed), setting
        if "default" in part["properties"][setting] or LITERAL.fullmatch(default):
            assert default == "`{}`".format(json.dumps(part["properties"][setting].get("default")).strip('"')), setting


def test_every_mapping_has_a_section():
    assert {described(section)[0] for section in DESCRIBED} == {"EdgeFile", *MADE["$defs"]}


COLLECTOR_TEXT = (DOCS / "operations" / "collector-configuration.md").read_text()
COLLECTOR_SECTIONS = dict(re.findall(r"^## `?(.+?)`?\n(.*?)(?=^## |\Z)", COLLECTOR_TEXT, re.MULTILINE | re.DOTALL))


def described_of_collector(section):
    name, part = "CollectorFile", MADE_OF_COLLECTOR
    for step in section.split(".") if section != "At the top" else ():
        name = mapping(part["properties"][step])
        part = MADE_OF_COLLECTOR["$defs"][name]
    return name, part


@pytest.mark.parametrize("section", COLLECTOR_SECTIONS)
def test_a_section_of_the_collector_has_every_setting_with_its_default(section):
    name, part = described_of_collector(section)
    lines = [re.split(r"(?<!\\)\|", line.strip("|")) for line in COLLECTOR_SECTIONS[section].splitlines()]
    rows = {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in lines if len(row) == 4}
    rows = {name: row for name, row in rows.items() if name not in ("setting", "---")}
    assert rows.keys() == part["properties"].keys()
    needed = {*part.get("required", ()), *(COLLECTOR_ELSEWHERE["CollectorFile"] if name == "CollectorFile" else ())}
    for setting, (_, default, meaning) in rows.items():
        assert meaning
        assert (default == "**required**") == (setting in needed), setting
        if "default" in part["properties"][setting]:
            assert default == f"`{part['properties'][setting]['default']}`", setting


def test_every_mapping_of_the_collector_has_a_section_here_or_on_the_edge_s_page():
    own = {described_of_collector(section)[0] for section in COLLECTOR_SECTIONS}
    assert MADE_OF_COLLECTOR["$defs"].keys() - own <= MADE["$defs"].keys()


def test_the_shortest_collector_yaml_passes(tmp_path):
    (example,) = EXAMPLES.findall(COLLECTOR_TEXT)
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
