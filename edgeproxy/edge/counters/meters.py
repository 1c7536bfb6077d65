"""Counts beside limits: usage for billing and metrics for Prometheus, each number a word in the map."""

from bisect import bisect_right
from collections.abc import Callable

from edgeproxy.base.latency_buckets import LATENCY_BUCKETS
from edgeproxy.edge.counters.index import TableFullError
from edgeproxy.edge.counters.memory_order import fence
from edgeproxy.edge.counters.tallies import COUNTER, GAUGE, HISTOGRAM, TallyTable, tally_key
from edgeproxy.edge.counters.usage_key import has_room, usage_key
from edgeproxy.edge.metrics import METRICS

HISTOGRAM_WORDS = len(LATENCY_BUCKETS) + 2
"""A word for each bucket, one for longer durations, and the sum in nanoseconds."""


class Counter:
    """A number that only grows. This process is the only writer of its word; there is one object for each word."""

    __slots__ = ("_at", "_total", "_words")

    def __init__(self, table: TallyTable, key: bytes) -> None:
        self._words = table.words
        self._at = at = table.own(key, COUNTER)
        self._total = table.words[at]

    def add(self, n: int = 1) -> None:
        """Count `n` (≥ 0) more."""
        # The sum is kept here as well, since storing a word costs less than half of reading and storing it.
        self._total = total = self._total + n
        self._words[self._at] = total


class UsageCounter:
    """A count of billed usage. Several objects may count in one word of this process, as none remembers its number."""

    __slots__ = ("_at", "_words")

    def __init__(self, table: TallyTable, key: bytes) -> None:
        self._words = table.words
        self._at = table.own(key, COUNTER)

    def add(self, n: int = 1) -> None:
        """Count `n` (≥ 0) more."""
        self._words[self._at] += n


class Gauge:
    """The number of things that exist now in this process; readers ignore it once the process is dead."""

    __slots__ = ("_at", "_words")

    def __init__(self, table: TallyTable, key: bytes) -> None:
        self._words = table.words
        self._at = table.own(key, GAUGE)

    def set(self, n: int) -> None:
        """Set the number, `n` ≥ 0."""
        self._words[self._at] = n


class SharedGauge:
    """The number of things that exist now in all workers of the edge together, with a bound that holds for all of them.

        if not pending.claim(100):      # one more, unless that would be more than 100 on the whole edge
            raise UpstreamError(...)
        ...
        pending.add(-1)                 # it is over

    Each worker has a word of its own, and it alone writes that word. The word of a dead worker is not counted: the next
    holder of its column clears it before it counts there (`columns.begin_counting`). A process has one object for each
    word (`Metrics.shared_gauge`). `add` costs about a quarter of a microsecond, and so does `claim` below the bound.
    """

    __slots__ = ("_at", "_here", "_row", "_table", "_words")

    def __init__(self, table: TallyTable, key: bytes) -> None:
        self._table = table
        self._words = table.words
        self._at = at = table.own(key, GAUGE)
        self._row = table.columns_of(at)
        self._here = table.words[at]

    @property
    def here(self) -> int:
        """The number in this process."""
        return self._here

    def add(self, n: int = 1) -> None:
        """Add `n` to this process's number; `n` may be negative, the number never is."""
        here = self._here + n
        self._words[self._at] = here
        self._here = here

    def total(self) -> int:
        """Return the number in all running workers. Ask the kernel which workers run, if that is not known yet."""
        counts = self._words[self._row].tolist()
        return sum(n for column, n in enumerate(counts) if n and self._table.is_living(column))

    def claim(self, most: int) -> bool:
        """Add one if there are then at most `most` in all running workers; return whether it was added.

        It is added before the others are read. If two workers do this at one moment, at least one sees the other's, so
        the bound is never exceeded. In the worst case both are refused the last place.
        """
        self.add(1)
        counts = self._words[self._row].tolist()
        if sum(counts) + len(counts) <= most:
            return True
        # One of the last. Two workers that add within nanoseconds may not see each other's addition yet.
        fence()
        # While there is room even with the counts of dead workers, the kernel need not be asked which workers run.
        if sum(self._words[self._row].tolist()) <= most or self.total() <= most:
            return True
        self.add(-1)
        return False


