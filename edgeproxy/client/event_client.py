"""The client: `report` writes an event to a queue on disk and returns; a thread sends the queue to the collector.

The thread sends each segment of the queue until all of its events are settled: the collector has taken an event, has
refused to count it, or cannot read it at all.
"""

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

BATCH_EVENTS_MAX = 1000
"""The most events that one request has."""
BATCH_BYTES_MAX = 1 << 20
"""The most bytes that one request has, unless its only event is larger."""
POLL_SECONDS = 1.0
"""Seconds between two checks for events to send."""
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.5, 60.0
"""The pause after a failure: a random part of a bound that doubles with each further failure (full jitter)."""
QUEUE_BYTES_MAX = 256 << 20
"""Bytes of events that may wait, by default."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
UNREADABLE = (400, 413, 415, 422)
"""Statuses of a request that the collector cannot read: its half is sent next, and a single event is set aside."""

Event = dict[str, object]
RejectedHandler = Callable[[Event, str], None]
"""A handler of an event that the collector refused to count, given the reason."""


class UnavailableError(Exception):
    """The collector takes no events now.

    `seconds` is the time to wait, from its Retry-After, and `code` the code of its problem, if there is one.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"the collector answers {answer.status}: {answer.body[:200]!r}")
        self.seconds = min(answer.retry_after, PAUSE_SECONDS_MAX)
        self.code = answer.code


class EventClient:
    """A reporter of usage to a collector. Each process needs a queue of its own; its threads may share the client.

    `rejected` is called, in the client's thread, with each event that the collector refuses to count and why; by
    default that is logged. Raises QueueBusyError, or OSError if the queue's directory is unusable.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        queue: str | Path,
        source: str,
        rejected: RejectedHandler | None = None,
        ca_file: str | None = None,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        self._source = source
        self._queue = Queue(Path(queue), queue_bytes_max)
        self._unreadable_path = Path(queue) / "unreadable"
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
        upstream_request_id: str | None = None,
        at: datetime | None = None,
        id: str | None = None,
        replaces: str | None = None,
    ) -> str:
        """Add an event to the queue and return its id. From then on the event outlives this process.

        An event that `replaces` the id of an earlier one counts in its place; the token needs the right to do so.

        The call is one write to a file, without fsync. Raises ValueError for arguments that make no event, and
        QueueFullError or OSError where the queue cannot store it: the event was not accepted then.
        """
        if not (NAME.fullmatch(customer) and NAME.fullmatch(meter)):
            raise ValueError(f"customer {customer!r} or meter {meter!r} is no name")
        if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, int) and value < 0):
            raise ValueError(f"value {value!r} is neither a whole number from 0 nor a text")
        moment = datetime.now(UTC) if at is None else at
        if moment.tzinfo is None:
            raise ValueError("at has no time zone")
        event_id = uuid.uuid4().hex if id is None else id
        event: Event = {"id": event_id, "source": self._source, "customer": customer, "meter": meter, "value": value}
        event["time"] = moment.astimezone(UTC).isoformat(timespec="milliseconds")
        if dimensions:
            event["dimensions"] = dict(dimensions)
        if request_id is not None:
            event["request_id"] = request_id
        if upstream_request_id is not None:
            event["upstream_request_id"] = upstream_request_id
        if replaces is not None:
            event["replaces"] = replaces
        self._queue.add(json.dumps(event, separators=(",", ":")).encode() + b"\n")
        return event_id

    @property
    def waiting_bytes(self) -> int:
        """The bytes of events that were accepted and are not settled yet."""
        return self._queue.waiting_bytes

    def flush(self, seconds: float) -> bool:
        """Wait until all accepted events are settled, `seconds` at most. Return whether they are."""
        deadline = monotonic() + seconds
        self._wake.set()
        with self._idle:
            while self._queue.waiting_bytes and monotonic() < deadline:
                self._idle.wait(min(0.2, max(0.0, deadline - monotonic())))
        return not self._queue.waiting_bytes

    def close(self, seconds: float = 5.0) -> bool:
        """Flush, then end the thread. Return whether all events are settled; a later client sends the rest."""
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
            pause = POLL_SECONDS
            try:
                self._sync()
                if self._send_oldest():
                    pause = 0.0
                failures = 0
            except Exception as error:  # Accepted events must be sent once the fault is over, whatever it was.
                self._log.warning("events wait, and are sent again later: %s", error or type(error).__name__)
                retry_after = error.seconds if isinstance(error, UnavailableError) else 0.0
                pause = max(retry_after, random.uniform(0.0, min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2**failures)))
                failures = min(failures + 1, 10)
            deadline = monotonic() + pause
            while not self._ending and (left := deadline - monotonic()) > 0:
                if self._wake.wait(min(left, POLL_SECONDS)):
                    self._wake.clear()
                    break
                self._sync()

    def _sync(self) -> None:
        try:
            self._queue.sync()
        except OSError as error:
            self._log.error("the disk does not keep events: %s", error)

    def _send_oldest(self) -> bool:
        """Send the oldest segment of the queue; return whether there was one.

        Raises UnavailableError, OSError and HTTPException; the segment stays in the queue then.
        """
        segment = self._queue.oldest()
        if segment is None:
            return False
        lines = self._queue.lines(segment)
        place, events_max = 0, BATCH_EVENTS_MAX
        while place < len(lines) and not self._ending:
            batch = take_batch(lines[place:], events_max)
            answer = self._transport.send(b"[" + b",".join(batch) + b"]")
            if answer.status == 202:
                self._report_rejected(batch, answer)
                place += len(batch)
                events_max = BATCH_EVENTS_MAX
            elif answer.status in UNREADABLE and len(batch) > 1:
                events_max = len(batch) // 2
            elif answer.status in UNREADABLE:
                self._set_aside(batch[0], answer)
                place += 1
            else:
                raise UnavailableError(answer)
        if place == len(lines):
            self._queue.remove(segment)
            with self._idle:
                self._idle.notify_all()
        return True

    def _report_rejected(self, batch: Sequence[bytes], answer: Answer) -> None:
        """Call the handler for each event of a batch that was not counted."""
        for rejection in json.loads(answer.body)["rejected"]:
            try:
                self._rejected(json.loads(batch[rejection["index"]]), rejection["error"])
            except Exception:
                self._log.exception("the handler of a rejected event failed")

    def _set_aside(self, line: bytes, answer: Answer) -> None:
        """Store an event that the collector cannot read in the file `unreadable` beside the queue."""
        with self._unreadable_path.open("ab") as file:
            file.write(line + b"\n")
        reason = f"{answer.status} {answer.code or ''}".rstrip()
        self._log.error("an event is kept in %s: the collector answers %s to it", self._unreadable_path, reason)

    def _log_rejected(self, event: Event, error: str) -> None:
        self._log.warning("event %s of %s was not counted: %s", event["id"], event["customer"], error)


def take_batch(lines: Sequence[bytes], events_max: int) -> Sequence[bytes]:
    """Return the first of these lines, as many as one request may have: one at least."""
    size = 0
    for number, line in enumerate(lines[:events_max]):
        size += len(line) + 1
        if size > BATCH_BYTES_MAX and number:
            return lines[:number]
    return lines[:events_max]
