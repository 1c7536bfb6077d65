"""edgeproxy spool: ls, verify, adopt, discard."""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.usage import audit
from edgeproxy.edge.usage.identity import set_aside_if_moved
from edgeproxy.edge.usage.seal import Sealer
from edgeproxy.edge.usage.spool import Spool, list_segments
from loadtest.testbed.sealing import NOW, acknowledge, count, name, prepare


class Edge:
    """A configuration, and its state directory."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.config = folder / "edge.yaml"
        self.config.write_text(
            f"state: {self.state}\nupstreams: {{api: {{endpoints: [http://127.0.0.1:1]}}}}\n"
            "routes: [{path: /*, upstream: api}]\n"
        )
        self.now = NOW

    def serve(self, seals: int = 1) -> str:
        """Serve until so many batches of one count are sealed, then stop. Return the edge's id."""
        set_aside_if_moved(self.state, self.state)
        store = prepare(self.state)
        sealer = Sealer.open(store, "here", self.now)
        worker = Store.join(self.state)
        for _ in range(seals):
            self.now += 5
            count(worker, name(3))
            sealer.seal(self.now)
        for one in (sealer, worker, store):
            one.close()
        return sealer.identity.id

    def move(self) -> None:
        """Replace the directory with a copy of itself."""
        copy = self.state.with_name("copy")
        shutil.copytree(self.state, copy)
        shutil.rmtree(self.state)
        copy.rename(self.state)

    def spool(self, *arguments: str) -> Result:
        command, *rest = arguments
        return CliRunner().invoke(cli.app, ["spool", command, "-c", str(self.config), *rest])


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edge:
    monkeypatch.setattr("edgeproxy.edge.usage.spool.SEGMENT_BYTES", 480)
    return Edge(tmp_path)


def test_ls_lists_segments_and_quarantined_directories(edge: Edge) -> None:
    first = edge.serve(4)
    lines = edge.spool("ls").stdout.splitlines()
    assert re.fullmatch(rf"{first}, made 2026-09-2. ..:.. UTC; acknowledged up to batch 0", lines[0])
    listed = audit.summarize_segments(edge.state / "spool")
    assert listed[-1].last == 4
    assert len(listed) > 1
    assert lines[1] == "to be shipped: batches 1 to 4, 4 counted"
    assert lines[2:] == [f"{one.path.name}  batches {one.first} to {one.last}, {one.size} bytes" for one in listed]
    edge.move()
    second = edge.serve()
    lines = edge.spool("ls").stdout.splitlines()
    assert lines[0].startswith(f"{second}, ")
    assert lines[-1] == f"aside.1  set aside: {first}; adopt or discard it"


def test_verify_names_damaged_segments(edge: Edge) -> None:
    edge.serve(5)
    path = list_segments(edge.state / "spool")[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:70] + bytes([whole[70] ^ 1]) + whole[71:])
    result = edge.spool("verify")
    assert result.exit_code == 1
    first, *others = result.stderr.splitlines()
    assert re.fullmatch(rf"{path}:16: has another checksum than it should \(\d+ bytes\)", first)
    assert len(others) == 1
    assert "batch 2 is the first one here, and only those up to 0 were acknowledged" in others[0]


def test_verify_names_missing_and_out_of_order_batches(edge: Edge) -> None:
    edge.serve(8)
    spool = edge.state / "spool"
    paths = list_segments(spool)
    contents = [path.read_bytes() for path in paths]
    listed = audit.summarize_segments(spool)
    paths[1].unlink()
    result = edge.spool("verify")
    assert result.exit_code == 1
    assert result.stderr == f"{paths[2]}:16: batch {listed[2].first} is where batch {listed[1].first} should be\n"
    paths[1].write_bytes(contents[1])
    paths[-1].unlink()
    result = edge.spool("verify")
    assert result.exit_code == 1
    assert result.stderr == f"{spool}: batch 8 was sealed, and {listed[-1].first - 1} is the last one here\n"


def test_verify_knows_a_torn_tail_from_damage(edge: Edge) -> None:
    edge.serve(2)
    path = list_segments(edge.state / "spool")[-1]
    whole = path.read_bytes()
    path.write_bytes(whole + b"a record that was cut off")
    result = edge.spool("verify")
    assert result.exit_code == 0
    assert result.stderr == (
        f"{path}:{len(whole)}: is cut off, or its length is wrong (25 bytes): nothing was sealed there, "
        "a start cuts it off\n"
    )
    path.write_bytes(whole[:-1])
    result = edge.spool("verify")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith("batch 2 was sealed, and 1 is the last one here")


def test_a_batch_is_shown(edge: Edge) -> None:
    mine = edge.serve(2)
    result = edge.spool("show", "2")
    assert result.exit_code == 0
    first, *rows = result.stdout.splitlines()
    assert first.startswith(f"batch 2 of {mine}, ")
    assert [len(row.split("  ")) for row in rows] == [4]
    result = edge.spool("show", "99")
    assert (result.exit_code, result.stderr[:20]) == (1, "there is no batch 99")
    first_segment = list_segments(edge.state / "spool")[0]
    assert sum(audit.sum_unshipped(edge.state / "spool").values()) == audit.fetch_progress(edge.state / "spool").values
    first_segment.write_bytes(first_segment.read_bytes()[:-1])
    assert edge.spool("show", "2").exit_code == 1


