"""Overload shedding: what a worker cannot do in time it turns away at once, the lowest priority first.

How long work waits in a worker is how late its loop comes to a timer. How much is shed follows from that lag:

- *When*: as in CoDel (RFC 8289) only a standing lag counts. A single hiccup, of whatever length, sheds nothing,
  nor does what clears up by itself, nor a lag while hardly any request is under way, which others must have made.
- *How much*: a share of the requests, by a proportional-integral controller as in PIE (RFC 8033) and in Uber's
  Cinnamon. A queue integrates what is too much; a controller that only adds and subtracts (AIMD) would swing about
  its target for ever, and the proportional part damps that.
- *Which*: as in Cinnamon the share is one of the requests that came of late, taken from the lowest priority upwards.
  So a step is the same amount of work however few requests a priority has, those without any are passed over,
  and a configuration with other priorities changes nothing about the share.
- *Requests under way* count without delay, as a scaled trigger of Envoy's overload manager does: from three quarters of
  their bound on the share rises in a line, to SHARE_MAX at the bound. Of both shares the larger holds. At the bound
  itself no request passes, whatever the last sample said: they are counted for each request where there are as many
  clients, of which each has one request under way at most. So has each stream of HTTP/2.

Nothing is drawn at random: of the priority that is shed in part, every n-th request is.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from edgeproxy.base import log

if TYPE_CHECKING:
    from edgeproxy.config.edge.settings import Overload as Bounds

SAMPLE_SECONDS, IDLE_SAMPLE_SECONDS = 0.02, 0.1
"""Seconds between two samples, in a loop that is not late; the second while fewer than REQUESTS_MIN requests are
under way.

To wake an idle worker fifty times a second would take up to a hundredth of a core.
"""

STANDING_SECONDS, STANDING_SAMPLES = 0.25, 3
"""A lag stands once it has been above the target for so many seconds, and in so many samples."""

RECOVERING_SHARE = 0.8
"""A lag that falls to this share of what it was, from one sample to the next, clears up by itself."""

REQUESTS_MIN = 8
"""Requests under way without which a lag is not taken for one of too many requests."""

SHARE_BY_LAG = 0.25
"""The share that is shed for a lag of the target above the target; so at five times the target it is all that may."""

SHARE_BY_TIME = 0.4
"""The gain of the share in a second of such a lag, and its loss in a second without any lag.

Both were chosen by simulation of a loop like ours (tests/edge/proxy/test_overload.py), with up to four times the work
that it can do. Twice as much of either swings where upstreams take 300 ms; half as much takes longer to begin and to
end.
"""

LAG_ERROR_MAX = 4.0
"""Times the target that a lag counts for, above the target, at most."""

SAMPLE_SECONDS_MAX = 0.1
"""Seconds that one sample counts for, at most."""

REQUESTS_MARGIN = 0.25
"""The share of their bound below it at which requests under way begin to be shed."""

SHARE_MAX = 0.9
"""The share of the requests that is shed at most: some work always gets through, that of the topmost priority first."""

MEMORY_SECONDS = 1.0
"""Seconds after which it is forgotten how many requests of which priority came."""

REQUESTS_TRACE = 0.1
"""Requests below which a priority is forgotten altogether."""

SHED_NONE = float("-inf")
"""Below any priority."""

LOG_SECONDS = 10.0
"""Seconds between two log lines."""

LONG_TURN_SECONDS, QUEUED_PER_TURN = 0.01, 64
"""Seconds of a turn of the loop from which on connections that wait are taken by more than one in a turn, and how many
of them at a time."""


class LoadShedder:
    """The share of requests that is shed, and the choice of these. Pure: times are seconds, given from outside.

    `lag` is the lag, in seconds, from which on it is too much, and `requests` how many may be under way. Which
    priorities there are it learns from the requests that come.
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
        """The share of the requests that come that is to be shed: 0 to SHARE_MAX."""
        self._acts = False
        """Whether the lag has stood, and its share has not come back to nothing since."""
        self._integral = 0.0
        self._sampled = self._before = 0.0
        """The time of the last sample, and how late it was."""
        self._above_since: float | None = None
        self._samples = 0
        """The time since which the lag has been above the target, and in how many samples."""
        self._peak = 0.0
        """The highest lag, forgotten by and by."""
        self._came: dict[int, int] = {}
        """Requests by priority since the last sample."""
        self._recent: dict[int, float] = {0: 1.0}
        """Requests by priority of the last second or so; before any is known, as if there had been an ordinary one."""
        self._line, self._part, self._debt = SHED_NONE, 0.0, 0.0
        """The priority below which all is shed, the part of the priority itself, and what of it is due by now."""
        self.change_bounds(lag, requests)

    def change_bounds(self, lag: float, requests: int) -> None:
        """Go by other bounds from the next sample on; what is being shed remains as it is."""
        self._lag, self._most = lag, requests

    @property
    def is_watching(self) -> bool:
        """Whether `sheds` wants to see the requests: something is to be shed, or may be soon."""
        return self.share > 0.0 or self._above_since is not None

    def should_shed(self, priority: int) -> bool:
        """Return whether this request is to be shed; to be called once for each request that comes while `is_watching`.

        Who lets it pass all the same tells nobody: if it is too much, the lag will tell.
        """
        came = self._came
        came[priority] = came.get(priority, 0) + 1
        if priority != self._line:
            return priority < self._line
        self._debt += self._part
        if self._debt < 1.0:
            return False
        self._debt -= 1.0
        return True

    def sample(self, now: float, late: float, requests: int) -> None:
        """Take a sample: at `now` the loop was `late` for a timer, and so many requests are under way."""
        seconds = min(now - self._sampled, SAMPLE_SECONDS_MAX)
        self._sampled = now
        if self._is_persistent(now, late) and requests >= REQUESTS_MIN:
            self._acts = True
        # The lesser of two, so that a hiccup does not count while there is something to be shed either.
        by_lag = self._compute_share_by_lag(min(late, self._before), seconds) if self._acts else 0.0
        self._before = late
        self.share = max(by_lag, _clamp((requests / self._most - 1.0) / REQUESTS_MARGIN + 1.0))
        self._update_recent(seconds)
        self._draw_line()

    def _is_persistent(self, now: float, late: float) -> bool:
        """Return whether the loop has been late for a while, and is not becoming less so."""
        self._peak = max(late, self._peak * RECOVERING_SHARE)
        if late < self._lag:
            self._above_since = None
            return False
        if self._above_since is None:
            self._above_since, self._samples = now, 0
        self._samples += 1
        return self._samples >= STANDING_SAMPLES and now - self._above_since >= STANDING_SECONDS and late == self._peak

    def _compute_share_by_lag(self, lag: float, seconds: float) -> float:
        """Return the share for the lag, which holds the lag at its target."""
        error = min(lag / self._lag - 1.0, LAG_ERROR_MAX)
        self._integral = _clamp(self._integral + SHARE_BY_TIME * error * seconds)
        if error <= 0.0 and not self._integral:
            self._acts = False
        return _clamp(self._integral + SHARE_BY_LAG * error)

    def _update_recent(self, seconds: float) -> None:
        """Update how many requests of which priority come. Where none came, what was known is still the best guess."""
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
        """Draw the share as a line between priorities."""
        if not self.share:
            self._line = SHED_NONE
            return
        recent = self._recent
        rest = self.share * sum(recent.values())
        for priority in sorted(recent):
            n = recent[priority]
            self._line, self._part = priority, rest / n
            if rest <= n:
                break
            rest -= n


