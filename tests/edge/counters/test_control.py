import os
from pathlib import Path

import pytest

from edgeproxy.edge.counters.control import GENERATIONS, Control, boot_digest
from edgeproxy.edge.counters.file import KINDS, TableError


def test_the_instance_is_made_once(tmp_path: Path) -> None:
    one = Control.prepare(tmp_path / "control")
    assert 0 < one.instance < 1 << 56
    assert Control.prepare(tmp_path / "control").instance == one.instance
    assert Control.prepare(tmp_path / "another").instance != one.instance


def test_a_new_boot_brings_another_offset(tmp_path: Path) -> None:
    control = Control.prepare(tmp_path / "control")
    assert control.boot == 0
    control.begin_boot(boot_digest("one"), 51_234_567.25)
    other = Control.open(tmp_path / "control")
    assert other.boot == boot_digest("one") != boot_digest("two")
    assert other.offset == 51_234_567.25


def test_a_table_has_no_current_file_until_one_is_published(tmp_path: Path) -> None:
    control = Control.prepare(tmp_path / "control")
    assert control.generation("customers") == 0
    control.publish("customers", 3)
    control.publish("metrics", 4)
    other = Control.open(tmp_path / "control")
    assert [other.generation(table) for table in ("customers", "addresses", "usage", "metrics")] == [3, 0, 0, 4]


def test_every_table_has_a_word_of_its_own() -> None:
    assert GENERATIONS.keys() == set(KINDS)
    assert len(set(GENERATIONS.values())) == len(KINDS)


def test_worker_reads_the_supervisor_token_and_heartbeat_age(tmp_path: Path) -> None:
    supervisor, worker = Control.prepare(tmp_path / "control"), Control.open(tmp_path / "control")
    assert worker.read_heartbeat(50.0) == (0, 50.0)
    supervisor.write_heartbeat((1 << 64) - 1, 100.25)
    assert worker.read_heartbeat(103.0) == ((1 << 64) - 1, 2.75)


def test_how_many_hosts_the_hub_knew_is_there_for_the_next(tmp_path: Path) -> None:
    control = Control.prepare(tmp_path / "control")
    assert control.hosts == 1, "no host has reported to the hub yet"
    control.write_hosts(3)
    assert Control.prepare(tmp_path / "control").hosts == 3


@pytest.mark.parametrize("content", [b"", b"x" * 4096, b"edge.ctl"])
def test_control_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "control"
    path.write_bytes(content)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(TableError, match="control: is not a control file of edgeproxy"):
        Control.prepare(path)
    assert os.listdir("/proc/self/fd") == before


def test_a_control_file_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="control: cannot be opened: No such file"):
        Control.open(tmp_path / "control")


def test_place_is_written_once(tmp_path: Path) -> None:
    control = Control.prepare(tmp_path / "control")
    assert control.place == 0
    control.write_place(7)
    control.write_place(8)
    assert control.place == 7
    control.close()


def test_a_closed_control_file_is_unmapped(tmp_path: Path) -> None:
    Control.prepare(tmp_path / "control").close()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_control_file_layout_is_unchanged(tmp_path: Path) -> None:
    control = Control.prepare(tmp_path / "control")
    control.begin_boot(7, 0.000_011)
    control.write_heartbeat(13, 0.017)
    for generation, table in enumerate(("customers", "addresses", "usage", "metrics", "connections", "quotas"), 19):
        control.publish(table, generation)
    content = memoryview((tmp_path / "control").read_bytes()).cast("Q")
    assert len(content) == 512
    assert content[:6].tolist() == [int.from_bytes(b"edge.ctl", "little"), control.instance, 7, 11, 13, 17]
    assert content[16:23].tolist() == [19, 20, 21, 22, 23, 24, 0]
