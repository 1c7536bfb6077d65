"""A statement's opening and lines add up to its closing. The CSV and the PDF have equal contents."""

import csv
import io
import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from fpdf import FPDF
from pypdf import PdfReader

from edgeproxy.collector.billing.credits import credits, statement_pdf, statements, text_pdf
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.credits.paid_usage import KINDS, PaidUsage, list_paid_usage
from edgeproxy.collector.billing.credits.statements import (
    CalendarMonth,
    Statement,
    StatementLine,
    format_credits,
    month_of,
    parse_month,
    render_csv,
)
from edgeproxy.collector.billing.journal import journal, postings
from edgeproxy.collector.billing.journal.journal import Posting
from edgeproxy.collector.billing.journal.postings import CENT, ConsumptionPart
from edgeproxy.collector.database.database import Database
from edgeproxy.config.collector.currency_units import format_millicredits
from tests.support.credited import ALICE, read, run, write

ACME = "id-acme"


class Calendar:
    """When all is booked."""

    ms = 0

    def at(self, *when: int) -> None:
        self.ms = int(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type]


@pytest.fixture
def calendar(monkeypatch: pytest.MonkeyPatch) -> Calendar:
    made = Calendar()
    monkeypatch.setattr(journal, "now_ms", lambda: made.ms)
    return made


async def use(connection: Any, source: str, *used: ConsumptionPart) -> None:
    async with journal.open_journal(connection) as books:
        entries = postings.consumption_entries(await books.fetch_credit_balance(ACME), used)
        books.book(Posting(ACME, "consumption", source, entries, slice=0))


async def list_by_pages(database: Database, month: CalendarMonth) -> list[PaidUsage]:
    """Paid usage of a month, asked for one booking after another."""
    usage: list[PaidUsage] = []
    while page := await read(
        database, partial(list_paid_usage, limit=1, after=usage[-1].seq if usage else 0), ACME, month
    ):
        usage += page
    return usage


