"""Payment methods at the end of trials, as Stripe has them now."""

import sqlalchemy as sa

from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.client import Stripe, StripeCallError
from edgeproxy.collector.billing.stripe.customers import find_payment_method
from edgeproxy.collector.database.billing_tables import billing_customers, subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.collector.billing import Billing


class TrialPayments:
    """Finds the payment methods of customers whose trial is over."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe

    async def can_pay(self, number: str, billing: Billing) -> bool:
        """Return whether the customer of a subscription, by id, has a payment method or is not charged.

        Raises StripeCallError.
        """
        joined = subscriptions.join(customers, customers.c.id == subscriptions.c.customer)
        statement = sa.select(customers.c.id, customers.c.name).select_from(joined)
        async with self._database.reading() as connection:
            customer = (await connection.execute(statement.where(subscriptions.c.id == number))).one()
            if not (await charging.fetch_charging(connection, billing)).bills(customer.name):
                return True
        return await has_payment_method(self._database, self._stripe, customer.id)


async def has_payment_method(database: Database, stripe: Stripe, customer: str) -> bool:
    """Return whether a customer, by id, has a payment method for invoices at Stripe. Raises StripeCallError."""
    statement = sa.select(billing_customers.c.stripe_id).where(billing_customers.c.customer == customer)
    async with database.reading() as connection:
        stripe_id = await connection.scalar(statement)
    if stripe_id is None:
        return False
    try:
        return find_payment_method(await stripe.call("v1.customers.retrieve", stripe_id)) is not None
    except StripeCallError as error:
        if error.code == "resource_missing":
            return False
        raise
