"""Invoices and credit notes as PDF. The same document gives the same bytes."""

from stripe_sandbox.documents import Document
from stripe_sandbox.text_pdf import Align, TextPdf

COLUMNS: tuple[tuple[float, Align], ...] = ((85, "L"), (20, "R"), (35, "R"), (30, "R"))
HEADINGS = ("Description", "Quantity", "Unit price", "Amount")


def render_pdf(document: Document) -> bytes:
    """Return a document as PDF, on as many pages as its lines take."""
    texts = (*document.recipient, *(line.description for line in document.lines), *document.notes)
    pdf = TextPdf(document.title, texts)
    for name, value in document.facts:
        if value:
            pdf.write_paragraph(f"{name}: {value}")
    pdf.ln(4)
    pdf.write_paragraph("Bill to", bold=True)
    for part in document.recipient:
        pdf.write_paragraph(part)
    pdf.ln(6)
    pdf.start_table(HEADINGS, COLUMNS)
    for line in document.lines:
        pdf.write_row(line)
    pdf.draw_rule()
    for name, amount in document.sums:
        pdf.write_row(("", "", name, amount))
    pdf.ln(6)
    for note in document.notes:
        pdf.write_paragraph(note)
    pdf.write_paragraph("Of the Stripe sandbox: no money has moved.")
    return bytes(pdf.output())
