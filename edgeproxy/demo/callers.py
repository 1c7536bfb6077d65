"""The customers' programs: they call the API all the time, so that pages have traffic, usage by key, and refusals."""

import time
from contextlib import suppress
from itertools import cycle
from threading import Event, Thread

from edgeproxy.demo.bursts import BURST_CALLS, BURST_SECONDS
from edgeproxy.demo.company import ATLAS, Company
from edgeproxy.demo.services import Services
from edgeproxy.demo.web import send

PAUSE_SECONDS = 0.5
SPENDING = "/response-headers?X-Cost=100"
"""A request that costs a hundredth of a cent of credits."""
PATHS = ("/get", "/anything/orders", "/get", "/anything/search", SPENDING, "/get", "/status/404")
"""Few of the answers are errors, as of a program with a mistake."""
KEYS = ("demo", "demo", "reports")
"""The names of the keys, in turn: one is used more than the other."""


class Callers:
    """A thread that sends requests to each region in turn until it is ended."""

    def __init__(self, services: Services, company: Company) -> None:
        self._is_ended = Event()
        self._services = services
        self._keys = {name: company.key(ATLAS, name) for name in KEYS}
        self._deneb = company.find_key("deneb")
        self._thread = Thread(target=self._run, name="callers", daemon=True)

    def start(self) -> None:
        """Send requests from now on."""
        self._thread.start()

    def end(self) -> None:
        """Send no further request."""
        self._is_ended.set()
        self._thread.join()

    def _run(self) -> None:
        next_burst = time.monotonic()
        for region, path, name in zip(cycle(self._services.regions), cycle(PATHS), cycle(KEYS), strict=False):
            if self._is_ended.wait(PAUSE_SECONDS):
                return
            self._call(region, path, self._keys[name])
            if self._deneb is not None and time.monotonic() >= next_burst:
                next_burst += BURST_SECONDS
                for place, _ in zip(cycle(self._services.regions), range(BURST_CALLS), strict=False):
                    self._call(place, "/get", self._deneb)

    def _call(self, region: str, path: str, key: str) -> None:
        # The edge may be down: its reader has killed it, to see how it is started again.
        with suppress(OSError):
            send(f"{self._services.edge(region)}{path}", headers={"X-API-Key": key}, seconds=2)
