"""Loss of power: the disk has each page of a table as of some earlier time, and these times differ."""

import random
from collections.abc import Callable
from pathlib import Path

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.row_key import HAS_PERIODS
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.counters.tallies import tally_key
from tests.edge.counters.conftest import Supervise
from tests.support.tables import number_of

Work = Callable[[], Store]
NOW = 5e7
MAY, JUNE = 24_305, 24_306
ROUNDS = 25


class Disk:
    """The simulated disk contents of a file, page by page."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before: list[bytes] = []

    def moment(self) -> None:
        """Record the present contents. Any page may have been written now."""
        self.before.append(self.path.read_bytes())

    def cut(self, chance: random.Random) -> None:
        """Replace each page by its contents at a random recorded time."""
        pages = range(0, len(self.before[-1]), at.PAGE)
        self.path.write_bytes(b"".join([chance.choice(self.before)[page : page + at.PAGE] for page in pages]))


def count(table: LimitTable, key: bytes, period: int) -> None:
    """Count one in a quota as a worker does."""
    row, _, _ = table.find(table.make_key(key), 10_000, NOW, HAS_PERIODS)
    head = row + table.head_at
    if table.words[head + at.PERIOD] != period:
        table.words[head + at.CUM] = 0
        table.words[head + at.PERIOD] = period
    table.words[head + at.CUM] += 1


def counted(table: LimitTable, key: bytes) -> int:
    """Return the count of a quota's row in the present period."""
    row = table.peek(table.make_key(key))
    head = 0 if row is None else row + table.head_at
    return table.words[head + at.CUM] if row is not None and table.words[head + at.PERIOD] == JUNE else 0


def test_after_a_loss_of_power_no_key_has_the_counts_of_another(supervise: Supervise, work: Work, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(ROUNDS):
        cut_off(supervise, work, chance, f"boot {number}")


def cut_off(supervise: Supervise, work: Work, chance: random.Random, boot: str) -> None:
    """Count, lose power, and check the remaining counts."""
    before = supervise(boot=boot)
    worker = work()
    disks = [Disk(table.file.path) for table in (before.quotas, before.usage)]
    had = {b"%d" % number: 0 for number in range(60)}
    used: dict[str, int] = {}
    for _ in range(chance.randrange(1, 120)):
        for disk in disks:
            disk.moment()
        key = b"%d" % chance.randrange(60)
        row = worker.quotas.peek(worker.quotas.make_key(key))
        if had[key] or chance.random() < 0.5:
            if row is not None or worker.quotas.rows_in_use < 40:
                count(worker.quotas, key, JUNE)
                had[key] += 1
        elif row is not None:
            # The row has counts of a past period only, so it may be freed for another key. A row across two pages is
            # not freed: with an old page and a new one, the table could not tell the two keys from each other.
            if row * at.WORD // at.PAGE == (row + worker.quotas.layout.row_words - 1) * at.WORD // at.PAGE:
                worker.quotas.free(number_of(worker.quotas, row))
        elif worker.quotas.rows_in_use < 40:
            count(worker.quotas, key, MAY)
        customer = f"customer-{chance.randrange(30)}"
        worker.billing.counter(customer, "requests", "v1").add(1)
        used[customer] = used.get(customer, 0) + 1
    for disk in disks:
        disk.moment()
    worker.close()
    before.close()
    for disk in disks:
        disk.cut(chance)

    after = supervise(boot=f"{boot} again")
    survivor = work()
    table = survivor.quotas
    rows = [row for key in had if (row := table.peek(table.make_key(key))) is not None]
    assert len(set(rows)) == len(rows) == table.rows_in_use == len(list(table.rows()))
    for key, most in had.items():
        assert counted(table, key) <= most
    left = list(after.usage_totals())
    for customer, _, _, total in left:
        assert total <= used[customer]
    # The table stays usable: a new key gets a row of its own without counts.
    for other in range(40 - table.rows_in_use):
        key = b"new %d" % other
        count(table, key, JUNE)
        assert counted(table, key) == 1
    fresh = survivor.usage
    for other in range(fresh.layout.rows - fresh.rows_in_use):
        assert fresh.words[fresh.own(tally_key(f"new-{other}", "requests", "v1"), 1)] == 0
    assert list(after.usage_totals())[: len(left)] == left
    survivor.close()
    after.close()
    for path in after.folder.iterdir():
        path.unlink()
