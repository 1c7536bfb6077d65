"""Statements as PDF. The same statement is the same bytes each time."""

import io
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import PropertySet, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from edgeproxy.collector.billing.credits.statements import TEXTS, Statement, credits_of, day, usd_of

MARGIN = 20 * mm
WIDTHS = tuple(part * mm for part in (24, 46, 50, 25, 25))
HEADINGS = ("Date", "What", "Reference", "Credits", "USD")
REFERENCE_CHARACTERS_MAX = 60


def pdf_of(made: Statement) -> bytes:
    """A statement as PDF."""
    out = io.BytesIO()
    title = f"Statement {made.month}"
    document = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=title,
        subject=made.customer,
        invariant=1,
    )
    styles = getSampleStyleSheet()
    about = f"Customer {escape(made.customer)}. 1,000 credits are 1 US dollar. Days are of UTC."
    story: list[Flowable] = [
        Paragraph(title, styles["Title"]),
        Paragraph(about, styles["Normal"]),
        Spacer(0, 6 * mm),
        _table(made, styles["Normal"]),
    ]
    document.build(story)
    return out.getvalue()


def _table(made: Statement, style: PropertySet) -> Table:
    """The lines of a statement, on as many pages as it takes."""
    rows: list[tuple[object, ...]] = [HEADINGS, _sum_row(day(made.month.begin), "Opening balance", made.opening)]
    for line in made.lines:
        reference = " ".join(filter(None, (line.reference, line.meter, line.model)))
        at = "" if line.at is None else day(line.at)
        told = Paragraph(escape(_shortened(reference)), style)
        rows.append((at, TEXTS[line.kind], told, credits_of(line.amount), usd_of(line.amount)))
    rows.append(_sum_row(day(made.month.end - 1), "Closing balance", made.closing))
    table = Table(rows, colWidths=WIDTHS, repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"),
                ("FONTNAME", (0, -1), (-1, -1), "Helvetica-Bold"),
                ("FONTSIZE", (0, 0), (-1, -1), 9),
                ("ALIGN", (3, 0), (-1, -1), "RIGHT"),
                ("LINEBELOW", (0, 0), (-1, 0), 0.5, colors.black),
                ("LINEABOVE", (0, -1), (-1, -1), 0.5, colors.black),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ]
        )
    )
    return table


def _sum_row(at: str, what: str, amount: int) -> tuple[str, ...]:
    return at, what, "", credits_of(amount), usd_of(amount)


def _shortened(reference: str) -> str:
    return reference if len(reference) <= REFERENCE_CHARACTERS_MAX else f"{reference[: REFERENCE_CHARACTERS_MAX - 1]}…"
