"""Invoices and credit notes as PDF. The same document gives the same bytes."""

import io
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from stripe_sandbox.documents import Document

MARGIN = 20 * mm
WIDTHS = tuple(part * mm for part in (90, 20, 30, 30))
HEADINGS = ("Description", "Quantity", "Unit price", "Amount")


def render_pdf(document: Document) -> bytes:
    """Return a document as PDF, on as many pages as its lines take."""
    out = io.BytesIO()
    template = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=document.title,
        invariant=1,
    )
    styles = getSampleStyleSheet()
    normal = styles["Normal"]
    story: list[Flowable] = [Paragraph(escape(document.title), styles["Title"])]
    story += [Paragraph(f"<b>{name}</b> {escape(value)}", normal) for name, value in document.facts if value]
    story += [Spacer(0, 4 * mm), Paragraph("<b>Bill to</b>", normal)]
    story += [Paragraph(escape(part), normal) for part in document.recipient]
    rows: list[tuple[object, ...]] = [HEADINGS]
    rows += [(Paragraph(escape(line.description), normal), *line[1:]) for line in document.lines]
    rows += [("", "", Paragraph(escape(name), normal), amount) for name, amount in document.sums]
    table = Table(rows, colWidths=WIDTHS, repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"),
                ("ALIGN", (1, 0), (1, -1), "RIGHT"),
                ("ALIGN", (3, 0), (3, -1), "RIGHT"),
                ("LINEBELOW", (0, 0), (-1, 0), 0.5, colors.black),
                ("LINEABOVE", (0, len(document.lines) + 1), (-1, len(document.lines) + 1), 0.5, colors.black),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ]
        )
    )
    story += [Spacer(0, 6 * mm), table, Spacer(0, 6 * mm)]
    story += [Paragraph(escape(note), normal) for note in document.notes]
    story.append(Paragraph("Of the Stripe sandbox: no money has moved.", styles["Italic"]))
    template.build(story)
    return out.getvalue()
