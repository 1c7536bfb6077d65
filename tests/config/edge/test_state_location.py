"""The state directory in an edge's configuration, although the rest of the file may be invalid."""

from pathlib import Path

import pytest

from edgeproxy.config.edge.state_location import has_no_settings, locate_state
from edgeproxy.config.file_kinds import detect_file_kind

AT = "state: /var/lib/edge\nadmin: 127.0.0.1:9191\ntables: {dir: /srv/tables, customers: x}\n"


@pytest.mark.parametrize(
    ("text", "state", "port"),
    [
        (AT, "/var/lib/edge", 9191),
        (f"{AT}routes: [{{path: nowhere}}]\nlisten: 1\nlisten: 2", "/var/lib/edge", 9191),
        (f"{AT}tiers: {{", "/var/lib/edge", None),
        ("state: 'a b'\ntiers: {", "var/edge", None),
        ('state: "/var/lib/edge"  # here\n  bad: : :', "/var/lib/edge", None),
        ("state: ${NOWHERE}\nadmin: x", "var/edge", None),
        ("state: ${WHERE}/edge", "/srv/edge", None),
        ("state: [a]\nregion: x", "var/edge", None),
        ("admin: {address: 127.0.0.1:9191, hosts: ':'}", "var/edge", None),
        ("", "var/edge", None),
    ],
)
def test_state_location_is_read_from_an_otherwise_invalid_file(tmp_path, text, state, port):
    path = tmp_path / "edge.yaml"
    path.write_text(text)
    result = locate_state(path, {"WHERE": "/srv"})
    assert result.state == Path(state)
    assert (result.admin.address.port if result.admin.address else None) == port


def test_table_directory_is_read_from_an_otherwise_invalid_section(tmp_path):
    path = tmp_path / "edge.yaml"
    path.write_text(AT)
    assert locate_state(path, {}).tables.dir == Path("/srv/tables")
    assert locate_state(tmp_path / "none.yaml", {}).tables.dir is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("database: sqlite:///x.db\nfoo: 1", "collector"),
        ("upstreams: {}\nfoo: 1", "edge"),
        ("tiers: {}", "part"),
        ("region: x", None),
        ("{", None),
    ],
)
def test_kind_of_an_invalid_file_is_detected(tmp_path, text, kind):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    assert detect_file_kind(path, {}) == kind


@pytest.mark.parametrize(
    ("content", "is_empty"),
    [(bytes(range(256)), True), (b"- 1\n- 2\n", True), (b"tiers: {", False), (b"region: x\n", False)],
    ids=["binary", "a list", "broken YAML", "an edge"],
)
def test_binary_files_and_lists_have_no_settings(tmp_path, content, is_empty):
    (tmp_path / "edge.yaml").write_bytes(content)
    assert has_no_settings(tmp_path / "edge.yaml", {}) is is_empty
