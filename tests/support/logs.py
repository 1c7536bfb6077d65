"""Log events for tests to read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edgeproxy.base import log


@contextmanager
def capture_logs() -> Iterator[list[dict[str, Any]]]:
    """Collect the lines of this process in the place of writing them: their fields, with `event` and `log_level`."""
    lines: list[dict[str, Any]] = []

    def collect(level: str, event: str, fields: dict[str, object]) -> None:
        lines.append({**fields, "event": event, "log_level": level})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(log, "write", collect)
        yield lines
