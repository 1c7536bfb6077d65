"""A disk that is really full: sealing stops, counting does not, and it goes on by itself."""

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.usage.seal import Sealer
from edgeproxy.edge.usage.segment import Disk
from edgeproxy.edge.usage.spool import list_segments
from loadtest.testbed.sealing import NOW, batches, count, name, prepare, sums, totals


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file system of 64 KiB in memory."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_sealing_and_nothing_else(tmp_path: Path, small: Path) -> None:
    state = tmp_path / "state"
    store = prepare(state)
    (state / "spool").symlink_to(small, target_is_directory=True)
    worker = Store.join(state)
    sealer = Sealer.open(store, "here", NOW, disk=Disk())
    step = failures = 0
    ballast = small / "ballast"
    ballast.write_bytes(bytes(40 << 10))
    while failures < 5:
        step += 1
        count(worker, name(step % 30))
        try:
            sealer.seal(NOW + step)
        except OSError as failure:
            failures += failure.errno == errno.ENOSPC
            # A batch that could not be written whole leaves no part.
            assert len(batches(state / "spool")) == step - failures
    assert sums(state / "spool") < totals(store)
    # The supervisor starts anew, and the disk is still full.
    sealer.close()
    sealer = Sealer.open(store, "here", NOW + step)
    with pytest.raises(OSError, match="No space left"):
        sealer.seal(NOW + step)
    ballast.unlink()
    assert sealer.seal(NOW + step + 200).rows == 5
    assert batches(state / "spool")[-1].long
    assert sums(state / "spool") == totals(store)
    assert len(list_segments(state / "spool")) == 1
    for one in (sealer, worker, store):
        one.close()
