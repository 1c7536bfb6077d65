"""Structured logs on standard error: JSON, or plain text on a terminal.

No line has keys of Stripe or secrets of webhooks, whoever writes it.
"""

import logging
import re
import sys
from time import monotonic

import structlog

SECRET = re.compile(r"(?<![A-Za-z]{2})(sk|rk|whsec)_[A-Za-z0-9_*+/=]+")
"""Pattern of Stripe's keys and secrets. One letter may precede: that of an escaped newline in JSON."""


def configure(process: str) -> None:
    """Set up logging for this process; `process` (`supervisor`, `worker`) is on every line."""
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
            redact_line,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(process=process)
    if (others := logging.lastResort) is not None and not any(
        isinstance(one, RedactionFilter) for one in others.filters
    ):
        others.addFilter(RedactionFilter())  # What libraries say.


def get_logger(**bound: object) -> structlog.typing.FilteringBoundLogger:
    """Return a logger with these fields on every line."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(**bound)
    return logger


def redact(text: str) -> str:
    """Return a text without keys of Stripe and secrets of webhooks."""
    return SECRET.sub(lambda match: f"{match[1]}_…", text)


def redact_line(_: object, __: str, line: structlog.typing.EventDict | str) -> str:
    """Redact a line as it is written."""
    return redact(str(line))


class RedactionFilter(logging.Filter):
    """Redacts the logs of libraries."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the message of a record."""
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


REMEMBERED_MAX = 256
"""Different messages in the time in which none is repeated. Each address of millions may be one."""


class RateLimitedLog:
    """Logs the same message at most once in `every` seconds, for events that may happen at each of many requests.

    Of more than REMEMBERED_MAX messages in that time, the rest is not logged.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._logged_at: dict[str, float] = {}
        """Messages of the last `every` seconds with their times, the oldest first."""
        self._log = get_logger()

    def error(self, event: str, about: str, **fields: object) -> None:
        """Log an error, unless the same event about the same thing was logged within the last `every` seconds."""
        if self._is_new(event, about):
            self._log.error(event, about=about, **fields)

    def info(self, event: str, about: str, **fields: object) -> None:
        """Log an event at the level info, in the same way."""
        if self._is_new(event, about):
            self._log.info(event, about=about, **fields)

    def _is_new(self, event: str, about: str) -> bool:
        logged_at, now = self._logged_at, monotonic()
        while logged_at and now - next(iter(logged_at.values())) >= self._every:
            del logged_at[next(iter(logged_at))]
        key = f"{event} {about}"
        if key in logged_at or len(logged_at) >= REMEMBERED_MAX:
            return False
        logged_at[key] = now
        return True
