"""Structured logs on standard error: JSON, or plain text on a terminal.

Keys of Stripe and secrets of webhooks are removed from every line.
"""

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from threading import Lock
from time import monotonic

from edgeproxy.base.short_names import shorten_name

SECRET = re.compile(r"(?<![A-Za-z]{2})(sk|rk|whsec)_[A-Za-z0-9_*+/=]+")
"""Pattern of Stripe's keys and secrets. One letter may precede it, from an escaped newline in JSON."""

_process: dict[str, object] = {}
"""The fields of this process for every line."""
_lock = Lock()


def configure(process: str) -> None:
    """Set up logging for this process. `process` (`supervisor`, `worker`) is on every line."""
    _process["process"] = process
    if (others := logging.lastResort) is not None and not any(
        isinstance(filter_, RedactionFilter) for filter_ in others.filters
    ):
        others.addFilter(RedactionFilter())  # For messages of libraries.


class Logger:
    """Writes lines with an event and fields. Bound fields are on each of its lines."""

    __slots__ = ("_bound",)

    def __init__(self, bound: dict[str, object]) -> None:
        self._bound = bound

    def info(self, event: str, **fields: object) -> None:
        """Log an event of normal work."""
        write("info", event, self._bound | fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log an event that people should look at."""
        write("warning", event, self._bound | fields)

    def error(self, event: str, **fields: object) -> None:
        """Log a failure with the traceback of `exc_info`: an exception, or true for the current one."""
        write("error", event, self._bound | fields)

    def exception(self, event: str, **fields: object) -> None:
        """Log a failure with the traceback of the current exception."""
        self.error(event, exc_info=True, **fields)


def get_logger(**bound: object) -> Logger:
    """Return a logger with these fields on every line."""
    return Logger(bound)


def write(level: str, event: str, fields: dict[str, object]) -> None:
    """Write one redacted line. On a terminal, a traceback follows on separate lines."""
    exception = format_exception(fields.pop("exc_info", None))
    timestamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    if sys.stderr.isatty():
        text = format_text(timestamp, level, event, _process | fields, exception)
    else:
        line = {**_process, **fields, "event": event, "level": level, "timestamp": timestamp}
        text = json.dumps(line if exception is None else {**line, "exception": exception}, default=repr)
    with _lock:
        try:
            print(redact(text), file=sys.stderr, flush=True)
        except OSError:  # Its disk is full or its reader has exited. A lost line must not end a task.
            pass


def format_text(timestamp: str, level: str, event: str, fields: dict[str, object], exception: str | None) -> str:
    """Format a line for a terminal. Values with spaces or control characters are quoted, so that their ends show."""
    words = (f"{name}={_format_value(value)}" for name, value in sorted(fields.items()))
    text = " ".join((timestamp, f"[{level:<7}]", f"{event:<30}", *words))
    return text if exception is None else f"{text}\n{exception}"


def _format_value(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() and " " not in value else repr(value)


def format_exception(exc_info: object) -> str | None:
    """Return the text of an exception, or for true of the current one, with its traceback. None: there is none."""
    error = exc_info if isinstance(exc_info, BaseException) else sys.exception() if exc_info else None
    return None if error is None else "".join(traceback.format_exception(error)).rstrip("\n")


def redact(text: str) -> str:
    """Return a text without keys of Stripe and secrets of webhooks."""
    return SECRET.sub(lambda match: f"{match[1]}_…", text)


class RedactionFilter(logging.Filter):
    """Redacts the logs of libraries."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the message of a record."""
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


REMEMBERED_MAX = 256
"""Maximum different messages whose repetition is suppressed. Each of millions of addresses may cause one."""


class RateLimitedLog:
    """Logs a repeated message at most once in `every` seconds, for events that may happen at many requests.

    More than REMEMBERED_MAX different messages in that time are not logged.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._logged_at: dict[str, float] = {}
        """Messages of the last `every` seconds with their times, the oldest first."""
        self._log = get_logger()

    def error(self, event: str, about: str, **fields: object) -> None:
        """Log an error, unless its event was logged about this thing within `every` seconds."""
        if self._is_new(event, about):
            self._log.error(event, about=about, **fields)

    def info(self, event: str, about: str, **fields: object) -> None:
        """Log an event at the level info, limited like `error`."""
        if self._is_new(event, about):
            self._log.info(event, about=about, **fields)

    def _is_new(self, event: str, about: str) -> bool:
        logged_at, now = self._logged_at, monotonic()
        while logged_at and now - next(iter(logged_at.values())) >= self._every:
            del logged_at[next(iter(logged_at))]
        key = f"{event} {shorten_name(about)}"
        if key in logged_at or len(logged_at) >= REMEMBERED_MAX:
            return False
        logged_at[key] = now
        return True
