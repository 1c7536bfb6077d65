"""Overload shedding: a worker with too much work refuses requests at once, those of the lowest priority first.

The lateness of the event loop's timers shows how long work waits in a worker. This lag decides about shedding:

- *When*: as in CoDel (RFC 8289) only a standing lag counts. Three lags do not: a single hiccup of any length, a lag
  that is falling, and a lag while hardly any request is active, because something else must have caused it.
- *How much*: a share of the requests, computed by a proportional-integral controller as in PIE (RFC 8033) and in Uber's
  Cinnamon. A queue integrates the excess work. A controller that only adds and subtracts (AIMD) would oscillate about
  its target for ever; the proportional part damps that.
- *Which*: as in Cinnamon the share applies to the recent requests, from the lowest priority upwards. So one step of the
  share is the same amount of work for any mix of priorities. Priorities without requests are passed over, and a
  configuration with other priorities does not change the share.
- *Active requests* count without delay, as in the scaled trigger of Envoy's overload manager. From three quarters of
  their bound on, the share rises linearly and reaches SHARE_MAX at the bound. The larger of both shares applies. At the
  bound no request passes, whatever the last sample said. Each client has at most one active request, and so has each
  HTTP/2 stream, so requests are counted one by one only if there are as many clients as the bound.
- *Whose*: near the bound of active requests, the addresses with the most of them pay first. From three quarters of the
  bound on, shedding by active requests spares every address below a level: the level at which the addresses together
  would have three quarters of the bound (max-min fairness). The other addresses may exceed the bound by an eighth. So
  one client with many slow requests leaves room for them.

Nothing is random: of a priority that is shed in part, every n-th request is refused.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from edgeproxy.base import log

if TYPE_CHECKING:
    from edgeproxy.config.edge.settings import Overload as Bounds

SAMPLE_SECONDS, IDLE_SAMPLE_SECONDS = 0.02, 0.1
"""Seconds between two samples if the loop is not late. The second value applies while fewer than REQUESTS_MIN requests
are active.

Waking an idle worker fifty times a second would take up to a hundredth of a core.
"""

STANDING_SECONDS, STANDING_SAMPLES = 0.25, 3
"""A lag stands once it has exceeded the target for this many seconds and this many samples."""

RECOVERING_SHARE = 0.8
"""A lag that falls to this share of its value from one sample to the next is taken to be clearing up."""

REQUESTS_MIN = 8
"""With fewer active requests than this, a lag is not attributed to requests."""

SHARE_BY_LAG = 0.25
"""The shed share for a lag of one target above the target. At five times the target the share reaches its maximum."""

SHARE_BY_TIME = 0.4
"""The gain of the share per second of such a lag, and its loss per second without any lag.

