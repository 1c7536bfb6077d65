"""Random conversations through a real edge, judged by the oracle: no bytes of one request reach another.

`EDGEPROXY_FUZZ_MINUTES` sets the length of the long run (30). A defect is printed with the bytes that each side sent
and received, and with the command that repeats the conversation.
"""

import asyncio
import os
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
import uvloop

from tests.fuzz.__main__ import until
from tests.fuzz.run import Run, edge_before

CONVERSATIONS = 400
"""The conversations of the short run. Each outcome of a request occurs at least some ten times."""
MINUTES = float(os.environ.get("EDGEPROXY_FUZZ_MINUTES") or 30)


def fuzz(folder: Path, seed: int, numbers: Iterable[int]) -> Run:
    """Run these conversations. Fail at the first defect."""
    run = Run(seed, numbers)
    with closing(edge_before(folder, run.upstream)) as edge:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run.through(edge, tell=lambda text: print(text, flush=True)))
        print(run.summary())
        assert not run.defects, "\n\n".join(run.defects[:3])
    return run


def test_fuzzed_requests_never_mix_their_bytes(tmp_path: Path, seed: int) -> None:
    counts = fuzz(tmp_path / "edge", seed, range(CONVERSATIONS)).counts
    # A run with few events would prove little.
    assert counts["answered"] > counts["requests"] / 4
    assert counts["met a closed connection"] + counts["raced"] < counts["forwarded"] / 10
    assert min(counts[kind] for kind in ("cut", "refused", "failed", "switched", "sent again")) > 0


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 + 300)
def test_fuzzed_requests_never_mix_their_bytes_in_a_long_run(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fuzz(tmp_path / "edge", seed + 1, until(MINUTES * 60))
    with capsys.disabled():
        print(f"\n{run.summary()}")