def _clamp(share: float) -> float:
    return min(max(share, 0.0), SHARE_MAX)


class Overload:
    """Shedding in one worker: takes the samples, and answers for them.

    A request reads `shedding`, and calls `should_shed` only where that is true.
    """

    def __init__(
        self,
        under_way: Callable[[], int],
        clients: Callable[[], int],
        take_queued: Callable[[int], None],
        time_turn: Callable[[], None],
        observe_lag: Callable[[float], None],
    ) -> None:
        """`under_way`: how many requests there are in this worker; `clients`: how many connections and streams, which
        are no fewer and quick to count. `take_queued`: accepts so many connections that wait. `observe_lag`: notes how
        late the loop was for a sample, in seconds."""
        self.shedding = False
        """Whether requests are to be asked about: some are shed at present, or may be soon."""
        self._under_way, self._clients, self._take_queued = under_way, clients, take_queued
        self._time_turn, self._observe_lag = time_turn, observe_lag
        self._most = 1 << 62
        """Requests that may be under way."""
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
        """Shed no more."""
        if self._timer is not None:
            self._timer.cancel()
        self.shedding = False

    def change_bounds(self, bounds: "Bounds") -> None:
        """Go by another configuration. What is being shed remains so, until the next samples say otherwise."""
        if self._timer is not None:
            self._most = bounds.requests
            self._control.change_bounds(bounds.lag, bounds.requests)
            self.check_clients()

    def check_clients(self) -> None:
        """Start checking requests if more clients are connected than requests may be active; called for each new
        client, and each stream of HTTP/2.
        """
        if self._clients() > self._most:
            self.shedding = True

    @property
    def is_full(self) -> bool:
        """Whether as many requests are under way as may be; while `shedding` only."""
        return self._clients() > self._most and self._under_way() >= self._most

    def should_shed(self, priority: int) -> bool:
        """Return whether a request of this priority is to be turned away, see LoadShedder; while `shedding` only."""
        return self._control.should_shed(priority)

    def _schedule(self, seconds: float) -> None:
        self._due = monotonic() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._sample)

    def _sample(self) -> None:
        now = monotonic()
        late = max(now - self._due, 0.0)
        self._observe_lag(late)
        requests = self._under_way()
        self._schedule(SAMPLE_SECONDS if requests >= REQUESTS_MIN else IDLE_SAMPLE_SECONDS)
        if late > LONG_TURN_SECONDS:
            # Who waits to be accepted waits longest of all, and no lag shows it.
            self._take_queued(QUEUED_PER_TURN)
        self._time_turn()
        self._control.sample(now, late, requests)
        self.shedding = self._control.is_watching or self._clients() > self._most
        share = round(self._control.share, 3)
        if share:
            self._log.error("requests are shed", "overload", share=share, lag=round(late, 3), requests=requests)
