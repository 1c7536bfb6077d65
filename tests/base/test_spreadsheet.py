"""A spreadsheet shows the cells of a file as text."""

import pytest

from edgeproxy.base.spreadsheet import escape_formula, render_csv


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_text_that_begins_like_a_formula_gets_an_apostrophe(begin: str) -> None:
    assert escape_formula(f"{begin}HYPERLINK(1)") == f"'{begin}HYPERLINK(1)"


@pytest.mark.parametrize("text", ["", "-", "-4", "-0.004", "a=1", " =1", "12"])
def test_numbers_and_other_texts_stay(text: str) -> None:
    assert escape_formula(text) == text


def test_file_quotes_a_cell_with_a_line_feed() -> None:
    assert render_csv([("\n=1+1", 5)]) == '"\'\n=1+1",5\r\n'
