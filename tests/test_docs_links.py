"""Links in Markdown, mentions of pages elsewhere, and what pages say to run: each leads to something that is there."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MENTION = re.compile(r"\b(?:docs/[\w./-]+|README|ARCHITECTURE|CHANGELOG|CONTRIBUTING|SECURITY)\.md(?:#[\w-]+)?")
MODULE = re.compile(r"`([\w./-]+\.(?:py|lua))`")
PATH = re.compile(
    r"(?<![\w/.:-])(?:\./)?((?:tests|loadtest|edgeproxy|stripe_sandbox|scripts|deploy|requirements)/[\w./-]*\w)(?![\w@])"
)
RUN = re.compile(r"python -m ((?:tests|loadtest|edgeproxy)[\w.]*\w)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@cache
def tracked() -> tuple[Path, ...]:
    """The text files of the repository, those included that are not committed yet."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(path for path in map(ROOT.joinpath, listed.stdout.split("\n")[:-1]) if path.is_file())


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    found: set[str] = set()
    times: Counter[str] = Counter()
    for heading in HEADING.findall(FENCE.sub("", page.read_text())):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(f"{anchor}-{times[anchor]}" if times[anchor] else anchor)
        times[anchor] += 1
    return found


def broken(target: str, beside: Path) -> str | None:
    """Return the fault of a link, or None if its target exists."""
    name, _, anchor = target.partition("#")
    page = beside / name if name else beside
    if not page.exists():
        return f"{target}: there is no such file"
    if anchor and anchor not in anchors(page):
        return f"{target}: the page has no such heading"
    return None


def faults(path: Path) -> Iterator[str]:
    """The links and mentions of a file that lead nowhere, each with its place."""
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return
    if path.suffix == ".md":
        # Blanked, so that lines keep their numbers.
        text = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)
    for match in MENTION.finditer(text) if path.suffix != ".md" else LINK.finditer(text):
        target = match[1] if path.suffix == ".md" else match[0]
        if re.match(r"[a-z]+:", target):
            continue
        beside = ROOT if path.suffix != ".md" else path if target.startswith("#") else path.parent
        why = broken(target, beside)
        if why is not None:
            yield f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {why}"


def test_every_link_and_mention_of_a_page_leads_somewhere() -> None:
    found = [fault for path in tracked() if path != Path(__file__) for fault in faults(path)]
    assert not found, "\n".join(found)


def test_each_module_named_by_a_page_exists() -> None:
    names = [f"/{path.relative_to(ROOT)}".split("/") for path in tracked()]
    ends = {"/".join(parts[at:]) for parts in names for at in range(1, len(parts))}
    for page in pages():
        for name in MODULE.findall(page.read_text()):
            assert name in ends, f"{page.name}: {name}"


def test_each_member_named_by_a_developer_page_exists() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "edgeproxy").rglob("*.py"))
    for page in (ROOT / "ARCHITECTURE.md", *(ROOT / "docs/design").glob("*.md")):
        for owner, name in re.findall(r"`([A-Z][a-z]+[A-Za-z]*)\.([a-z_]+)`", page.read_text()):
            assert re.search(rf"^class {owner}\b", code, re.MULTILINE), f"{page.name}: {owner}"
            assert re.search(rf"^ +(?:async )?(?:def {name}\b|{name}\b ?[:=])", code, re.MULTILINE), (
                f"{page.name}: {name}"
            )


def test_each_path_and_command_named_by_a_page_exists() -> None:
    for page in pages():
        text = page.read_text()
        for name in PATH.findall(text):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
        for name in RUN.findall(text):
            place = ROOT / name.replace(".", "/")
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), f"{page.name}: {name}"


def test_the_drawing_of_the_rooms_has_every_package() -> None:
    rooms = (ROOT / "ARCHITECTURE.md").read_text().partition("\n## Rooms\n")[2]
    drawing = rooms.split("```")[1]
    for folder in ("", "edge", "collector"):
        for package in (ROOT / "edgeproxy" / folder).glob("*/__init__.py"):
            assert f"{package.parent.name}/" in drawing, package.parent


def test_the_map_of_the_documentation_names_every_page_once() -> None:
    text = (ROOT / "docs" / "README.md").read_text()
    linked = Counter(target.partition("#")[0] for target in LINK.findall(text) if not target.startswith("../"))
    written = {str(page.relative_to(ROOT / "docs")) for page in pages() if ROOT / "docs" in page.parents}
    assert linked == dict.fromkeys(written - {"README.md"}, 1)


def pages() -> list[Path]:
    """Return the pages about the present state."""
    return [path for path in tracked() if path.suffix == ".md" and path.name != "CHANGELOG.md"]