@pytest.mark.both_databases
def test_opening_and_lines_come_to_the_closing_in_every_month(database: str, calendar: Calendar) -> None:
    async def work(opened: Database) -> None:
        assert await read(opened, statements.list_months, ACME) == []
        calendar.at(2026, 11, 30, 23, 59, 59)
        await write(opened, credits.book_purchase, ACME, Payment("cs_1", "pi_1", 1000 * CENT, 190 * CENT))
        await write(opened, use, "u0", ConsumptionPart("cost", "small", 1))
        calendar.at(2026, 12, 1)
        await write(opened, use, "u1", ConsumptionPart("cost", "small", 5), ConsumptionPart("cost", "-g", 70))
        await write(opened, use, "u2", ConsumptionPart("cost", "small", 600))
        await write(opened, credits.book_gift, ALICE, ACME, "=g", 1234, "sorry", calendar.ms + 1)
        await write(opened, credits.book_usage_refund, ALICE, "u2", "back", 500, "wrong")
        await write(opened, credits.hold_refund, ALICE, "cs_1", "r1", 300 * CENT, "asked")
        await write(opened, credits.settle_refund, "r1", paid=False, refund="re_1")
        await write(opened, credits.book_chargeback, "pi_1", "dp_1", 119 * CENT)
        await write(opened, credits.book_chargeback_won, "pi_1", "dp_1", 119 * CENT)
        await write(opened, credits.book_withdrawal, ALICE, ACME, "w1", 34, "too much")
        calendar.at(2027, 2, 1)
        async with opened.writing() as connection, journal.open_journal(connection) as books:
            await credits.expire_grants(books, calendar.ms)
        months = await read(opened, statements.list_months, ACME)
        assert months == [
            CalendarMonth(2027, 2),
            CalendarMonth(2027, 1),
            CalendarMonth(2026, 12),
            CalendarMonth(2026, 11),
        ]
        before, intents = 0, set()
        for month in reversed(months):
            created = await read(opened, statements.fetch_statement, ACME, month, calendar.ms)
            assert created.opening == before
            assert created.opening + sum(line.amount for line in created.lines) == created.closing
            rows = list(csv.reader(io.StringIO(render_csv(created))))[1:]
            assert int(rows[0][5]) + sum(int(row[5]) for row in rows[1:-1]) == int(rows[-1][5]) == created.closing
            before = created.closing
            spent = await list_by_pages(opened, month)
            assert -sum(one.amount for one in spent) == sum(line.amount for line in created.lines if line.kind in KINDS)
            paid = await read(opened, partial(list_paid_usage, limit=1000, purchase="cs_1"), ACME, month)
            assert paid == [one for one in spent if one.purchase == "cs_1"]
            intents |= {(one.purchase, one.payment_intent) for one in spent}
        assert intents >= {("cs_1", "pi_1")}
        assert before == await read(opened, journal.fetch_balance, ACME)
        assert (await read(opened, statements.fetch_statement, ACME, CalendarMonth(2027, 3), calendar.ms)).lines == []
        december = await read(opened, statements.fetch_statement, ACME, CalendarMonth(2026, 12), calendar.ms)
        used = [line for line in december.lines if line.kind == "consumption"]
        assert used == [
            StatementLine(None, "consumption", "", "cost", "-g", -70),
            StatementLine(None, "consumption", "", "cost", "small", -605),
        ]
        assert all(f",'{sign}g," in render_csv(december) for sign in "=-"), "no formula for a spreadsheet"
        pdf = statement_pdf.render_pdf(december)
        assert pdf == statement_pdf.render_pdf(december)
        text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
        for statement in (
            "Statement 2026-12",
            f"Customer\n{ACME}",
            format_credits(december.closing),
            format_millicredits(december.opening),
        ):
            assert statement in text
        for line in december.lines:
            assert format_credits(line.amount) in text

        running = await read(opened, statements.fetch_statement, ACME, CalendarMonth(2027, 2), calendar.ms + 86_400_000)
        assert (december.is_final, running.is_final) == (True, False)
        last = [list(csv.reader(io.StringIO(render_csv(made))))[-1] for made in (december, running)]
        assert [row[:2] for row in last] == [["2026-12-31", "Closing balance"], ["2027-02-02", "Balance so far"]]

    run(database, work, "acme")


def test_a_long_statement_has_pages_and_long_references_room() -> None:
    lines = [StatementLine(0, "gift", f"<b>&{number}" + "x" * (number % 90), "", "", number) for number in range(200)]
    statement = Statement("acme", CalendarMonth(2027, 12), 0, lines, sum(line.amount for line in lines), 0)
    pages = PdfReader(io.BytesIO(statement_pdf.render_pdf(statement))).pages
    assert len(pages) > 3
    text = pages[0].extract_text()
    assert ("<b>&7" in text, "question mark" in text) == (True, False)


@pytest.mark.parametrize("currency", ["usd", "jpy", "kwd"])
def test_pdf_has_room_for_odd_amounts_and_long_names(currency: str) -> None:
    amounts = [0, -4, 10**15, 1 - 10**15]
    lines = [StatementLine(0, "expiry_reversed", "Zażóć", "", "", amount) for amount in amounts]
    statement = Statement("شركة" * 100, CalendarMonth(2027, 12), 0, lines, sum(amounts), 0, currency=currency)
    (page,) = PdfReader(io.BytesIO(statement_pdf.render_pdf(statement))).pages
    places: dict[str, float] = {}
    page.extract_text(visitor_text=lambda text, cm, tm, *_: places.update({text.strip(): cm[4] + tm[4]}))
    assert page.extract_text().count("ش") == 100
    ruler = FPDF(unit="pt")
    ruler.set_font("Helvetica", size=text_pdf.FONT_SIZE)
    for amount in amounts[1:]:
        credits_, money = format_credits(amount), f"{Decimal(format_millicredits(amount, currency)):,f}"
        assert places[money] > places[credits_] + ruler.get_string_width(credits_), places


