"""Commands that compare Stripe's balance with the journal, with or without a running collector.

Each returns an exit code and a text, as the commands of database.py do.
"""

import time

from edgeproxy.collector.billing.mismatch import find_currency, get_advice
from edgeproxy.collector.billing.rating.money import format_amount
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.reconciliation import payments
from edgeproxy.collector.billing.reconciliation.payments import Repair
from edgeproxy.collector.billing.stripe.client import Stripe, StripeCallError, StripeConfigurationError
from edgeproxy.collector.commands.database import CommandError, CommandResult, run_on_database
from edgeproxy.collector.database.database import Database
from edgeproxy.config.collector.settings import CollectorSettings


def reconcile_payments(settings: CollectorSettings, since: float, *, is_repair: bool) -> CommandResult:
    """Compare Stripe's balance with the journal since a Unix second, and optionally repair the journal."""
    billing = settings.billing
    if billing is None:
        return 1, "nothing is sold: write billing"

    async def reconcile(database: Database) -> str:
        now = time.time()
        if since >= now:
            raise CommandError("that is yet to come")
        span = Span(int(since), int(now) + 1)
        try:
            stripe = Stripe(billing.stripe)
        except StripeConfigurationError as error:
            raise CommandError(str(error)) from None
        try:
            if is_repair:
                result = await payments.repair_span(database, stripe, span, now)
            else:
                result = Repair(await payments.compare_span(database, stripe, span, now, is_booking=False), [])
        except StripeCallError as error:
            raise CommandError(f"Stripe does not answer: {error}") from None
        finally:
            await stripe.close()
        return _format_result(result, is_repair=is_repair)

    return run_on_database(settings, reconcile)


def _format_result(result: Repair, *, is_repair: bool) -> str:
    """Return a line for each difference. Raises CommandError if there are any."""
    lines = [f"cannot be applied: {failure}" for failure in result.failures]
    for row in result.rows:
        if row.difference:
            ours, theirs = (format_amount(amount, find_currency(row.meter)) for amount in (row.ours, row.theirs))
            books = f"the journal {ours}, Stripe {theirs}"
            lines.append(f"{row.customer or 'all'} {row.meter}: {books}; {get_advice('D', row)}")
    if not lines:
        of_balance = [row for row in result.rows if not row.customer]
        changes = ", ".join(format_amount(row.ours, find_currency(row.meter)) for row in of_balance)
        return f"the journal has what Stripe has: the balance changed by {changes}"
    if not is_repair:
        lines.append("nothing was changed: --repair applies what Stripe has")
    raise CommandError("\n".join(lines))
