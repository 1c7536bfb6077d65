"""The client: whoever reports goes on at once, and a thread sends what waits, again and again until it is settled."""

import json
import logging
import random
import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from edgeproxy.client.queue import Queue
from edgeproxy.client.transport import Answer, Transport

EVENTS_PER_BATCH = 1000
"""Events of a request."""
BATCH_BYTES = 1 << 20
"""Bytes of a request."""
SEND_SECONDS = 1.0
"""Seconds between looks for something to send."""
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.5, 60.0
"""Seconds until it is tried again: after each failure up to twice as many, a random part of them."""
QUEUE_BYTES_MAX = 256 << 20
"""Bytes of events that may wait, by default."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
UNREADABLE = (400, 413, 415, 422)
"""Statuses that say that a request itself cannot be: it is sent in smaller ones, and a single event is set aside."""

Event = dict[str, object]
Rejected = Callable[[Event, str], None]


class UnavailableError(Exception):
    """The collector does not take events now; after so many `seconds` it may."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"the collector answers {answer.status}: {answer.body[:200]!r}")
        self.seconds = min(answer.retry_after, PAUSE_SECONDS_MAX)


class EventClient:
    """Reports usage to a collector. One process uses a queue; threads may share the client.

    `rejected` is called, in the client's thread, with each event that the collector refuses to count and why; by
    default that is logged. Raises QueueBusyError, or OSError where the queue's directory cannot be used.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        queue: str | Path,
        source: str,
        rejected: Rejected | None = None,
        ca_file: str | None = None,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        self._source = source
        self._queue = Queue(Path(queue), queue_bytes_max)
        self._aside = Path(queue) / "unreadable"
        self._transport = Transport(url, token, ca_file)
        self._log = logging.getLogger("edgeproxy.client")
        self._rejected = rejected or self._log_rejected
        self._wake, self._idle = threading.Event(), threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="edgeproxy events", daemon=True)
        self._thread.start()

    def report(
        self,
        customer: str,
        meter: str,
        value: int | str = 1,
        *,
        dimensions: Mapping[str, str] | None = None,
        request_id: str | None = None,
        at: datetime | None = None,
        id: str | None = None,
    ) -> str:
        """Accept an event, and return its id: from then on it outlives this process.

        Takes no longer than a write to a file that waits for no disk. Raises ValueError where it cannot be an event,
        QueueFullError or OSError where it cannot be kept: nothing was accepted then.
        """
        if not (NAME.fullmatch(customer) and NAME.fullmatch(meter)):
            raise ValueError(f"customer {customer!r} or meter {meter!r} is no name")
        if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, int) and value < 0):
            raise ValueError(f"value {value!r} is neither a whole number from 0 nor a text")
        moment = datetime.now(UTC) if at is None else at
        if moment.tzinfo is None:
            raise ValueError("at has no time zone")
        number = uuid.uuid4().hex if id is None else id
        event: Event = {"id": number, "source": self._source, "customer": customer, "meter": meter, "value": value}
        event["time"] = moment.astimezone(UTC).isoformat(timespec="milliseconds")
        if dimensions:
            event["dimensions"] = dict(dimensions)
        if request_id is not None:
            event["request_id"] = request_id
        self._queue.add(json.dumps(event, separators=(",", ":")).encode() + b"\n")
        return number

    @property
    def waiting_bytes(self) -> int:
        """Bytes of events that were accepted and are not settled yet."""
        return self._queue.waiting_bytes

    def flush(self, seconds: float) -> bool:
        """Wait so long until all that was accepted is settled; whether it is."""
        deadline = monotonic() + seconds
        self._wake.set()
        with self._idle:
            while self._queue.waiting_bytes and monotonic() < deadline:
                self._idle.wait(min(0.2, max(0.0, deadline - monotonic())))
        return not self._queue.waiting_bytes

    def close(self, seconds: float = 5.0) -> bool:
        """`flush`, then end; what is left is sent by the next process with this queue."""
        is_settled = self.flush(seconds)
        self._ending = True
        self._wake.set()
        self._thread.join()
        self._transport.close()
        self._queue.close()
        return is_settled

    # ---- the thread

    def _run(self) -> None:
        failures = 0
        while not self._ending:
            pause = SEND_SECONDS
            try:
                self._sync()
                if self._send_oldest():
                    pause = 0.0
                failures = 0
            except Exception as error:  # Whatever it is: what was accepted is to be sent once that is over.
                self._log.warning("events wait, and are sent again later: %s", error or type(error).__name__)
                retry_seconds = error.seconds if isinstance(error, UnavailableError) else 0.0
                pause = max(retry_seconds, random.uniform(0.0, min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2**failures)))
                failures = min(failures + 1, 10)
            deadline = monotonic() + pause
            while not self._ending and (left := deadline - monotonic()) > 0:
                if self._wake.wait(min(left, SEND_SECONDS)):
                    self._wake.clear()
                    break
                self._sync()

    def _sync(self) -> None:
        try:
            self._queue.sync()
        except OSError as error:
            self._log.error("the disk does not keep events: %s", error)

    def _send_oldest(self) -> bool:
        """Send what waits longest; False where nothing waits. Raises UnavailableError, OSError and HTTPException."""
        segment = self._queue.oldest()
        if segment is None:
            return False
        lines = self._queue.lines(segment)
        place, most = 0, EVENTS_PER_BATCH
        while place < len(lines) and not self._ending:
            some = batch(lines[place:], most)
            answer = self._transport.send(b"[" + b",".join(some) + b"]")
            if answer.status == 202:
                self._tell(some, answer)
                place += len(some)
                most = EVENTS_PER_BATCH
            elif answer.status in UNREADABLE and len(some) > 1:
                most = len(some) // 2
            elif answer.status in UNREADABLE:
                self._set_aside(some[0], answer)
                place += 1
            else:
                raise UnavailableError(answer)
        if place == len(lines):
            self._queue.remove(segment)
            with self._idle:
                self._idle.notify_all()
        return True

    def _tell(self, some: Sequence[bytes], answer: Answer) -> None:
        """Say what of these was not counted."""
        for one in json.loads(answer.body)["rejected"]:
            try:
                self._rejected(json.loads(some[one["index"]]), one["error"])
            except Exception:
                self._log.exception("what was to be told of a rejected event failed")

    def _set_aside(self, line: bytes, answer: Answer) -> None:
        """Keep an event that makes a request which the collector cannot read."""
        with self._aside.open("ab") as file:
            file.write(line + b"\n")
        self._log.error("an event is kept in %s: the collector answers %s to it", self._aside, answer.status)

    def _log_rejected(self, event: Event, error: str) -> None:
        self._log.warning("event %s of %s was not counted: %s", event["id"], event["customer"], error)


def batch(lines: Sequence[bytes], most: int) -> Sequence[bytes]:
    """The first of these lines, as many as a request takes."""
    size = 0
    for number, line in enumerate(lines[:most]):
        size += len(line) + 1
        if size > BATCH_BYTES and number:
            return lines[:number]
    return lines[:most]