@pytest.mark.parametrize(
    "name",
    [
        "Größe & Søn – Café ‘Zoë’ €5",
        "Zażóć gęślą jaźń",
        "Ελληνικά Кириллица Việt",
        "شركة النور للتجارة",
        "שלום עולם",
        "株式会社東京",
        "广州有限公司",
        "한국어 회사",
        "नमस्ते भारत",
        "บริษัท ไทย",
        "Smile 😀",
    ],
)
def test_pdf_has_the_letters_of_many_scripts(name: str) -> None:
    statement = Statement(name, CalendarMonth(2027, 12), 0, [StatementLine(0, "gift", name, "", "", 1)], 1, 0)
    pdf = statement_pdf.render_pdf(statement)
    text = PdfReader(io.BytesIO(pdf)).pages[0].extract_text()
    assert " ".join(text.split()).count(name) == 2, text
    assert "question mark" not in text
    assert pdf == statement_pdf.render_pdf(statement)
    assert len(pdf) < 20_000, "no whole font"


@pytest.mark.parametrize(("name", "forms"), [("ببب", 3), ("ששש", 1)], ids=["arabic", "hebrew"])
def test_arabic_letters_in_a_pdf_join(name: str, forms: int) -> None:
    document = text_pdf.TextPdf("Title", [name])
    document.write_paragraph(name)
    (page,) = PdfReader(io.BytesIO(document.output())).pages
    contents = page.get_contents()
    assert contents is not None
    glyphs = re.findall(rb"\((\x00.)\) Tj", contents.get_data())
    assert (len(glyphs), len(set(glyphs))) == (3, forms)


def test_letters_without_a_font_are_question_marks_and_a_sentence_says_so() -> None:
    statement = Statement("ሰላም Łódź 🚀", CalendarMonth(2027, 12), 0, [], 0, 0)
    text = PdfReader(io.BytesIO(statement_pdf.render_pdf(statement))).pages[0].extract_text()
    assert ("??? Łódź ?" in text, statement_pdf.LOST_LETTERS in text) == (True, True), text


@pytest.mark.parametrize(
    ("amount", "credits_", "usd"),
    [
        (0, "0", "0.00"),
        (1, "0.001", "0.000001"),
        (-1500, "-1.5", "-0.0015"),
        (1_234_567_890, "1,234,567.89", "1234.56789"),
        (-2_000_000, "-2,000", "-2.00"),
    ],
)
def test_amounts_as_people_read_them(amount: int, credits_: str, usd: str) -> None:
    assert (format_credits(amount), format_millicredits(amount)) == (credits_, usd)


@pytest.mark.parametrize(
    "text", ["2027-13", "2027-00", "2027-1", "202-011", "1999-01", "3000-01", "2027", "٢٠٢٧-01", ""]
)
def test_invalid_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no month"):
        parse_month(text)


def test_months_follow_each_other() -> None:
    december = parse_month("2027-12")
    assert (str(december), str(december.following)) == ("2027-12", "2028-01")
    assert month_of(december.end - 1) == december
    assert month_of(december.end) == december.following


def test_files_of_the_running_month_end_with_the_credits_left() -> None:
    month = CalendarMonth(2027, 12)
    running = Statement("acme", month, 20_000, [], 20_000, month.begin + 1, pending=4)
    rows = list(csv.DictReader(io.StringIO(render_csv(running))))
    assert [(row["what"], row["millicredits"], row["usd"]) for row in rows] == [
        ("Opening balance", "20000", "0.02"),
        ("Used and not booked yet", "-4", "-0.000004"),
        ("Balance so far", "19996", "0.019996"),
    ]
    text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(statement_pdf.render_pdf(running))).pages)
    assert all(amount in text for amount in ("-0.004", "-0.000004", "19.996", "0.019996")), text
