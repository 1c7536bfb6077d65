"""Structured logs on standard error: JSON where a machine reads them, plain where a person does."""

import sys
from time import monotonic

import structlog


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
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(process=process)


def get(**bound: object) -> structlog.typing.FilteringBoundLogger:
    """A logger with these fields on every line."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(**bound)
    return logger


REMEMBERED_MAX = 256
"""Different things that are said in the time in which none is repeated. Each address of millions may be one."""


class Seldom:
    """Says the same thing at most once in `every` seconds, for what may happen at each of many requests.

    Of more than REMEMBERED_MAX things in that time, the rest is not said.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._said: dict[str, float] = {}
        """When what was said in the last `every` seconds was; the oldest first."""
        self._log = get()

    def error(self, event: str, about: str, **fields: object) -> None:
        """Log `event`, unless the same was said about the same thing within the last `every` seconds."""
        if self._is_new(event, about):
            self._log.error(event, about=about, **fields)

    def info(self, event: str, about: str, **fields: object) -> None:
        """`error` for what is none."""
        if self._is_new(event, about):
            self._log.info(event, about=about, **fields)

    def _is_new(self, event: str, about: str) -> bool:
        said, now = self._said, monotonic()
        while said and now - next(iter(said.values())) >= self._every:
            del said[next(iter(said))]
        key = f"{event} {about}"
        if key in said or len(said) >= REMEMBERED_MAX:
            return False
        said[key] = now
        return True
