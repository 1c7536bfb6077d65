"""Stripe's rate limits, per second: of all calls, and of each endpoint."""

from dataclasses import dataclass

from stripe_sandbox.refusal import too_many_requests

ENDPOINT = 25.0
METER_EVENTS = "/v1/billing/meter_events"
ALL = {"test": 25.0, "live": 100.0}
METERING_LIVE = {METER_EVENTS: 1000.0, "/v2/billing/meter_events": 1000.0, "/v2/billing/meter_event_stream": 10_000.0}
"""Calls with meter events, which have limits of their own in live mode."""
READS_MIN, READS_PER_PAYMENT = 10_000, 500
"""Reads of an account in 30 days: so many for each payment, and a minimum."""


@dataclass
class Bucket:
    """A token bucket that holds one second's tokens."""

    rate: float
    tokens: float
    at: float

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        self.tokens = min(self.rate, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Rates:
    """The rate limits. `mode` is `test` or `live`, or `off` for none."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self._buckets: dict[str, Bucket] = {}
        self.reads = 0

    def check(self, method: str, path: str, now: float, payments: int) -> None:
        """Count a call of an endpoint; raises the refusal of one too many. `now` is monotonic."""
        if self.mode == "off":
            return
        if path in METERING_LIVE and self.mode == "live":
            self._take(path, METERING_LIVE[path], "endpoint-rate", now)
            return
        if method == "GET":
            self.reads += 1
            if self.reads > max(READS_MIN, READS_PER_PAYMENT * payments):
                raise too_many_requests("resource-specific")
        if path not in METERING_LIVE:
            self._take(f"{method} {path}", ENDPOINT, "endpoint-rate", now)
        self._take("", ALL[self.mode], "global-rate", now)

    def _take(self, name: str, rate: float, reason: str, now: float) -> None:
        bucket = self._buckets.setdefault(name, Bucket(rate, rate, now))
        if not bucket.take(now):
            raise too_many_requests(reason)
