"""Pages that name tests as proof: the tests are there, and each stolen secret and each thing asked for has some."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECURITY = ROOT / "docs" / "operations" / "security.md"
ASKED = ROOT / "docs" / "design" / "asked-for.md"
MEASURES = ROOT / "docs" / "privacy" / "measures.md"
ENCRYPTION = ROOT / "docs" / "privacy" / "encryption.md"
PAGES = [SECURITY, ROOT / "docs" / "operations" / "security-review.md", ASKED, MEASURES, ENCRYPTION]
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    named = set(TEST.findall(page.read_text()))
    assert named
    for file, name in sorted(named):
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_each_stolen_secret_has_its_tests() -> None:
    section = SECURITY.read_text().partition("\n## What a stolen secret is worth\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for secret, *_, tests in rows:
        assert TEST.search(tests), f"nothing shows what {secret} is worth"


def test_each_measure_names_its_proof() -> None:
    section = MEASURES.read_text().partition("\n## What edgeproxy does\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for measure, *_, proof in rows:
        assert TEST.search(proof), f"nothing shows that there is {measure}"


def test_each_thing_that_works_as_asked_names_its_proof() -> None:
    works = ASKED.read_text().partition("\n## Different on purpose\n")[0].splitlines()
    rows = [line for line in works if line.startswith("| ") and not line.startswith("| asked ")]
    assert len(rows) > 100
    for row in rows:
        proof = row.strip("| ").split(" | ")[-1]
        files = re.findall(r"tests/[\w/]+\.py", proof)
        assert files or proof == "a text, nothing to run", row
        assert all((ROOT / file).is_file() for file in files), row


def test_each_row_of_what_was_asked_for_has_a_place_in_the_product() -> None:
    """A link to a file that is there, a setting or path in the words of the product, or a test."""
    lost = []
    for line in ASKED.read_text().splitlines():
        if not line.startswith("| ") or line.startswith(("| asked ", "|---")):
            continue
        links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", line)]
        missing = [target for target in links if target and not (ASKED.parent / target).exists()]
        if missing or not (links or "`" in line or TEST.search(line)):
            lost.append((line.split(" | ")[0], missing))
    assert lost == []
