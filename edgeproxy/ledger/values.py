"""How many values of a dimension a customer may have in a month: those beyond the bound count as `~other`.

The first ones that come are taken, in the transaction that counts, whatever counts them: edges or events. What was
folded into `~other` is kept beside the batch or the event, so that `verify` knows it.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.alerts.alert import Alert
from edgeproxy.config import dimensions
from edgeproxy.config.dimensions import OTHER
from edgeproxy.config.models import Meter
from edgeproxy.database.database import Database
from edgeproxy.database.schema import dimension_values
from edgeproxy.usage.batch import Batch, row_of, what

VALUES_DEFAULT = 1000
"""Values of a dimension that the configuration does not know."""
REMEMBERED_MAX = 50_000
"""Customers' dimensions whose values are remembered."""


class Owner(NamedTuple):
    """Whose values are counted: a customer's, of a dimension of a meter, in a month, by the second it begins with."""

    customer: str
    meter: str
    month: int
    name: str


class Use(NamedTuple):
    """Usage with dimensions, given as text, at a Unix second."""

    customer: str
    meter: str
    second: int
    split: str


def beyond(owner: Owner, bound: int) -> Alert:
    """The alert of a bound that is passed: one for each month."""
    month = f"{datetime.fromtimestamp(owner.month, UTC):%Y-%m}"
    return Alert(
        key=f"dimension:{owner.customer}:{owner.meter}:{owner.name}:{month}",
        kind="dimension",
        severity="warn",
        customer=owner.customer,
        title=f"{owner.customer} has more than {bound} values of {owner.name} in {month}: others count as {OTHER}",
        at=time.time(),
        details={"meter": owner.meter, "dimension": owner.name, "month": month, "values": bound},
    )


class Values:
    """The values that this process knows to be taken."""

    def __init__(self, database: Database, meters: Mapping[str, Meter]) -> None:
        self._database = database
        self._taken: OrderedDict[Owner, set[str]] = OrderedDict()
        self._passed: set[Owner] = set()
        """Those of whose passed bound somebody was told."""
        self._bounds: dict[tuple[str, str], int] = {}
        self.use(meters)

    def use(self, meters: Mapping[str, Meter]) -> None:
        """Hold dimensions to the bounds of these."""
        self._bounds = {
            (name, dimension): settings.values
            for name, meter in meters.items()
            for dimension, settings in meter.dimensions.items()
        }

    def forget(self) -> None:
        """What was taken in a transaction that failed was not."""
        self._taken.clear()
        self._passed.clear()

    async def fold(self, connection: AsyncConnection, uses: Iterable[Use]) -> tuple[dict[Use, str], list[Alert]]:
        """As what these count where that is something else, as text; and what is to be raised where a bound is passed.

        Who calls has locked the edge that they are of.
        """
        changed: dict[Use, str] = {}
        passed: dict[Owner, Alert] = {}
        for use in dict.fromkeys(uses):
            split = dict(dimensions.read(use.split))
            for name, value in split.items():
                owner = Owner(use.customer, use.meter, month_of(use.second), name)
                if value != OTHER and not await self._has(connection, owner, value):
                    split[name] = OTHER
                    if owner not in self._passed:
                        passed[owner] = beyond(owner, self._bound(owner))
            if (counted := dimensions.written(split)) != use.split:
                changed[use] = counted
        self._passed.update(passed)
        if len(self._passed) > REMEMBERED_MAX:
            self._passed.clear()
        return changed, [*passed.values()]

    async def fold_batches(
        self, connection: AsyncConnection, batches: Sequence[Batch]
    ) -> tuple[list[Batch], list[str | None], list[Alert]]:
        """Batches as they count; by each, what was folded in it, as `folded` of its row; and what is to be raised."""
        uses = [use_of(batch, row[4], row) for batch in batches for row in batch.rows if len(row) == 5]
        if not uses:
            return list(batches), [None] * len(batches), []
        changed, passed = await self.fold(connection, uses)
        notes = [note_of(batch, changed) for batch in batches]
        return [unfolded(batch, note) for batch, note in zip(batches, notes, strict=True)], notes, passed

    def _bound(self, owner: Owner) -> int:
        return self._bounds.get((owner.meter, owner.name), VALUES_DEFAULT)

    async def _has(self, connection: AsyncConnection, owner: Owner, value: str) -> bool:
        """Whether this value is taken, or can be taken now."""
        taken = self._taken.get(owner)
        if taken is None:
            taken = self._taken[owner] = await _taken(connection, owner)
            if len(self._taken) > REMEMBERED_MAX:
                self._taken.popitem(last=False)
        if value in taken:
            return True
        if len(taken) >= self._bound(owner):
            return False
        await self._database.hold(connection, "dimension values")
        taken |= await _taken(connection, owner)  # Another collector may have taken some meanwhile.
        if value in taken:
            return True
        if len(taken) >= self._bound(owner):
            return False
        await connection.execute(sa.insert(dimension_values).values(**owner._asdict(), value=value))
        taken.add(value)
        return True


async def _taken(connection: AsyncConnection, owner: Owner) -> set[str]:
    columns = dimension_values.c
    of_owner = [columns[name] == value for name, value in owner._asdict().items()]
    return set((await connection.execute(sa.select(columns.value).where(*of_owner))).scalars())


@lru_cache(1 << 12)
def month_of(second: int) -> int:
    """The Unix second at which the month begins, of UTC."""
    at = datetime.fromtimestamp(second, UTC)
    return int(datetime(at.year, at.month, 1, tzinfo=UTC).timestamp())


def use_of(batch: Batch, split: str, row: Sequence[object]) -> Use:
    """The use that a row of a batch is."""
    return Use(str(row[0]), str(row[1]), batch.minute, split)


def note_of(batch: Batch, changed: Mapping[Use, str]) -> str | None:
    """What is kept of a batch beside its body: as what rows count that were folded; None where none was."""
    folded = {
        str(index): changed[use]
        for index, row in enumerate(batch.rows)
        if len(row) == 5 and (use := use_of(batch, row[4], row)) in changed
    }
    return orjson.dumps(folded).decode() if folded else None


def unfolded(batch: Batch, note: str | None) -> Batch:
    """A batch as it counts, given what is kept beside its body; raises ValueError where that cannot be of it."""
    if note is None:
        return batch
    rows = list(batch.rows)
    for index, split in orjson.loads(note).items():
        row = rows[int(index)]
        customer, meter, route, sent = what(row)
        one, other = dimensions.read(sent), dimensions.read(split)
        if one.keys() != other.keys() or any(other[name] not in (one[name], OTHER) for name in one):
            raise ValueError(f"{split} is not what becomes of {sent}")
        rows[int(index)] = row_of((customer, meter, route, split), row[3])
    return batch._replace(rows=tuple(rows))
