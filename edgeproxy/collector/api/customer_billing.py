"""The common part of billing handlers: the customer of a request, and whether anything is sold."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple

from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.changes import ChangeHandlers
from edgeproxy.collector.api.endpoint import AnyCall, Query
from edgeproxy.collector.api.field_types import ChangeQuery, Printed
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError
from edgeproxy.collector.billing.stripe.customers import StripeCustomers
from edgeproxy.collector.problems import account_codes, billing_codes, request_codes
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.settings import CollectorSettings

SOLD_LATER: Final = {"Retry-After": "60"}
STRIPE_LATER: Final = {"Retry-After": "10"}


NO_USAGE: Final = {422: "The query names no customer, or the usage of the period is not stored any more."}
"""The error of endpoints that read the usage of a customer's period."""


class AnyCustomerQuery(Query):
    """The customer whose billing is read. Without one, staff read the billing of all."""

    customer: Printed | None = None
    """The customer, by id or name. A customer's own token need not name it."""


class CustomerQuery(AnyCustomerQuery):
    """The customer whose billing is read."""

    errors: ClassVar[Mapping[int, str]] = MappingProxyType({422: "The query names no customer."})


class CustomerChangeQuery(ChangeQuery):
    """The customer whose billing is changed, and options of the change."""

    errors = CustomerQuery.errors

    customer: Printed | None = None
    """The customer, by id or name. A customer's own token need not name it."""


def get_billing(settings: CollectorSettings) -> Billing:
    """Return the configuration of billing. Raises ProblemError if there is none."""
    if settings.billing is None:
        raise ProblemError(
            request_codes.NOT_CONFIGURED, "nothing is sold here: there is no billing in the collector's file"
        )
    return settings.billing


class Payer(NamedTuple):
    """A customer that may pay at Stripe."""

    id: str
    is_business: bool
    stripe_id: str


class CustomerBillingHandlers(ChangeHandlers):
    """Handlers of the billing of a customer."""

    def check(self, call: AnyCall) -> None:
        """Raise an error if the query has to name a customer, and does not name one that the caller may name."""
        if isinstance(call.query, CustomerQuery | CustomerChangeQuery):
            self._get_customer(call)

    async def _check_selling(self, holder: Holder) -> None:
        """Raise ProblemError while nothing can be bought.

        With `mode: off` customers cannot buy, because they would not be charged. While charging is stopped all
        purchases are refused, because buyers are charged.
        """
        billing = get_billing(self._settings)
        if billing.mode == "off" and holder.customer is not None:
            raise ProblemError(
                billing_codes.BILLING_OFF,
                "nothing is sold here while nobody is charged: ask those who run this for a plan",
            )
        async with self._database.reading() as connection:
            now = await charging.fetch_charging(connection, billing)
        if not now.is_on and now.mode != "off":
            message = now.message or charging.NO_CHARGE
            raise ProblemError(
                billing_codes.SELLING_STOPPED,
                f"{message} {charging.NO_PURCHASE}",
                params={"message": "" if message == charging.NO_CHARGE else message},
                headers=SOLD_LATER,
            )
        if not billing.purchase:
            raise ProblemError(
                billing_codes.SELLING_STOPPED,
                "nothing can be bought at the moment",
                params={"message": ""},
                headers=SOLD_LATER,
            )

    def _get_customer(self, call: AnyCall) -> str:
        """Return the customer of a call's query, by name or id. Raises ProblemError and DeniedError."""
        get_billing(self._settings)
        assert isinstance(call.query, CustomerQuery | CustomerChangeQuery)
        name = auth.customer_of(call.holder, call.query.customer)
        if name is None:
            raise ProblemError(account_codes.CUSTOMER_MISSING, "name the customer: ?customer=NAME")
        return name

    def _get_stripe(self) -> Stripe:
        """Return the Stripe client. Raises ProblemError if there is none."""
        if self._resources.stripe is None:
            raise ProblemError(
                billing_codes.BILLING_OFF,
                "nothing can be bought or refunded: billing has mode: off in the collector's file",
            )
        return self._resources.stripe

    async def _get_payer(self, customer: str) -> Payer:
        """Return a customer with its Stripe id, creating it at Stripe if necessary. Raises ProblemError."""
        stripe = self._get_stripe()
        async with self._database.reading() as connection:
            row = await customers.get_row(connection, customer)
        if row.deleting_since is not None:
            raise ProblemError(account_codes.CUSTOMER_DELETING, "the customer is being deleted")
        try:
            stripe_id = await StripeCustomers(self._database, stripe).get_or_create_now(row.id, row.name)
        except StripeCallError as error:
            raise build_stripe_problem(error) from None
        return Payer(row.id, customers.is_business(row), stripe_id)

    async def _record(self, call: AnyCall, entry: AuditEntry) -> None:
        """Record the person who will get a page of Stripe's."""
        async with self._database.writing() as connection:
            await audit.append_entry(connection, call.caller, entry)


def build_stripe_problem(failure: StripeCallError) -> ProblemError:
    """Return the problem document for a call that Stripe refused or did not answer."""
    if failure.outcome is CallOutcome.REFUSED:
        return ProblemError(billing_codes.STRIPE_REFUSED, f"Stripe refuses: {failure.message}")
    return ProblemError(billing_codes.STRIPE_UNAVAILABLE, "Stripe cannot be reached now", headers=STRIPE_LATER)
