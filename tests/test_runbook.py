"""The runbook of money: its commands are there with these options, and its alerts are raised."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer._click.core import Context
from typer.core import TyperGroup

from edgeproxy.cli.commands import app
from edgeproxy.collector.alerts.kinds import AlertKind

ROOT = Path(__file__).parents[1]
RUNBOOK = (ROOT / "docs/billing/runbook.md").read_text()
DAY = (ROOT / "docs/billing/operators-day.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", RUNBOOK + DAY, re.DOTALL) for line in block.splitlines()]
INLINE = [found for found in re.findall(r"`(edgeproxy billing [^`]+)`", RUNBOOK.replace("\n", " ")) if "…" not in found]


@pytest.mark.parametrize("line", [*LINES, *INLINE])
def test_each_runbook_command_parses(line: str) -> None:
    name, *words = shlex.split(line)
    assert name == "edgeproxy"
    command = typer.main.get_command(app)
    while isinstance(command, TyperGroup):
        name = words.pop(0)
        called = command.get_command(Context(command), name)
        assert called is not None, line
        command = called
    if words or not [param for param in command.params if param.required]:
        command.make_context(name, words)


def test_alerts_that_the_runbook_names_are_kinds_of_alerts() -> None:
    named = re.findall(r"`([a-z_]+)`", " ".join(re.findall(r"alert\s+`[a-z_]+`(?:\s+or\s+`[a-z_]+`)?", RUNBOOK)))
    assert named
    assert set(named) <= set(AlertKind)


def test_each_runbook_procedure_has_an_existing_drill() -> None:
    rows = re.findall(r"^\| (.+?) \| `(tests/[a-z0-9_/]+\.py)` \|$", RUNBOOK, re.MULTILINE)
    assert [file for _, file in rows if not (ROOT / file).is_file()] == []
    drilled = " ".join(procedure for procedure, _ in rows).lower()
    listed = RUNBOOK[RUNBOOK.index("- [How bad is it]") : RUNBOOK.index("## How bad is it")]
    procedures = {title.lower() for title in re.findall(r"\[([^]]+)\]", listed)} - {"how bad is it", "drills"}
    assert {title for title in procedures if title.removeprefix("a ").split(" has ")[0] not in drilled} == set()
