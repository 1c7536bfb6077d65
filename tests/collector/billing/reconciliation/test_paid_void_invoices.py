"""A bank pays a void invoice: the money belongs to no invoice until a person refunds it at Stripe."""

import asyncio

import pytest

from tests.collector.billing.reconciliation.test_payments import Company, play
from tests.support.stripe_sandbox import Sandbox

DAY = 86400


@pytest.mark.parametrize("refunds", [(5000,), (1200, 3800)])
def test_void_during_a_debit_is_a_difference_until_the_money_went_back(
    own_sandbox: Sandbox, database: str, refunds: tuple[int, ...]
) -> None:
    async def work(company: Company) -> None:
        invoice = await company.invoice(5000, "pm_usBankAccount_success")
        intent = await company.find_intent(invoice)
        await company.call("v1.invoices.void_invoice", invoice)
        await company.refresh(invoice)
        assert await company.fetch_accounts() == {}
        assert await company.compare() == [], "the bank has not paid yet"
        await asyncio.to_thread(own_sandbox.advance, 4 * DAY + 60)
        await company.refresh(invoice)
        assert [row[1:] for row in await company.compare()] == [("invoice", 0, 5000)]
        accounts = await company.fetch_accounts()
        assert accounts.pop("clearing") == -5000
        assert set(accounts) == {"cash", "fees"}, "nothing is earned"
        for amount in refunds:
            await company.call("v1.refunds.create", payment_intent=intent, amount=amount)
        assert await company.compare() == []
        assert set(await company.fetch_accounts()) <= {"cash", "fees"}

    play(database, own_sandbox, work)