def test_verify_reports_a_spool_of_another_edge(edge: Edge) -> None:
    mine = edge.serve(1)
    verdict = audit.verify_spool(edge.state / "spool", "edge-other", 0)
    (path,) = list_segments(edge.state / "spool")
    assert verdict.problems == (f"{path}:16: batch 1 is of {mine}, and the spool of edge-other",)


def test_adopt_resumes_an_identity_and_discard_deletes_one(edge: Edge) -> None:
    first = edge.serve(2)
    edge.move()
    result = edge.spool("adopt")
    assert (result.exit_code, result.stdout) == (0, f"{first} goes on in {edge.state}\n")
    edge.move()
    second = edge.serve(1)
    result = edge.spool("adopt")
    assert result.stdout == f"{first} goes on in {edge.state}; what was there is in {edge.state / 'aside.2'}\n"
    assert edge.serve(1) == first
    assert edge.spool("verify").stdout.startswith("OK: 3 batches")
    assert second in edge.spool("ls").stdout
    result = edge.spool("discard", "aside.7")
    assert (result.exit_code, "there is no aside.7" in result.stderr) == (1, True)
    result = edge.spool("discard", "aside.2")
    assert (result.exit_code, "aside.2 sealed and did not ship: 1 " in result.stderr) == (1, True)
    assert (edge.state / "aside.2").exists(), "the deletion was not confirmed"
    result = edge.spool("discard", "aside.2", "--yes")
    assert (result.exit_code, result.stdout) == (0, f"{edge.state / 'aside.2'} is gone\n")
    result = edge.spool("discard")
    assert (result.exit_code, result.stderr) == (1, f"nothing was set aside in {edge.state}\n")


def test_damage_is_given_up_though_the_edge_runs(edge: Edge) -> None:
    edge.serve(8)
    folder = edge.state / "spool"
    nothing = f"no batch in {folder} is damaged, and shipping does not wait for this\n"
    result = edge.spool("discard", "--damaged", "--yes")
    assert (result.exit_code, result.stderr) == (1, nothing)
    first, second, *_ = list_segments(folder)
    content = bytearray(second.read_bytes())
    content[40] ^= 1
    second.write_bytes(content)
    seq = int(second.stem)
    store = prepare(edge.state)
    result = edge.spool("discard", "--damaged", "--yes")
    given_up = f"given up: batches {seq} to {seq}: {second.name}:16: has another checksum than it should\n"
    assert (result.exit_code, result.stdout) == (0, given_up)
    store.close()
    assert given_up in edge.spool("ls").stdout
    result = edge.spool("verify")
    assert (result.exit_code, result.stdout[:14]) == (0, "OK: 7 batches ")
    assert re.fullmatch(rf"{second}:16: has another checksum than it should \(\d+ bytes\): given up\n", result.stderr)
    # Nothing more is damaged, and the option is about the spool in use, not about one that was set aside.
    assert edge.spool("discard", "--damaged", "--yes").stderr == nothing
    assert edge.spool("discard", "--damaged", "aside.1").exit_code == 2
    (folder / "discarded.json").write_bytes(b"?")
    for command in (("verify",), ("discard", "--damaged")):
        result = edge.spool(*command)
        assert (result.exit_code, "discarded.json is damaged" in result.stderr) == (1, True)
    result = edge.spool("ls")
    assert (result.exit_code, "discarded.json is damaged" in result.stderr) == (0, True)
    # Acknowledged batches may be missing, others may not.
    spool = Spool.open(folder, sealed=8)
    acknowledge(spool, 1)
    spool.close()
    first.unlink()
    (folder / "discarded.json").unlink()
    assert edge.spool("discard", "--damaged", "--yes").stdout.startswith(
        f"given up: batches 2 to {seq}: {second.name}:16: "
    )


def test_ls_states_the_acknowledged_batch(edge: Edge) -> None:
    edge.serve(8)
    spool = Spool.open(edge.state / "spool")
    acknowledge(spool, 6)
    assert edge.spool("ls").stdout.splitlines()[1] == "to be shipped: batches 7 to 8, 2 counted"
    acknowledge(spool, 8)
    first, second = edge.spool("ls").stdout.splitlines()[:2]
    assert first.endswith("acknowledged up to batch 8")
    assert ".seg" in second
    acknowledge(spool, 2)
    assert edge.spool("ls").stdout.splitlines()[1:3] == [
        "the collector had them up to batch 8, and asks for them again: it was restored",
        "to be shipped: batches 3 to 8, 6 counted",
    ]
    spool.close()
    shutil.rmtree(edge.state / "spool")
    assert edge.spool("ls").stdout.splitlines()[0].endswith("acknowledged up to batch 0")


def test_spool_commands_refuse_while_the_edge_runs(edge: Edge) -> None:
    edge.serve()
    store = prepare(edge.state)
    for command in ("adopt", "discard"):
        result = edge.spool(command)
        assert (result.exit_code, result.stderr) == (1, f"an edge uses {edge.state}: stop it first\n")
    assert edge.spool("verify").exit_code == 0
    store.close()
