"""The upstream of all measurements: nginx with fixed answers, on the load generator's core."""

import re
import time
from pathlib import Path
from urllib.request import urlopen

from loadtest.bench import nginx, ports
from loadtest.bench.scenario import SCENARIOS, SMALL_ANSWER

_SETTLE_SECONDS = 0.02
_SETTLE_TRIES = 50
_QUIET_TRIES = 2
_TEMPLATE = Path(__file__).with_name("upstream.conf")


class Upstream:
    """Serves on two `ports`, so that peers have a choice of endpoints to make."""

    def __init__(self, folder: Path, core: int) -> None:
        first, second, self._status = ports.free(3)
        self.ports = (first, second)
        answers = folder / "answers" / "v1"
        answers.mkdir(parents=True)
        for scenario in SCENARIOS.values():
            if scenario.answer > len(SMALL_ANSWER):
                body = b"".join(scenario.content) or b"y" * scenario.answer
                (answers / scenario.target.rpartition("/")[2]).write_bytes(body)
        small = SMALL_ANSWER.decode().replace("\n", "\\n")
        http = nginx.fill(
            _TEMPLATE.read_text(), FIRST=first, SECOND=second, STATUS=self._status, DIR=folder, SMALL=small
        )
        self.child = nginx.start(folder, http, core=core)
        self._own = 0
        try:
            self.child.wait_until(self._answers, 10, "answered")
        except BaseException:
            self.stop()
            raise

    def seen(self) -> int:
        """How many requests it has had from others since its start."""
        with urlopen(f"http://127.0.0.1:{self._status}/status", timeout=10) as answer:
            text = answer.read().decode()
        self._own += 1
        # The third figure of the line under "server accepts handled requests".
        return requests_in(text) - self._own

    def settled(self) -> int:
        """`seen` once it no longer grows: what was under way when a load ended has arrived."""
        seen, quiet = self.seen(), 0
        for _ in range(_SETTLE_TRIES):
            time.sleep(_SETTLE_SECONDS)
            before, seen = seen, self.seen()
            quiet = quiet + 1 if before == seen else 0
            if quiet == _QUIET_TRIES:
                break
        return seen

    def _answers(self) -> bool:
        try:
            self.seen()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self.child.stop()


def requests_in(status: str) -> int:
    """The number of requests in the text of ngx_http_stub_status_module."""
    match = re.search(r"requests\s+\d+ \d+ (\d+)", status)
    if match is None:
        raise ValueError(f"not a stub_status text: {status!r}")
    return int(match[1])
