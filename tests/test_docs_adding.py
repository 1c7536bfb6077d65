"""docs/design/adding.md: the files of each change exist and contain the named things. No file has its example."""

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/design/adding.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
ROWS = re.findall(r"^\| ([\w ]+) \| `([^`]+)` \| (.+) \|$", PAGE.partition("## Measured")[0], re.MULTILINE)
PLACES = re.compile(r"`([\w/]+\.(?:py|yml|html))` \(((?:`[^`]+`(?:, )?)+)\)")
BESIDE = ("stripe_sandbox/", "edgeproxy/client/", "edgeproxy/probe/")
"""Programs of their own, which share no tables with the wings."""


def list_places(files: str) -> list[tuple[Path, list[str]]]:
    """The files of a row, each with the names to be found in it."""
    roots = [ROOT / "edgeproxy", ROOT]
    return [
        (next(root / name for root in roots if (root / name).exists()), re.findall(r"`([^`]+)`", names))
        for name, names in PLACES.findall(files)
    ]


def list_files_with(word: str) -> set[Path]:
    """The files of the product, its alerts and their cases that have this word."""
    command = ["git", "grep", "-lwF", "--untracked", word, "--", "*.py", "*.yml"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    product = ("edgeproxy/", "config/prometheus/", "tests/alerts")
    return {ROOT / name for name in listed if name.startswith(product) and not name.startswith(BESIDE)}


def test_page_lists_sixteen_changes() -> None:
    assert len(ROWS) == 16


@pytest.mark.parametrize(("change", "example", "files"), ROWS, ids=[row[0] for row in ROWS])
def test_a_change_touches_these_files(change: str, example: str, files: str) -> None:
    places = list_places(files)
    for path, names in places:
        for name in names:
            assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", path.read_text()), f"{path}: {name}"
    listed = {path for path, _ in places}
    assert list_files_with(example) <= listed, change
    product = [path for path in listed if not path.is_relative_to(ROOT / "tests")]
    assert re.findall(r" \| (\d+)$", files) == [str(len(product))], change


@pytest.mark.parametrize(("change", "files"), [(row[0], row[2]) for row in ROWS], ids=[row[0] for row in ROWS])
def test_architecture_names_where_a_change_begins(change: str, files: str) -> None:
    first = PLACES.findall(files)[0][0]
    rows = [line for line in ARCHITECTURE.splitlines() if line.startswith("|") and f"**{change}**" in line]
    assert [row for row in rows if first in row], f"{change}: {first}"
