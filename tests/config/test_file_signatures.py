"""Every way that a file can change, and its signature after loading."""

from pathlib import Path

import pytest

from edgeproxy.config.edge.load import try_load_edge
from edgeproxy.config.file_signatures import compute_file_signature
from edgeproxy.config.references import Fault

LEAST = """\
upstreams: {api: {endpoints: [http://127.0.0.1:9001]}}
routes: [{path: /*, upstream: api}]
"""


def test_a_signature_changes_with_a_write_replacement_removal_or_link(tmp_path: Path) -> None:
    one, two, link = (tmp_path / name for name in ("one", "two", "link"))
    one.write_text("a")
    two.write_text("a")
    link.symlink_to("one")
    seen = [compute_file_signature(link)]
    assert seen[0] == compute_file_signature(one) == compute_file_signature(str(one))
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(link)
    seen.append(compute_file_signature(link))
    two.write_text("ab")
    seen.append(compute_file_signature(link))
    one.rename(two)
    seen.append(compute_file_signature(link))
    two.unlink()
    seen.append(compute_file_signature(link))
    assert seen[-1] is None
    assert len({*seen[:-1]} - {None}) == 3
    assert seen[3] == seen[0], "the very same file"


def test_failed_load_returns_the_signature_of_each_file(folder: Path) -> None:
    Path("edge.yaml").write_text(f"include: [a.yaml, gone.yaml]\n{LEAST}")
    Path("a.yaml").write_text("tiers: {t: {}}\n")
    loaded = try_load_edge(Path("edge.yaml"), {})
    assert loaded.settings is None
    assert [problem.field for problem in loaded.problems] == ["include.1"]
    assert loaded.signs == {
        "edge.yaml": compute_file_signature("edge.yaml"),
        "a.yaml": compute_file_signature("a.yaml"),
        "gone.yaml": None,
    }
    Path("gone.yaml").write_text("tiers: {u: {}}\n")
    again = try_load_edge(Path("edge.yaml"), {})
    assert again.settings is not None
    assert again.signs["gone.yaml"] == compute_file_signature("gone.yaml") is not None


@pytest.mark.parametrize(("more", "requested"), [("", 1), ("drain: 5\n", 0)])
def test_further_checks_run_only_on_a_valid_file(folder: Path, more: str, requested: int) -> None:
    Path("edge.yaml").write_text(f"{LEAST}access_log: log\n{more}")
    result = []

    def also(written):
        result.append(written)
        yield Fault(("access_log",), "is full", "name another file")

    loaded = try_load_edge(Path("edge.yaml"), {}, also=also)
    assert len(result) == requested
    assert loaded.settings is None
    reported = [str(problem) for problem in loaded.problems]
    if requested:
        assert reported == ["edge.yaml:3: access_log: is full, name another file"]
        assert try_load_edge(Path("edge.yaml"), {}, also=lambda _: []).settings is not None
    else:
        assert len(reported) == 1
