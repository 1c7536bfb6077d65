"""Runs of lines, read by regular expressions, give the YAML parser's tree, places and problems."""

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from edgeproxy.config import yaml_runs
from edgeproxy.config.edge.settings import Pushed
from edgeproxy.config.parsers import NOTHING_DIGEST
from edgeproxy.config.problems import Steps
from edgeproxy.config.tree import FlatTable, Items, Places, Table, Value
from edgeproxy.config.yaml_reader import InvalidYamlError, parse_yaml

ROWS = range(yaml_runs.RUN_LINES_MIN + 3)
CUSTOMERS = "".join(f"  c{n}: {{tier: {'pro' if n % 3 else 'free'}}}\n" for n in ROWS)
KEYS = "".join(f"  - {{sha256: {n:064x}, customer: c{n}}}\n" for n in ROWS)
FULL_KEYS = "".join(f"- {{customer: c{n}, sha256: {n:064x}, expires: 2027-01-{n % 28 + 1:02}}}\n" for n in ROWS)
FILE = f"# people\nregion: eu\ncustomers:\n{CUSTOMERS}  last: {{tier: [x]}}\nkeys:\n{KEYS}tiers: {{pro: {{}}}}\n"


def read(text: str, monkeypatch: pytest.MonkeyPatch, runs: bool) -> object:
    """Return the values of a text with their places, or its error, and all problems."""
    problems: list[object] = []
    with monkeypatch.context() as patched:
        if not runs:
            patched.setattr("edgeproxy.config.yaml_reader.reduce_text", lambda _: None)
        try:
            tree = parse_yaml(text.encode(), 3, {}, lambda *problem: problems.append(problem))
        except InvalidYamlError as error:
            return error.args, problems
    places = Places(tree)
    return [(path, value, places.locate(path).mark) for path, value in walk((), tree)], problems


def walk(path: Steps, value: Value) -> Iterator[tuple[Steps, Value]]:
    members = value.items() if isinstance(value, Table) else enumerate(value) if isinstance(value, Items) else ()
    for key, member in members:
        yield (*path, key), member
        yield from walk((*path, key), member)


@pytest.mark.parametrize(
    "text",
    [
        FILE,
        "customers:\n" + "".join(f"  n{n}: {{tier: pro}}\n" for n in range(yaml_runs.RUN_LINES_MAX + 40)) + "x: null\n",
        f"keys:\n{FULL_KEYS}customers:\n{CUSTOMERS}",
        f"customers: &all\n{CUSTOMERS}more:\n  <<: *all\n  x: *all\n",
        f"keys: &all\n{KEYS}more:\n  <<: *all\n",
        f"customers:\n{CUSTOMERS}{CUSTOMERS}",
        f"customers:\n{CUSTOMERS}  c5: {{tier: again}}\n",
        f"customers:\n{CUSTOMERS}  x: {{tier: ${{LACKING}}}}\n  y: null\nkeys:\n{KEYS}",
        f"customers:\n{CUSTOMERS.replace('free', 'null')}",
        f"customers:\n{CUSTOMERS}    wrong: {{tier: pro}}\n",
        f"customers:\n wrong: here\n{CUSTOMERS}",
        f"customers: {{\n{CUSTOMERS}}}\n",
        f"keys: [\n{KEYS}]\n",
        f"text: |\n{CUSTOMERS}customers:\n{CUSTOMERS}",
        f'text: "\n{CUSTOMERS}"\n',
        f"text: some\n{KEYS}",
        f"keys:\n{KEYS}---\ncustomers:\n{CUSTOMERS}",
        f"keys:\n{KEYS.replace('customer', 'sha256')}",
        f"customers:\r\n  first: {{tier: pro}}\r\n{CUSTOMERS}  x: null\n",
        f"customers:\n{CUSTOMERS}  edgeproxy-run-of-lines: {{tier: pro}}\nx: null\n",
        f"customers:\n{CUSTOMERS}  ä: {{tier: pro}}\n  b\x07: c\n",
        f"{CUSTOMERS}",
    ],
)
def test_text_with_runs_is_read_as_without(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(text, monkeypatch, runs=True) == read(text, monkeypatch, runs=False)


def test_runs_are_read_as_flat_tables_and_equal_customers_are_one() -> None:
    tree = parse_yaml(FILE.encode(), 0, {}, lambda *_: None)
    customers, keys = tree["customers"], tree["keys"]
    assert isinstance(customers, Table)
    assert isinstance(keys, Items)
    assert [(type(key), key.marks) for key in keys if isinstance(key, Table)] == [(FlatTable, [])] * len(ROWS)
    assert len({id(customer) for customer in customers.values() if isinstance(customer, FlatTable)}) == 2


@pytest.mark.parametrize(
    "rows",
    [
        {"customers": {"a": {"tier": "pro"}}, "keys": [{"sha256": "a" * 64, "customer": "a"}]},
        {"customers": {"a": {"tier": "pro", "priority": "high"}}, "keys": [{"sha256": "A" * 64, "customer": "a"}]},
        {"customers": {"-": {"tier": "pro"}, "b": {"tier": "-"}, "c": {"level": "pro"}}},
        {"keys": [{"sha256": "a" * 63, "customer": "a"}, {"sha256": "b" * 64, "customer": "_"}]},
        {"keys": [{"sha256": "c" * 64, "customer": "a", "expires": "2027-01-01"}, {"customer": "a"}]},
        {"keys": [{"sha256": NOTHING_DIGEST, "customer": "a"}]},
    ],
)
def test_flat_mappings_are_validated_like_others(rows: dict[str, object]) -> None:
    def build(kind: type[Table]) -> Table:
        parts: dict[str, Value] = {}
        for section, members in rows.items():
            if isinstance(members, dict):
                parts[section] = Table({name: kind(member) for name, member in members.items()})
            elif isinstance(members, list):
                parts[section] = Items(kind(member) for member in members)
        return Table(parts)

    def validate(tree: Table) -> object:
        try:
            return Pushed.model_validate(tree)
        except ValidationError as error:
            return error.errors(include_url=False, include_input=False)

    assert repr(validate(build(FlatTable))) == repr(validate(build(Table)))


def test_model_validates_plain_dictionaries() -> None:
    assert Pushed.model_validate({"customers": {"a": {"tier": "pro"}}}).customers["a"].tier == "pro"
