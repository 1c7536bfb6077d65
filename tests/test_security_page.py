"""The pages about security: the tests that they name are there, and each stolen secret has some."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / "operations" / name for name in ("security.md", "security-review.md")]
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    named = set(TEST.findall(page.read_text()))
    assert named
    for file, name in sorted(named):
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_each_stolen_secret_has_its_tests() -> None:
    section = PAGES[0].read_text().partition("\n## What a stolen secret is worth\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for secret, *_, tests in rows:
        assert TEST.search(tests), f"nothing shows what {secret} is worth"
