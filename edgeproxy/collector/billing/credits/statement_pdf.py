"""Statements as PDF. Equal statements give equal bytes."""

import io
import unicodedata
from decimal import Decimal
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, PropertySet, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from edgeproxy.collector.billing.credits.statements import (
    PENDING,
    TEXTS,
    Statement,
    StatementLine,
    format_credits,
    format_day,
)
from edgeproxy.collector.billing.journal.postings import CREDIT
from edgeproxy.config.collector.currency_units import format_millicredits, format_millicredits_with_code

MARGIN = 20 * mm
WIDTHS = tuple(part * mm for part in (22, 38, 38, 36, 36))
"""The widths of the columns. An amount of a thousand million with all of its decimal places fits."""
FONT_SIZE = 9
HEADINGS = ("Date", "What", "Reference", "Credits")
"""The column headings. The last column, the amount, is headed by its currency."""
REFERENCE_CHARACTERS_MAX = 60
LOST_LETTERS = (
    "A question mark stands for a letter that this document cannot show. The same statement as CSV has all letters."
)


def render_pdf(statement: Statement) -> bytes:
    """Return a statement as PDF."""
    out = io.BytesIO()
    title = f"Statement {statement.month}"
    document = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=title,
        subject=statement.customer,
        invariant=1,
    )
    styles = getSampleStyleSheet()
    worth = format_millicredits_with_code(1000 * CREDIT, statement.currency)
    introduction = f"Customer {escape(_to_latin(statement.customer))}. 1,000 credits are {worth}. Days are of UTC."
    if any(map(_loses_letters, [statement.customer, *map(_format_reference, statement.lines)])):
        introduction += f" {LOST_LETTERS}"
    story: list[Flowable] = [
        Paragraph(title, styles["Title"]),
        Paragraph(introduction, styles["Normal"]),
        Spacer(0, 6 * mm),
        _build_table(statement, ParagraphStyle("cell", styles["Normal"], fontSize=FONT_SIZE)),
    ]
    document.build(story)
    return out.getvalue()


def _build_table(statement: Statement, style: PropertySet) -> Table:
    """Return the lines of a statement, on as many pages as necessary."""
    rows: list[tuple[object, ...]] = [
        (*HEADINGS, statement.currency.upper()),
        _format_sum_row(format_day(statement.month.begin), "Opening balance", statement.opening, statement.currency),
    ]
    for line in statement.lines:
        at = "" if line.at is None else format_day(line.at)
        cells = [Paragraph(escape(text), style) for text in (TEXTS[line.kind], _to_latin(_format_reference(line)))]
        rows.append((at, *cells, *_format_amounts(line.amount, statement.currency)))
    if statement.pending:
        rows.append(_format_sum_row("", PENDING, -statement.pending, statement.currency))
    until = format_day(statement.until)
    rows.append(_format_sum_row(until, statement.closing_label, statement.left, statement.currency))
    table = Table(rows, colWidths=WIDTHS, repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"),
                ("FONTNAME", (0, -1), (-1, -1), "Helvetica-Bold"),
                ("FONTSIZE", (0, 0), (-1, -1), FONT_SIZE),
                ("ALIGN", (3, 0), (-1, -1), "RIGHT"),
                ("LINEBELOW", (0, 0), (-1, 0), 0.5, colors.black),
                ("LINEABOVE", (0, -1), (-1, -1), 0.5, colors.black),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ]
        )
    )
    return table


def _format_sum_row(at: str, label: str, amount: int, currency: str) -> tuple[str, ...]:
    return at, label, "", *_format_amounts(amount, currency)


def _format_amounts(amount: int, currency: str) -> tuple[str, str]:
    """Return millicredits as credits and in their currency, both with thousands separators."""
    return format_credits(amount), f"{Decimal(format_millicredits(amount, currency)):,f}"


def _to_latin(text: str) -> str:
    """Return a text in the Western European letters that the fonts of each PDF reader have.

    Other letters lose their accents, and letters of other scripts become question marks instead of black boxes.
    """
    return "".join(letter if _is_latin(letter) else _replace_letter(letter) for letter in text)


def _replace_letter(letter: str) -> str:
    base = unicodedata.normalize("NFKD", letter)[0]
    return base if _is_latin(base) else "?"


def _is_latin(letter: str) -> bool:
    return bool(letter.encode("cp1252", "ignore"))


def _loses_letters(text: str) -> bool:
    """Return whether letters of a text become question marks."""
    return _to_latin(text).count("?") > text.count("?")


def _format_reference(line: StatementLine) -> str:
    reference = " ".join(filter(None, (line.reference, line.meter, line.model)))
    return reference if len(reference) <= REFERENCE_CHARACTERS_MAX else f"{reference[: REFERENCE_CHARACTERS_MAX - 1]}…"
