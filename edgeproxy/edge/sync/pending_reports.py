"""Uses of shared limits that workers have reported and that are not processed yet: the latest of each row."""

from collections import OrderedDict

from msgspec.structs import replace

from edgeproxy.edge.messages import LimitsUsed, LimitUse, RateUse, TotalUse

UseKey = tuple[type[LimitUse], str, int, int]
"""A kind of use, a table, its file, and a row."""


class PendingUses:
    """Uses by row, in the order their rows were first added."""

    def __init__(self) -> None:
        self._uses: OrderedDict[UseKey, LimitUse] = OrderedDict()

    def __len__(self) -> int:
        return len(self._uses)

    def add(self, use: LimitUse) -> None:
        """Add a worker's use of a row, in place of an earlier one."""
        place = use_key(use)
        if isinstance(use, RateUse) and not use.refused:
            before = self._uses.get(place)
            if isinstance(before, RateUse) and before.refused:
                use = replace(use, refused=True)  # A request was refused since the last processing.
        self._uses[place] = use

    def add_older(self, use: LimitUse) -> None:
        """Add an earlier use of a row, unless a newer one is there."""
        self._uses.setdefault(use_key(use), use)

    def pop_first(self) -> LimitUse:
        """Remove and return the use that was added first."""
        return self._uses.popitem(last=False)[1]

    def pop_all(self) -> LimitsUsed:
        """Remove and return all uses, as one message."""
        uses = self._uses.values()
        uses_message = LimitsUsed(
            [use for use in uses if isinstance(use, RateUse)], [use for use in uses if isinstance(use, TotalUse)]
        )
        self._uses.clear()
        return uses_message


def use_key(use: LimitUse) -> UseKey:
    """Return the key of a use: its row, without the worker's data about it."""
    return type(use), use.table, use.file, use.row
