"""The command that runs the rows through other proxies, and prints their behaviour."""

import pytest

from tests.contract.beside.table import lay_out, observe
from tests.contract.stance import STANCES, check
from tests.contract.tables import ANSWERED, ASKED

ROWS = tuple((family, row) for family, row in (*ASKED, *ANSWERED))

KNOWN = {
    "lengths-a length": "200, 200 | POST / +5, GET /next",
    "targets-no Host at all": "400 | closed",
    "answers-chunked": "200 +5",
    "faults-closed within the body": "cut off",
}
"""Rows with one result in every version of nginx."""


@pytest.mark.nginx
def test_rows_run_through_nginx() -> None:
    rows = [(family, row) for family, row in ROWS if f"{family}-{row.name}" in KNOWN]
    cells = observe(rows, ["nginx"])
    assert {row: seen["nginx"] for row, seen in cells.items()} == KNOWN
    said: list[str] = []
    assert lay_out(rows, cells, all_=True, say=said.append) == 1  # "502 or cut off" is cut off there.
    assert "    * nginx  cut off" in said


def test_every_row_that_a_stance_speaks_of_is_there() -> None:
    names = {f"{family}-{row.name}" for family, row in ROWS}
    assert not [row for stance in STANCES for row, *_ in stance.rows if row not in names]


def test_stances_on_other_proxies_are_checked_against_their_answers() -> None:
    row, nginx, caddy = STANCES[0].rows[0]
    assert check({row: {"nginx": nginx, "caddy": caddy}}) == []
    assert check({row: {"nginx": "500"}}) == [f"{row}: nginx did '500', not {nginx!r}"]
