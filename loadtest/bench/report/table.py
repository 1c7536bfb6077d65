"""Figures in columns, for a terminal or a Markdown page alike."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown with the columns padded: the first row is the heading, the first column a name."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = [("-" * width if column == 0 else "-" * (width - 1) + ":") for column, width in enumerate(widths)]
    return "\n".join(_line(row, widths) for row in (rows[0], rule, *rows[1:]))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        text.ljust(width) if column == 0 else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"| {' | '.join(cells)} |"
