"""Every row of the tables, on a real edge between a raw client and a raw upstream."""

from typing import Any

import pytest

from tests.contract.case import Answered, Asked
from tests.contract.play import Play
from tests.contract.stage import Stage
from tests.contract.tables import ANSWERED, ASKED, AT_ONCE, PLAYS, SLOW, Rows

PART_BY_DAY = 3
"""By day one of so many rows is sent in pieces too."""


def each(name: str, table: Rows[Any]) -> pytest.MarkDecorator:
    """One test a row."""
    return pytest.mark.parametrize(
        name, [row for _, row in table], ids=[f"{family}-{row.name}" for family, row in table]
    )


def each_in_pieces(name: str, table: Rows[Any]) -> pytest.MarkDecorator:
    """One test a row, two of three each night: the readers of heads and bodies have tests of their own in pieces."""
    rows = [(family, row) for family, row in table if id(row) not in AT_ONCE]
    by_night = [pytest.mark.night if number % PART_BY_DAY else () for number in range(len(rows))]
    return pytest.mark.parametrize(
        name,
        [
            pytest.param(row, id=f"{family}-{row.name}", marks=night)
            for (family, row), night in zip(rows, by_night, strict=True)
        ],
    )


def piece_of(data: bytes) -> int:
    """Return the size of the pieces: one byte, unless that would take too long."""
    return 1 if len(data) < 3000 else 1 + len(data) // 499


@each("case", ASKED)
def test_request_is_handled_as_its_rfc_says(stage: Stage, case: Asked) -> None:
    stage.run(stage.ask(case))


@each_in_pieces("case", ASKED)
def test_request_in_pieces_is_handled_like_a_whole_one(stage: Stage, case: Asked) -> None:
    stage.run(stage.ask(case, piece=piece_of(case.sent)))


@each("case", ANSWERED)
def test_answer_is_relayed_as_its_rfc_says(stage: Stage, case: Answered) -> None:
    stage.run(stage.answer(case))


@each_in_pieces("case", ANSWERED)
def test_answer_in_pieces_is_relayed_like_a_whole_one(stage: Stage, case: Answered) -> None:
    stage.run(stage.answer(case, piece=piece_of(case.sent)))


@each("scene", PLAYS)
def test_exchange_goes_as_its_scene_says(stage: Stage, scene: Play) -> None:
    stage.run(stage.act(scene))


@each("scene", SLOW)
def test_slow_peer_runs_into_its_timeout(late: dict[Play, BaseException | None], scene: Play) -> None:
    if (wrong := late[scene]) is not None:
        raise wrong