Both gains were chosen by simulating a loop like ours (tests/edge/proxy/exchange/test_overload.py) with up to four times
the work that it can do. With twice the value of either, the share oscillates where upstreams take 300 ms. With half
the value, shedding takes longer to begin and to end.
"""

LAG_ERROR_MAX = 4.0
"""The largest excess of a lag over the target that counts, in targets."""

SAMPLE_SECONDS_MAX = 0.1
"""The most seconds that one sample counts for."""

REQUESTS_MARGIN = 0.25
"""Shedding by active requests begins this share of their bound below the bound."""

EXTRA_SHARE = 1 / 8
"""The share by which the addresses below the level may exceed the bound of active requests."""

COUNT_SECONDS = 0.1
"""Seconds between two counts of active requests by address. A count of 4,000 requests takes some milliseconds."""

SHARE_MAX = 0.9
"""The maximum of the shed share. Some work always gets through, with the highest priority first."""

MEMORY_SECONDS = 1.0
"""The count of requests per priority is forgotten after this many seconds."""

REQUESTS_TRACE = 0.1
"""A priority with fewer requests than this is forgotten altogether."""

SHED_NONE = float("-inf")
"""Below any priority."""

LOG_SECONDS = 10.0
"""Seconds between two log lines."""

LONG_TURN_SECONDS, QUEUED_PER_TURN = 0.01, 64
"""If a turn of the loop takes longer than these seconds, waiting connections are accepted several per turn, up to this
number.
"""


class LoadShedder:
    """The shed share, and the choice of requests to shed. Pure: times are seconds, given as arguments.

    `lag` is the target: a longer lag, in seconds, is too much. `requests` is the maximum of active requests. The object
    learns the priorities from the requests.
    """

    __slots__ = (
        "_above_since",
        "_acts",
        "_before",
        "_came",
        "_debt",
        "_integral",
        "_lag",
        "_line",
        "_most",
        "_part",
        "_peak",
        "_recent",
        "_sampled",
        "_samples",
        "share",
    )

    def __init__(self, lag: float, requests: int) -> None:
        self.share = 0.0
        """The share of incoming requests to shed: 0 to SHARE_MAX."""
        self._acts = False
        """True from the time a lag has stood until its share is back at zero."""
        self._integral = 0.0
        self._sampled = self._before = 0.0
        """The time of the last sample, and the lag then."""
        self._above_since: float | None = None
        self._samples = 0
        """The time since which the lag has exceeded the target, and the number of samples since."""
        self._peak = 0.0
        """The highest lag, which decays with each sample."""
        self._came: dict[int, int] = {}
        """Requests by priority since the last sample."""
        self._recent: dict[int, float] = {0: 1.0}
        """Requests by priority in the last second or so. It begins as if one ordinary request had come."""
        self._line, self._part, self._debt = SHED_NONE, 0.0, 0.0
        """Every request below priority `_line` is shed, and the share `_part` of requests of it; `_debt` is due now."""
        self.change_bounds(lag, requests)

    def change_bounds(self, lag: float, requests: int) -> None:
        """Use new bounds from the next sample on. Until then shedding continues unchanged."""
        self._lag, self._most = lag, requests

    @property
    def sheds_by_lag(self) -> bool:
        """True while a lag that has stood is the reason, or one of the reasons, to shed."""
        return self._acts

    @property
    def is_watching(self) -> bool:
        """True if `should_shed` must see the requests: shedding is active, or may begin soon."""
        return self.share > 0.0 or self._above_since is not None

    def should_shed(self, priority: int) -> bool:
        """Return whether to shed this request. To be called once for each request while `is_watching`.

        A caller may still let a request pass without a report: if that is too much, the lag will show it.
        """
        came = self._came
        came[priority] = came.get(priority, 0) + 1
        if priority != self._line:
            return priority < self._line
        # Not by chance: the shed requests are spread evenly, and the share is exact over a short time.
        self._debt += self._part
        if self._debt < 1.0:
            return False
        self._debt -= 1.0
        return True

    def sample(self, now: float, late: float, requests: int) -> None:
        """Take a sample: at `now` the loop was `late` seconds for a timer, and `requests` requests are active."""
        # A long turn of the loop would otherwise move the share by a jump.
        seconds = min(now - self._sampled, SAMPLE_SECONDS_MAX)
        self._sampled = now
        # A loop that is late with few requests has another reason, which shedding would not end.
        if self._is_persistent(now, late) and requests >= REQUESTS_MIN:
            self._acts = True
        # The smaller of two lags, so that a hiccup does not count during shedding either.
        by_lag = self._compute_share_by_lag(min(late, self._before), seconds) if self._acts else 0.0
        self._before = late
        # The stronger reason decides. Their sum would shed for one cause twice.
        self.share = max(by_lag, _clamp((requests / self._most - 1.0) / REQUESTS_MARGIN + 1.0))
        self._update_recent(seconds)
        self._draw_line()

    def _is_persistent(self, now: float, late: float) -> bool:
        """Return whether the loop has been late for a while and is not recovering."""
        # A lag below the decayed peak is falling by itself.
        self._peak = max(late, self._peak * RECOVERING_SHARE)
        if late < self._lag:
            self._above_since = None
            return False
        if self._above_since is None:
            self._above_since, self._samples = now, 0
        self._samples += 1
        return self._samples >= STANDING_SAMPLES and now - self._above_since >= STANDING_SECONDS and late == self._peak

    def _compute_share_by_lag(self, lag: float, seconds: float) -> float:
        """Return the share for this lag. The controller keeps the lag at its target."""
        error = min(lag / self._lag - 1.0, LAG_ERROR_MAX)
        self._integral = _clamp(self._integral + SHARE_BY_TIME * error * seconds)
        if error <= 0.0 and not self._integral:
            self._acts = False
        return _clamp(self._integral + SHARE_BY_LAG * error)

    def _update_recent(self, seconds: float) -> None:
        """Update the counts of requests by priority. Without new requests the old counts remain the best estimate."""
        came = self._came
        if came:
            retention = 1.0 - seconds / MEMORY_SECONDS
            recent = {
                priority: n * retention for priority, n in self._recent.items() if n * retention >= REQUESTS_TRACE
            }
            for priority, n in came.items():
                recent[priority] = recent.get(priority, 0.0) + n
            self._recent, self._came = recent, {}

    def _draw_line(self) -> None:
        """Convert the share into a line between priorities."""
        if not self.share:
            self._line = SHED_NONE
            return
        recent = self._recent
        rest = self.share * sum(recent.values())
        # The lowest priority first, whole, until the share is reached within one.
        for priority in sorted(recent):
            n = recent[priority]
            self._line, self._part = priority, rest / n
            if rest <= n:
                break
            rest -= n


def _clamp(share: float) -> float:
    return min(max(share, 0.0), SHARE_MAX)


def find_greedy(counts: Counter[bytes], total: float) -> frozenset[bytes]:
    """Return the addresses above the level at which all addresses together have `total` requests.

    `counts` has the active requests by address. Without a surplus there is no level, and the set is empty.
    """
    if counts.total() <= total:
        return frozenset()
    rest, left = total, len(counts)
    for _, count in reversed(ranked := counts.most_common()):
        if count > rest / left:
            break
        rest -= count
        left -= 1
    return frozenset(subject for subject, _ in ranked[:left])


class Overload:
    """Shedding in one worker: takes the samples and decides about requests.

    A request reads `shedding`, and calls `should_shed` only if it is true.
    """

    def __init__(
        self,
        under_way: Callable[[], int],
        clients: Callable[[], int],
        take_queued: Callable[[int], None],
        time_turn: Callable[[], None],
        observe_lag: Callable[[float], None],
        count_by_address: Callable[[], Counter[bytes]] = Counter,
    ) -> None:
        """Create the shedding of a worker.

        `under_way`: returns the number of active requests in this worker. `clients`: returns the number of connections
        and streams, which is never smaller and quick to get. `take_queued`: accepts that many waiting connections.
        `observe_lag`: records the lag of a sample, in seconds.
        `count_by_address`: returns the number of active requests of each address; by default none is counted.
        """
        self.shedding = False
        """True if `should_shed` must be asked: some requests are shed at present, or may be soon."""
        self._under_way, self._clients, self._take_queued = under_way, clients, take_queued
        self._time_turn, self._observe_lag = time_turn, observe_lag
        self._count_by_address = count_by_address
        self._greedy: frozenset[bytes] = frozenset()
        self._counted = 0.0
        """The addresses above the level, and the time of the count."""
        self._most = 1 << 62
        """The maximum of active requests."""
        self._control: LoadShedder
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._log = log.RateLimitedLog(LOG_SECONDS)

    def start(self, bounds: "Bounds") -> None:
        """Sample the loop from now on, until `stop`."""
        self._most = bounds.requests
        self._control = LoadShedder(bounds.lag, bounds.requests)
        self._schedule(IDLE_SAMPLE_SECONDS)

    def stop(self) -> None:
        """Stop sampling and shedding."""
        if self._timer is not None:
            self._timer.cancel()
        self.shedding = False

    def change_bounds(self, bounds: "Bounds") -> None:
        """Use the bounds of another configuration. Shedding continues unchanged until the next samples."""
        if self._timer is not None:
            self._most = bounds.requests
            self._control.change_bounds(bounds.lag, bounds.requests)
            self.check_clients()

    def check_clients(self) -> None:
        """Start checking requests if more clients are connected than requests may be active.

        Called for each new client and each HTTP/2 stream.
        """
        if self._clients() > self._most:
            self.shedding = True

    def is_full(self, address: bytes) -> bool:
        """Return whether the maximum of active requests is reached for an address. Valid only while `shedding`."""
        most = self._most
        if self._clients() <= most:
            return False
        if self._greedy and address not in self._greedy:
            most += int(most * EXTRA_SHARE)
        return self._under_way() >= most

    def should_shed(self, priority: int, address: bytes) -> bool:
        """Return whether to refuse a request of this priority and address. Valid only while `shedding`."""
        if self._greedy and address not in self._greedy and not self._control.sheds_by_lag:
            return False
        return self._control.should_shed(priority)

    def _schedule(self, seconds: float) -> None:
        self._due = monotonic() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._sample)

    def _update_greedy(self, now: float, requests: int) -> None:
        """Find the addresses above the level, if the bound of active requests is near."""
        begin = self._most * (1 - REQUESTS_MARGIN)
        if requests <= begin:
            self._greedy = frozenset()
        elif now - self._counted >= COUNT_SECONDS:
            self._counted = now
            self._greedy = find_greedy(self._count_by_address(), begin)

    def _sample(self) -> None:
        now = monotonic()
        late = max(now - self._due, 0.0)
        self._observe_lag(late)
        requests = self._under_way()
        self._schedule(SAMPLE_SECONDS if requests >= REQUESTS_MIN else IDLE_SAMPLE_SECONDS)
        if late > LONG_TURN_SECONDS:
            # Clients that wait to be accepted wait longest, and no lag shows it.
            self._take_queued(QUEUED_PER_TURN)
        self._time_turn()
        self._control.sample(now, late, requests)
        self._update_greedy(now, requests)
        self.shedding = self._control.is_watching or self._clients() > self._most
        share = round(self._control.share, 3)
        if share:
            self._log.error("requests are shed", "overload", share=share, lag=round(late, 3), requests=requests)
