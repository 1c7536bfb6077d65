"""The stages of the contract, each with one edge for all rows that are run on it."""

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite(
    "tests.contract.stage", "tests.contract.play", "tests.contract.upstream", "tests.support.wire"
)

from tests.contract.play import Play, several  # noqa: E402
from tests.contract.stage import Stage  # noqa: E402
from tests.contract.tables import ANSWERED, PLAYS, SLOW  # noqa: E402

HASTY = {"header_timeout": "500ms", "body_idle": "500ms", "keepalive_idle": "700ms"}
"""Limits of an edge with short timeouts."""


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An edge with default settings."""
    rows = [row for _, row in (*ANSWERED, *PLAYS)]
    stage = Stage(tmp_path_factory.mktemp("contract"), rows)
    yield stage
    stage.closes()


@pytest.fixture(scope="session")
def late(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Play, BaseException | None]]:
    """The outcome of each row about slow peers. All rows run at once on an edge with short timeouts."""
    rows = [row for _, row in SLOW]
    timeouts = {"connect": "500ms", "response_head": "500ms", "idle": "500ms"}
    stage = Stage(tmp_path_factory.mktemp("hasty"), rows, limits=HASTY, timeouts=timeouts)
    outcomes = stage.run(several([stage.act(row) for row in rows]))
    yield dict(zip(rows, outcomes, strict=True))
    stage.closes()
