"""The monthly bound on a customer's values of a dimension: values beyond the bound count as `~other`.

The first values to arrive are admitted, in the transaction that counts them, from edges and events alike. A value with
a price of its own in a plan is always admitted, also beyond the bound. The values folded into `~other` are stored
beside the batch or the event, for use by `verify`.
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

from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.billing_tables import plan_versions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import dimension_values
from edgeproxy.config import dimensions
from edgeproxy.config.collector.catalog import parse_plan
from edgeproxy.config.dimensions import OTHER
from edgeproxy.config.meters import Meter
from edgeproxy.wire.batch import Batch, build_row, count_key

VALUES_DEFAULT = 1000
"""The bound for a dimension that is not in the configuration."""
REMEMBERED_MAX = 50_000
"""The most owners whose values are cached."""
WHOLE_MAX = 200_000
"""The most uses that are cached as needing no folding."""
OWNERS_MAX = 1_000
"""The most owners whose values one statement fetches."""


class ValueOwner(NamedTuple):
    """The owner of counted values: a customer, meter, dimension and month; the month by its first second."""

    customer: str
    meter: str
    month: int
    name: str


class DimensionUse(NamedTuple):
    """Usage with dimensions as text at a Unix second."""

    customer: str
    meter: str
    second: int
    split: str


def make_bound_alert(owner: ValueOwner, bound: int) -> Alert:
    """Return the alert of an exceeded bound, one per month."""
    month = f"{datetime.fromtimestamp(owner.month, UTC):%Y-%m}"
    return Alert(
        key=f"dimension:{owner.customer}:{owner.meter}:{owner.name}:{month}",
        kind=AlertKind.DIMENSION_LIMIT_EXCEEDED,
        customer=owner.customer,
        title=f"{owner.customer} has more than {bound} values of {owner.name} in {month}: others count as {OTHER}",
        at=time.time(),
        details={"meter": owner.meter, "dimension": owner.name, "month": month, "values": bound},
    )


class DimensionValues:
    """The values that this process knows to be admitted."""

    def __init__(self, database: Database, meters: Mapping[str, Meter]) -> None:
        self._database = database
        self._taken: OrderedDict[ValueOwner, set[str]] = OrderedDict()
        self._whole: set[DimensionUse] = set()
        """Uses, moved to the start of their month, that need no folding because all their values are admitted."""
        self._passed: set[ValueOwner] = set()
        """Owners whose exceeded bound was reported."""
        self._bounds: dict[tuple[str, str], int] = {}
        self._named: dict[tuple[str, str], frozenset[str]] = {}
        self._priced: dict[tuple[str, str], frozenset[str]] = {}
        """The values with a price, by meter and dimension, as of `_priced_as_of`."""
        self._priced_as_of: tuple[int, int] | None = None
        """The number of recorded plan versions, and the time of the last one."""
        self.set_bounds(meters)

    def set_bounds(self, meters: Mapping[str, Meter]) -> None:
        """Use the bounds of these meters from now on."""
        self._priced_as_of = None  # A reload can edit a version that no customer has.
        by_key = {
            (name, dimension): settings
            for name, meter in meters.items()
            for dimension, settings in meter.dimensions.items()
        }
        self._bounds = {key: settings.values for key, settings in by_key.items()}
        self._named = {key: frozenset(settings.named) for key, settings in by_key.items()}

    def forget(self) -> None:
        """Clear all cached values after a failed transaction."""
        self._taken.clear()
        self._whole.clear()
        self._passed.clear()

    async def fold(
        self, connection: AsyncConnection, uses: Iterable[DimensionUse]
    ) -> tuple[dict[DimensionUse, str], list[Alert]]:
        """Return the folded dimensions, as text, of uses beyond a bound, and the alerts for exceeded bounds.

        The caller has locked the edge of these uses.
        """
        monthly_uses = {
            use: DimensionUse(use.customer, use.meter, find_month_start(use.second), use.split) for use in uses
        }
        dimensions_by_use = {
            use: dimensions.parse_dimensions(use.split)
            for use, of_month in monthly_uses.items()
            if of_month not in self._whole
        }
        values_by_owner: dict[ValueOwner, dict[str, None]] = {}
        owned: dict[DimensionUse, list[tuple[ValueOwner, str]]] = {}
        for use, split in dimensions_by_use.items():
            month = monthly_uses[use].second
            pairs = [(ValueOwner(use.customer, use.meter, month, name), value) for name, value in split.items()]
            owned[use] = [(owner, value) for owner, value in pairs if value != OTHER]
            for owner, value in owned[use]:
                values_by_owner.setdefault(owner, {})[value] = None
        await self._take_values(connection, values_by_owner)
        changed: dict[DimensionUse, str] = {}
        passed: dict[ValueOwner, Alert] = {}
        for use, values in owned.items():
            if over := [owner for owner, value in values if value not in self._taken[owner]]:
                changed[use] = dimensions.format_dimensions(
                    {**dimensions_by_use[use], **{owner.name: OTHER for owner in over}}
                )
                passed |= {
                    owner: make_bound_alert(owner, self._bound(owner)) for owner in over if owner not in self._passed
                }
            else:
                self._whole.add(monthly_uses[use])
        self._passed.update(passed)
        if len(self._passed) > REMEMBERED_MAX:
            self._passed.clear()
        if len(self._whole) > WHOLE_MAX:
            self._whole.clear()
        while len(self._taken) > REMEMBERED_MAX:
            self._taken.popitem(last=False)
        return changed, [*passed.values()]

    async def fold_batches(
        self, connection: AsyncConnection, batches: Sequence[Batch]
    ) -> tuple[list[Batch], list[str | None], list[Alert]]:
        """Return the batches as they count, a note on folded values for each batch, and the alerts to raise.

        A note is the value of the row's column `folded`.
        """
        uses = [build_use(batch, row[4], row) for batch in batches for row in batch.rows if len(row) == 5]
        if not uses:
            return list(batches), [None] * len(batches), []
        changed, passed = await self.fold(connection, uses)
        notes = [format_note(batch, changed) for batch in batches]
        return [apply_note(batch, note) for batch, note in zip(batches, notes, strict=True)], notes, passed

    def _bound(self, owner: ValueOwner) -> int:
        return self._bounds.get((owner.meter, owner.name), VALUES_DEFAULT)

    async def _take_values(
        self, connection: AsyncConnection, values_by_owner: Mapping[ValueOwner, Iterable[str]]
    ) -> None:
        """Admit as many of these values as there is room for, first ones first."""
        await self._load_taken(connection, [owner for owner in values_by_owner if owner not in self._taken])
        if any(not self._taken[owner].issuperset(values) for owner, values in values_by_owner.items()):
            await self._load_priced(connection)
        if not (growing := [owner for owner, values in values_by_owner.items() if self._select_new(owner, values)]):
            return
        await self._database.hold(connection, "dimension values")
        await self._load_taken(connection, growing)  # Another collector may have admitted values meanwhile.
        rows = [
            {**owner._asdict(), "value": value}
            for owner in growing
            for value in self._select_new(owner, values_by_owner[owner])
        ]
        if rows:
            await connection.execute(sa.insert(dimension_values), rows)
        for row in rows:
            value = row.pop("value")
            self._taken[ValueOwner(**row)].add(value)

    def _select_new(self, owner: ValueOwner, values: Iterable[str]) -> list[str]:
        """Return the new values that fit within the bound."""
        taken, key = self._taken[owner], (owner.meter, owner.name)
        admitted = self._priced.get(key, frozenset()) | self._named.get(key, frozenset())
        room = max(0, self._bound(owner) - len(taken))
        new = [value for value in values if value not in taken]
        return [*new[:room], *(value for value in new[room:] if value in admitted)]

    async def _load_priced(self, connection: AsyncConnection) -> None:
        """Read the values that any plan version prices, if a version was recorded since the last read."""
        columns = plan_versions.c
        known = sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(columns.created_at), 0))
        number, last = (await connection.execute(known.select_from(plan_versions))).one()
        if self._priced_as_of == (number, last):
            return
        priced: dict[tuple[str, str], set[str]] = {}
        for settings in await connection.scalars(sa.select(columns.settings)):
            for meter, price in parse_plan(settings).meters.items():
                if price.by is not None:
                    priced.setdefault((meter, price.by.dimension), set()).update(price.by.prices)
        self._priced = {key: frozenset(values) for key, values in priced.items()}
        self._priced_as_of = number, last

    async def _load_taken(self, connection: AsyncConnection, owners: Sequence[ValueOwner]) -> None:
        """Read the admitted values of these owners."""
        self._taken |= {owner: set() for owner in owners}
        columns = dimension_values.c
        for begin in range(0, len(owners), OWNERS_MAX):
            some = set(owners[begin : begin + OWNERS_MAX])
            # The query selects by the names of all owners together, which the indexes support; other rows are skipped.
            within = [columns[name].in_({getattr(owner, name) for owner in some}) for name in ValueOwner._fields]
            for *owner, value in await connection.execute(sa.select(dimension_values).where(*within)):
                if (one := ValueOwner(*owner)) in some:
                    self._taken[one].add(value)


@lru_cache(1 << 12)
def find_month_start(second: int) -> int:
    """Return the Unix second at the start of the month in UTC."""
    at = datetime.fromtimestamp(second, UTC)
    return int(datetime(at.year, at.month, 1, tzinfo=UTC).timestamp())


def build_use(batch: Batch, split: str, row: Sequence[object]) -> DimensionUse:
    """Return the dimension use of a batch row."""
    return DimensionUse(str(row[0]), str(row[1]), batch.minute, split)


def format_note(batch: Batch, changed: Mapping[DimensionUse, str]) -> str | None:
    """Return the JSON note to store with a batch, folded dimensions by row index, or None if there are none."""
    folded = {
        str(index): changed[use]
        for index, row in enumerate(batch.rows)
        if len(row) == 5 and (use := build_use(batch, row[4], row)) in changed
    }
    return orjson.dumps(folded).decode() if folded else None


def apply_note(batch: Batch, note: str | None) -> Batch:
    """Return a batch as it counts, with the note stored beside its body. Raises ValueError if the note does not fit."""
    if note is None:
        return batch
    rows = list(batch.rows)
    for index, split in orjson.loads(note).items():
        row = rows[int(index)]
        customer, meter, route, sent = count_key(row)
        one, other = dimensions.parse_dimensions(sent), dimensions.parse_dimensions(split)
        if one.keys() != other.keys() or any(other[name] not in (one[name], OTHER) for name in one):
            raise ValueError(f"{split} is not what becomes of {sent}")
        rows[int(index)] = build_row((customer, meter, route, split), row[3])
    return batch._replace(rows=tuple(rows))
