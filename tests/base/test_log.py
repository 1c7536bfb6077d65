"""Log lines with a rate limit, and lines that are suppressed."""

import json
import subprocess
import sys

import pytest

from edgeproxy.base import log


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test changes."""
    now = [0.0]
    monkeypatch.setattr(log, "monotonic", lambda: now[0])
    return now


def said(capsys: pytest.CaptureFixture[str]) -> int:
    """Lines since this was last asked."""
    return "".join(capsys.readouterr()).count("\n")


def test_rate_limited_log_writes_a_repeated_line_once_per_interval(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    limited = log.RateLimitedLog(10.0)
    lines = []
    for clock[0] in (0.0, 9.0, 10.0, 19.0, 20.0):
        limited.error("broke", "this")
        lines.append(said(capsys))
    assert lines == [1, 0, 1, 0, 1]


def test_rate_limited_log_writes_each_distinct_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    limited = log.RateLimitedLog(10.0)
    for event, about in (("broke", "this"), ("broke", "that"), ("went", "this")):
        limited.error(event, about)
    assert said(capsys) == 3


def test_rate_limited_log_bounds_lines_and_memory(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """As of a client that has all the addresses of a network."""
    limited = log.RateLimitedLog(10.0)
    for number in range(10 * log.REMEMBERED_MAX):
        limited.error("refused", str(number))
    assert said(capsys) == len(limited._logged_at) == log.REMEMBERED_MAX
    clock[0] = 10.0
    limited.error("refused", "another")
    assert said(capsys) == len(limited._logged_at) == 1


KEYS = ("sk_live_51AbC", "rk_test_9xYz", "whsec_dGhpcyBpcyBhIHNlY3JldA+/==")
SAYS = """
import logging, sys
from edgeproxy.base import log
log.configure("try")
logger = log.get_logger()
for key in sys.argv[1:]:
    logger.error(f"denied {key}", given=key, several=[key], lines=f"one\\n{key}")
    try:
        raise ValueError(f"no good: {key}")
    except ValueError as failure:
        logger.error("failed", exc_info=failure)
        logging.getLogger("asyncio").error("failed with %s", key, exc_info=failure)
logger.info("nothing of it", disk_total=5, risk_of="task_7")
"""


def test_log_redacts_stripe_keys_and_webhook_secrets_of_every_logger() -> None:
    done = subprocess.run([sys.executable, "-c", SAYS, *KEYS], capture_output=True, text=True, check=True)
    for key in KEYS:
        assert key.partition("_")[2] not in done.stderr
        assert done.stderr.count(f"{key.partition('_')[0]}_…") >= 6
    assert '"disk_total": 5, "risk_of": "task_7"' in done.stderr


def test_a_line_has_the_process_the_bound_fields_and_the_traceback() -> None:
    says = (
        "from edgeproxy.base import log; log.configure('try'); logger = log.get_logger(edge='one')\n"
        "try: 1 / 0\nexcept ZeroDivisionError: logger.exception('failed', path='a\\nb', what=object)"
    )
    done = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=True)
    line = json.loads(done.stderr)
    assert done.stderr.count("\n") == 1
    assert (line["process"], line["edge"], line["event"], line["level"]) == ("try", "one", "failed", "error")
    assert (line["path"], line["what"]) == ("a\nb", "<class 'object'>")
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_on_a_terminal_a_value_cannot_begin_a_line_nor_move_the_cursor() -> None:
    text = log.format_text("2026-11-24T00:00:00Z", "error", "refused", {"path": "/a\nb\x1b[2J c", "to": "x"}, None)
    assert text.endswith(r"path='/a\nb\x1b[2J c' to=x")
    assert "\n" not in text
