"""Statements as PDF. Equal statements give equal bytes."""

from decimal import Decimal

from edgeproxy.collector.billing.credits.statements import (
    PENDING,
    Statement,
    StatementLine,
    format_credits,
    format_day,
)
from edgeproxy.collector.billing.credits.text_pdf import Align, TextPdf
from edgeproxy.collector.billing.journal.postings import CREDIT
from edgeproxy.collector.languages.billing_words import CREDIT_KINDS
from edgeproxy.config.collector.currency_units import format_millicredits, format_millicredits_with_code

COLUMNS: tuple[tuple[float, Align], ...] = ((22, "L"), (38, "L"), (38, "L"), (36, "R"), (36, "R"))
"""The widths and alignments of the columns. An amount of a thousand million with all of its decimal places fits."""
HEADINGS = ("Date", "What", "Reference", "Credits")
"""The column headings. The last column, the amount, is headed by its currency."""
REFERENCE_CHARACTERS_MAX = 60
LOST_LETTERS = (
    "A question mark stands for a letter that this document cannot show. The same statement as CSV has all letters."
)


def render_pdf(statement: Statement) -> bytes:
    """Return a statement as PDF."""
    document = TextPdf(f"Statement {statement.month}", [statement.customer, *map(_format_reference, statement.lines)])
    document.set_subject(statement.customer)
    # A paragraph of its own has the direction of its script.
    document.write_paragraph("Customer", bold=True)
    document.write_paragraph(statement.customer)
    worth = format_millicredits_with_code(1000 * CREDIT, statement.currency)
    document.write_paragraph(f"1,000 credits are {worth}. Days are of UTC.")
    if document.loses_letters:
        document.write_paragraph(LOST_LETTERS)
    document.ln(6)
    _write_table(document, statement)
    return bytes(document.output())


def _write_table(document: TextPdf, statement: Statement) -> None:
    """Write the lines of a statement, on as many pages as necessary."""
    currency = statement.currency
    document.start_table((*HEADINGS, currency.upper()), COLUMNS)
    begin = format_day(statement.month.begin)
    document.write_row((begin, "Opening balance", "", *_format_amounts(statement.opening, currency)))
    for line in statement.lines:
        at = "" if line.at is None else format_day(line.at)
        amounts = _format_amounts(line.amount, currency)
        document.write_row((at, CREDIT_KINDS[line.kind], _format_reference(line), *amounts))
    if statement.pending:
        document.write_row(("", PENDING, "", *_format_amounts(-statement.pending, currency)))
    document.draw_rule()
    closing = (format_day(statement.until), statement.closing_label, "", *_format_amounts(statement.left, currency))
    document.write_row(closing, bold=True)


def _format_amounts(amount: int, currency: str) -> tuple[str, str]:
    """Return millicredits as credits and in their currency, both with thousands separators."""
    return format_credits(amount), f"{Decimal(format_millicredits(amount, currency)):,f}"


def _format_reference(line: StatementLine) -> str:
    reference = " ".join(filter(None, (line.reference, line.meter, line.model)))
    return reference if len(reference) <= REFERENCE_CHARACTERS_MAX else f"{reference[: REFERENCE_CHARACTERS_MAX - 1]}…"