class Histogram:
    """Durations in the buckets of `LATENCY_BUCKETS`, and their sum.

    Observed durations are added to the map by `settle`, many at once: one by one, three of these took a tenth of the
    time of a request. Until then they are in no file.
    """

    __slots__ = ("__weakref__", "_at", "_sum", "_sum_at", "_words", "pending")

    def __init__(self, table: TallyTable, key: bytes) -> None:
        self._words = table.words
        self._at = at = table.own(key, HISTOGRAM)
        self._sum_at = at + HISTOGRAM_WORDS - 1
        self._sum = table.words[self._sum_at]
        self.pending: list[float] = []
        """Durations that are not in the map yet, in seconds."""

    @property
    def count(self) -> int:
        """The number of durations in this process's column so far."""
        return sum(self._words[self._at : self._sum_at].tolist()) + len(self.pending)

    def observe(self, seconds: float) -> None:
        """Count one duration (seconds, ≥ 0)."""
        self.pending.append(seconds)

    def settle(self) -> None:
        """Add the observed durations to the map, each to the first bucket whose bound it does not exceed."""
        pending, words, at = self.pending, self._words, self._at
        if not pending:
            return
        pending.sort()
        counted = 0
        for bound in LATENCY_BUCKETS:
            upto = bisect_right(pending, bound, counted)
            if upto > counted:
                words[at] += upto - counted
                counted = upto
                if counted == len(pending):
                    break
            at += 1
        else:
            words[at] += len(pending) - counted
        self._sum += round(sum(pending) * 1e9)
        words[self._sum_at] = self._sum
        pending.clear()


class Metrics:
    """The metrics of one process: one object per name and label values, kept for its life. See metrics.METRICS.

    A name, kind or number of labels that is not in that table raises ValueError; without room in the map,
    index.RowUnavailableError.
    """

    def __init__(self, table: TallyTable) -> None:
        self._table = table
        self._counters: dict[bytes, Counter] = {}
        self._gauges: dict[bytes, Gauge] = {}
        self._shared: dict[bytes, SharedGauge] = {}
        self._histograms: dict[bytes, Histogram] = {}

    def counter(self, name: str, *labels: str) -> Counter:
        """Return the counter `name` with these label values, in the order of METRICS."""
        key = self._key("counter", name, labels)
        return self._counters.get(key) or self._counters.setdefault(key, Counter(self._table, key))

    def gauge(self, name: str, *labels: str) -> Gauge:
        """Return the gauge `name` with these label values."""
        key = self._key("gauge", name, labels)
        return self._gauges.get(key) or self._gauges.setdefault(key, Gauge(self._table, key))

    def shared_gauge(self, name: str, *labels: str) -> SharedGauge:
        """Return the gauge `name` with these label values, for a bound that holds for all workers; never beside
        `gauge`.
        """
        key = self._key("gauge", name, labels)
        return self._shared.get(key) or self._shared.setdefault(key, SharedGauge(self._table, key))

    def histogram(self, name: str, *labels: str) -> Histogram:
        """Return the histogram `name` with these label values."""
        key = self._key("histogram", name, labels)
        return self._histograms.get(key) or self._histograms.setdefault(key, Histogram(self._table, key))

    def settle(self) -> None:
        """Add to the map the durations that histograms hold: twice a second, and before the process ends."""
        for histogram in self._histograms.values():
            histogram.settle()

    def _key(self, kind: str, name: str, labels: tuple[str, ...]) -> bytes:
        metric = METRICS.get(name)
        if metric is None or metric.kind != kind or len(metric.labels) != len(labels):
            raise ValueError(f"there is no {kind} {name} with {len(labels)} labels in metrics.METRICS")
        return tally_key(name, *labels)


class UsageMeters:
    """The billing counts of one process: a row per customer, meter and route."""

    def __init__(self, table: TallyTable, *, full: Callable[[], None] | None = None) -> None:
        """`full` is called if the table has no row; later counts go to customer `-`, route `-`."""
        self.table = table
        self.full = full

    def counter(self, customer: str, meter: str, route: str, split: str = "") -> UsageCounter:
        """Return a counter of this customer, meter and route label, and of dimensions as text; without room for the
        dimensions, a counter without them.

        Raises index.TableBusyError if the table's flock could not be acquired, and TableFullError only if there is no
        room for customer `-` either: create that one before serving.
        """
        key = usage_key((customer, meter, route, split))
        if split and not has_room(key):
            return self.counter(customer, meter, route)
        try:
            return UsageCounter(self.table, key)
        except TableFullError:
            if (customer, route, split) == ("-", "-", ""):
                raise
            if self.full is not None:
                self.full()
            if split:
                return self.counter(customer, meter, route)
            return self.counter("-", meter, "-")
