"""The PDF of an invoice at Stripe: seller, buyer, tax numbers, due date, lines in words, and what the customer does."""

import io
import time
import urllib.request
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa
from pypdf import PdfReader

from edgeproxy.collector.billing.period_close.collection.invoice_items import DAYS_UNTIL_DUE
from edgeproxy.collector.database.schema import DAY, customers
from tests.support.invoiced import JANUARY, at_stripe, enter_card
from tests.support.sold import sold
from tests.support.stripe_sandbox import Sandbox

SELLER = {"name": "Example API Ltd", "address": ["1 Sample Street", "Dublin"], "tax_number": "IE1234567T"}


def read_pdf(invoice: dict[str, Any]) -> str:
    with urllib.request.urlopen(invoice["invoice_pdf"], timeout=10) as answer:
        return " ".join(PdfReader(io.BytesIO(answer.read())).pages[0].extract_text().split())


async def test_invoice_document_has_parties_due_date_words_and_what_to_do(
    tmp_path: Path, sqlite_database: str, own_sandbox: Sandbox
) -> None:
    async with sold(tmp_path, sqlite_database, own_sandbox.url, seller=SELLER) as (shop, closing):
        for name in ("zephyr", "payer"):
            await shop.customer(name, "standard", now=JANUARY)
        async with shop.database.writing() as connection:
            written = orjson.dumps({"name": "Zephyr GmbH & Co"}).decode()
            is_own = customers.c.name == "zephyr"
            await connection.execute(sa.update(customers).where(is_own).values(metadata=written))
        payer = await enter_card(shop, "payer")
        vat = "type=eu_vat&value=NL123456789B01"
        assert own_sandbox.call("POST", f"/v1/customers/{payer}/tax_ids", vat).status == 200
        await closing.step(JANUARY + 5)
    sent, charged = (read_pdf(at_stripe(own_sandbox, name)[0]) for name in ("Zephyr GmbH & Co", "payer"))
    for text, days in ((sent, DAYS_UNTIL_DUE), (charged, 0)):
        due = time.strftime("%Y", time.gmtime(time.time() + days * DAY))
        for part in (
            "Example API Ltd",
            "1 Sample Street",
            "Tax number: IE1234567T",
            "Standard, 2027-01-01 to 2027-02-01",
        ):
            assert part in text, (part, text)
        assert f", {due}" in text.partition("Date due: ")[2][:20], text
        assert "First fee of a plan, 2027-01-01 to 2027-02-01." in text
        assert ", start" not in text, "our name of this kind"
    assert "Bill to Zephyr GmbH & Co" in sent, "the name as it was written"
    assert "NL123456789B01" in charged, "the buyer's tax number"
    assert "Please pay by the due date." in sent
    assert "The stored payment method is charged. Unless that fails, there is nothing to do." in charged
