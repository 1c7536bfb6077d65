"""Pages that name tests as proof: the tests are there, and each stolen secret and each thing asked for has some."""

import re
from functools import cache
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
def test_each_test_named_by_a_page_exists(page: Path) -> None:
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


def test_each_working_requirement_names_its_test() -> None:
    works = ASKED.read_text().partition("\n## Different on purpose\n")[0].splitlines()
    rows = [line for line in works if line.startswith("| ") and not line.startswith("| asked ")]
    assert len(rows) > 100
    for row in rows:
        proof = row.strip("| ").split(" | ")[-1]
        files = re.findall(r"tests/[\w/]+\.py", proof)
        assert files or proof == "a text, nothing to run", row
        assert all((ROOT / file).is_file() for file in files), row


@cache
def read_product() -> str:
    """Return the text of the product, with the names of its files: code, configurations, deployment, scripts."""
    files = [file for folder in ("edgeproxy", "config", "deploy", "scripts") for file in (ROOT / folder).rglob("*")]
    texts = [file for file in files if file.is_file() and file.suffix not in {".so", ".pyc", ".c", ".png"}]
    return "\n".join(f"{file.relative_to(ROOT)}\n{file.read_text(errors='replace')}" for file in texts)


def list_lost_places(row: str) -> list[str]:
    """Return the places that a row names and that do not exist, or "none" if it names no place at all.

    A place is a link to a file, or words of the product: a setting, a path of the API, a command. A test is none.
    """
    links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", row)]
    lost = [target for target in links if target and not (ASKED.parent / target).exists()]
    codes = [code for code in re.findall(r"`([^`]+)`", row) if not code.startswith("tests/")]
    words = [word for code in codes for word in re.findall(r"[A-Za-z][\w-]{2,}", code)]
    lost += [word for word in words if word not in read_product()]
    return lost if links or codes else ["none"]


@pytest.mark.checkout
def test_each_requirement_row_names_existing_places() -> None:
    lines = ASKED.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| asked ")]
    assert {row: lost for row in rows if (lost := list_lost_places(row))} == {}


@pytest.mark.parametrize(
    ("row", "lost"),
    [
        ("| a thing | [a page](gone.md) | why |", ["gone.md"]),
        ("| a thing | `security_headers` and `no_such_setting` | why |", ["no_such_setting"]),
        ("| a thing | it is as it should be | `tests/test_docs_proofs.py` |", ["none"]),
        ("| a thing | `POST /v1/keys/KEY/rotate`, [a page](counting.md) | why |", []),
    ],
)
def test_row_without_an_existing_place_is_reported(row: str, lost: list[str]) -> None:
    assert list_lost_places(row) == lost
