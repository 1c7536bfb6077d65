"""Plans, subscriptions and billed usage."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.change import reject_field
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.billing.models import (
    BilledUsage,
    BillingStatusResponse,
    CancelQuery,
    CreateSubscriptionRequest,
    PlanCostList,
    PlanList,
    PlanResponse,
    PlansQuery,
    PortalRequest,
    PreviewSubscriptionRequest,
    SubscriptionPreview,
    UpdateSubscriptionRequest,
    UpgradeQuery,
    list_displays,
    price_to_response,
)
from edgeproxy.collector.api.billing.plan_choice import check_choice
from edgeproxy.collector.api.cancellations import CancellationHandlers
from edgeproxy.collector.api.changes import parse_if_match
from edgeproxy.collector.api.credits.models import StripeSession
from edgeproxy.collector.api.customer_billing import (
    NO_USAGE,
    CustomerChangeQuery,
    CustomerQuery,
    build_stripe_problem,
    get_billing,
)
from edgeproxy.collector.api.endpoint import (
    ANYONE,
    API_USERS,
    BILLING,
    CREATE,
    MONEY_READERS,
    OWN,
    UPDATE,
    Call,
    Nothing,
    Query,
    delete,
    get,
    post,
    put,
)
from edgeproxy.collector.api.group import Group, PathParameter, Resources
from edgeproxy.collector.api.request_limits import RequestLimits, RequestRate
from edgeproxy.collector.api.responses import ProblemError, Result
from edgeproxy.collector.billing.credits import checkout
from edgeproxy.collector.billing.invoices.line_rows import line_to_response
from edgeproxy.collector.billing.period_close import quantities
from edgeproxy.collector.billing.period_close.trial_payments import has_payment_method
from edgeproxy.collector.billing.rating.discounts import Discount, rate_discounts
from edgeproxy.collector.billing.rating.rater import RatedLine, sum_amounts
from edgeproxy.collector.billing.reports import plan_costs
from edgeproxy.collector.billing.reports.recurring_revenue import compute_mrr
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe import billing_details
from edgeproxy.collector.billing.stripe.client import StripeCallError
from edgeproxy.collector.billing.subscriptions import (
    changes,
    coupons,
    eligibility,
    plan_versions,
    plans_on_sale,
    prepared_changes,
    subscription_response,
    subscription_rows,
    subscriptions,
)
from edgeproxy.collector.billing.subscriptions.changes import PlanChange, SubscriptionState
from edgeproxy.collector.billing.subscriptions.coupons import CouponRejectedError
from edgeproxy.collector.billing.subscriptions.prepared_changes import PlanTerms
from edgeproxy.collector.billing.subscriptions.subscription_response import (
    ChangedSubscription,
    RunningSubscription,
    Subscription,
)
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription, Subscriber, SubscriptionRow
from edgeproxy.collector.problems import account_codes, billing_codes, request_codes
from edgeproxy.config.collector.catalog import (
    Plan,
    find_newest_versions,
    get_default_currency,
    get_plan_name,
    get_plan_tier,
)

CODES = RequestRate(5, "customer")
"""Coupon codes that a customer may try per minute."""


class BillingHandlers(CancellationHandlers):
    """Handlers of plans and subscriptions."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._codes = RequestLimits()

    # ---- public

    @get(
        "/billing/plans",
        roles=ANYONE,
        errors={404: "Billing is not configured."},
        rate=RequestRate(100, "address"),
        listener_groups=API_USERS,
    )
    async def list_plans(self, call: Call[PlansQuery, Nothing]) -> PlanList:
        """List the plans that are on sale."""
        get_billing(self._settings)
        async with self._database.reading() as connection:
            plans = await self._fetch_plans_on_sale(connection)
        newest = {version: plans[version] for version in find_newest_versions(plans).values()}
        currency = call.query.currency or get_default_currency(newest)
        sold = [
            plan_to_response(version, plan.in_currency(currency))
            for version, plan in newest.items()
            if currency in plan.currencies
        ]
        codes = {code for plan in newest.values() if plan.has_prices for code in plan.currencies}
        meters = list_displays(newest.values(), self._settings.meters)
        return {"currency": currency, "currencies": sorted(codes), "plans": sold, "meters": meters}

    @get("/billing/plans/costs", roles=MONEY_READERS | OWN, errors=NO_USAGE, rate=RequestRate(100, "customer"))
    async def estimate_costs(self, call: Call[CustomerQuery, Nothing]) -> PlanCostList:
        """Estimate the cost of this period's usage under each plan on sale."""
        customer = self._get_customer(call)
        async with self._database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, customer)
            plans = await self._fetch_plans_on_sale(connection)
            currency, start = loaded.current.last.plan.currency, loaded.current.usage_start
            sold = {
                version: plans[version].in_currency(currency)
                for version in find_newest_versions(plans).values()
                if currency in plans[version].currencies
            }
            try:
                costs = await plan_costs.compute_costs(connection, loaded, sold, self._settings.meters)
            except (quantities.QuantityTooLargeError, quantities.UsageNotStoredError) as error:
                raise ProblemError(billing_codes.USAGE_NOT_PRICEABLE, str(error)) from None
        return {
            "customer": loaded.customer.name,
            "currency": currency,
            "plans": [{"version": cost.version, "total": cost.total, "meters": dict(cost.by_meter)} for cost in costs],
            "period_start": format_timestamp(start * 1000),
        }

    async def _fetch_plans_on_sale(self, connection: AsyncConnection) -> dict[str, Plan]:
        """Return the versions on sale."""
        return await plan_versions.fetch_plans_on_sale(connection, self._settings.plans, time.time())

    @get(
        "/billing/status",
        roles=ANYONE,
        errors={404: "Billing is not configured."},
        rate=RequestRate(100, "address"),
        listener_groups=API_USERS,
    )
    async def fetch_status(self, _: Call[Query, Nothing]) -> BillingStatusResponse:
        """Fetch the status of billing: whether customers can buy, and whether they are charged."""
        billing = get_billing(self._settings)
        async with self._database.reading() as connection:
            now = await charging.fetch_charging(connection, billing)
        is_charging = now.is_on and now.mode != "off"
        return {
            "mode": billing.mode,
            "purchase": billing.purchase and is_charging,
            "charging": is_charging,
            "message": now.message,
        }

    # ---- subscriptions

    @get(
        "/billing/subscription",
        roles=MONEY_READERS | OWN,
        response_headers=("ETag",),
        rate=RequestRate(100, "customer"),
    )
    async def fetch_subscription(self, call: Call[CustomerQuery, Nothing]) -> Result[RunningSubscription]:
        """Fetch the subscription of a customer, and its recurring revenue."""
        customer = self._get_customer(call)
        async with self._database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, customer)
        currency = loaded.customer.currency or loaded.current.last.plan.currency
        response: RunningSubscription = {
            **subscription_response.to_response(loaded.row, loaded.customer.name, currency),
            "mrr": compute_mrr(loaded.current, time.time()),
        }
        return Result(response, loaded.row.version)

    @post(
        "/billing/subscription",
        roles=BILLING | OWN,
        example={"plan": "standard", "coupon": "LAUNCH20"},
        status=201,
        change=CREATE,
        errors={404: "Billing is not configured, or the customer does not exist."},
    )
    async def create_subscription(
        self, call: Call[CustomerChangeQuery, CreateSubscriptionRequest]
    ) -> Result[Subscription]:
        """Create a subscription; its first fee is due at once."""
        customer, body = self._get_customer(call), call.body
        await self._check_selling(call.holder)
        self._count_code(call.holder, body.coupon)
        await self._check_trial(call.holder, customer, body.plan)

        async def make(connection: AsyncConnection) -> Result[Subscription]:
            plans = await self._fetch_plans_on_sale(connection)
            await self._check_choice(connection, call.holder, customer, body.plan, plans, None)
            with rejecting_coupons(call.holder):
                subscription, version = await subscriptions.create_subscription(
                    connection,
                    call.caller,
                    customer,
                    body.plan,
                    is_yearly=body.interval == "year",
                    settings=self._settings,
                    now=time.time(),
                    coupon=body.coupon,
                    currency=body.currency,
                    quantity=body.quantity,
                )
            return Result(subscription, version)

        return await self._change(call, make)

    @put("/billing/subscription", roles=BILLING | OWN, example={"plan": "enterprise", "when": "now"}, change=UPDATE)
    async def update_subscription(
        self, call: Call[CustomerChangeQuery, UpdateSubscriptionRequest]
    ) -> Result[ChangedSubscription]:
        """Change a subscription to another plan."""
        body = call.body
        return await self._change_plan(call, lambda *_: body.plan, body.when, get_terms(body))

    @delete("/billing/subscription", roles=BILLING | OWN, change=UPDATE)
    async def cancel_subscription(
        self, call: Call[CancelQuery, Nothing], connection: AsyncConnection
    ) -> Result[ChangedSubscription]:
        """Cancel a subscription at the end of its paid period, or now."""
        return await self._cancel(call, connection, call.query.when, None)

    @post(
        "/billing/subscription/preview",
        roles=BILLING | OWN,
        example={"plan": "standard"},
        errors={
            404: "Billing is not configured, or the customer does not exist.",
            409: "The change contradicts the subscription, or the plan is not on sale any more.",
            422: "The query names no customer, or a field is invalid.",
        },
    )
    async def preview_subscription(self, call: Call[CustomerQuery, PreviewSubscriptionRequest]) -> SubscriptionPreview:
        """Preview the cost of a change or a new subscription. Nothing is changed."""
        name = self._get_customer(call)
        body, now = call.body, time.time()
        await self._check_selling(call.holder)
        self._count_code(call.holder, body.coupon)
        await self._check_trial(call.holder, name, body.plan)
        async with self._database.reading(whole=True) as connection:
            customer = await subscription_rows.get_subscriber(connection, name)
            row = await subscription_rows.find_live(connection, customer.id)
            plans = await self._fetch_plans_on_sale(connection)
            ended = None if row is not None else await eligibility.check_may_subscribe(connection, customer, now)
            withdrawn = None
            when: changes.When = "now"
            if row is None and ended is None:
                await self._check_choice(connection, call.holder, customer.name, body.plan, plans, None)
                prepared, lines = await self._prepare_new(connection, call, customer, now)
                currency = prepared.last.plan.currency
                trial_ends_at = prepared.period.end if prepared.last.is_trial else None
                version, at = prepared.last.version, prepared.last.span.start
            else:
                if row is not None and body.coupon is not None:
                    raise ProblemError(
                        billing_codes.COUPON_NOT_NEW, "a coupon comes with a new subscription, and there is one already"
                    )
                planned, trial_ends_at = await self._prepare_change(connection, call, row, ended, plans, now)
                withdrawn = row and subscription_response.find_withdrawn(row, planned)
                version = plans_on_sale.resolve_version(body.plan, plans, customer.name)
                currency = body.currency or customer.currency or plans[version].currency
                when, at, lines = planned.when, planned.at, planned.lines
        return {
            "plan": version,
            "when": when,
            "at": format_timestamp(at * 1000),
            "due_now": sum_amounts(lines),
            "trial_ends_at": None if trial_ends_at is None else format_timestamp(trial_ends_at * 1000),
            "currency": currency,
            "lines": [line_to_response(line, currency) for line in lines],
            "withdrawn": withdrawn,
        }

    async def _prepare_change(
        self,
        connection: AsyncConnection,
        call: Call[CustomerQuery, PreviewSubscriptionRequest],
        live: SubscriptionRow | None,
        ended: SubscriptionRow | None,
        plans: Mapping[str, Plan],
        now: float,
    ) -> tuple[PlanChange, int | None]:
        """Return the effects of a change, and the end of the trial.

        The subscription is `live`, or it `ended` within its period and would resume.
        """
        body, row = call.body, live or ended
        assert row is not None
        loaded = await subscription_rows.load_subscription(connection, row)
        held = loaded.current.last.version if live is not None else None
        await self._check_choice(connection, call.holder, loaded.customer.name, body.plan, plans, held)
        terms = get_terms(body)
        if live is None:
            planned = await prepared_changes.prepare_resumption(
                connection, loaded, body.plan, terms, plans=plans, now=now
            )
            if body.coupon is not None:
                assert planned.begun is not None
                after = prepared_changes.compute_resumed_state(loaded, planned.begun)
                discount = await self._prepare_redemption(
                    connection, call, loaded.customer, after, loaded.discounts, now
                )
                planned = await prepared_changes.add_discount(connection, loaded, planned, discount)
        else:
            planned = await prepared_changes.prepare_change(
                connection, loaded, body.plan, body.when, terms, plans=plans, now=now
            )
        return planned, row.trial_ends_at

    async def _prepare_new(
        self,
        connection: AsyncConnection,
        call: Call[CustomerQuery, PreviewSubscriptionRequest],
        customer: Subscriber,
        now: float,
    ) -> tuple[SubscriptionState, list[RatedLine]]:
        """Return a subscription that would begin now, and the lines that would be charged at once."""
        body = call.body
        prepared, _ = await prepared_changes.prepare_subscription(
            connection, body.plan, customer, get_terms(body), settings=self._settings, now=now
        )
        lines = changes.compute_fees(prepared.segments, ())
        if body.coupon is not None:
            discount = await self._prepare_redemption(connection, call, customer, prepared, (), now)
            lines += rate_discounts(lines, (), prepared.segments, [discount])
        return prepared, lines

    async def _prepare_redemption(
        self,
        connection: AsyncConnection,
        call: Call[CustomerQuery, PreviewSubscriptionRequest],
        customer: Subscriber,
        current: SubscriptionState,
        before: Sequence[Discount],
        now: float,
    ) -> Discount:
        """Return the discount for the code of a preview. Raises ProblemError."""
        code, offered = call.body.coupon, get_billing(self._settings).coupons
        assert code is not None
        with rejecting_coupons(call.holder):
            return await coupons.prepare_redemption(connection, customer.id, current, before, code, offered, now)

    async def _check_choice(
        self,
        connection: AsyncConnection,
        holder: Holder,
        customer: str,
        plan: str,
        plans: Mapping[str, Plan],
        held: str | None,
    ) -> None:
        """Raise ChangeRejectedError if a customer may not choose a plan. It may keep the one that it `held`."""
        await check_choice(connection, holder, customer, plan, plans, get_billing(self._settings), held=held)

    def _count_code(self, holder: Holder, code: str | None) -> None:
        """Raise ProblemError if a customer tries too many codes."""
        if code is None or holder.customer is None:
            return
        seconds = self._codes.wait("coupons", CODES, holder.customer, time.time())
        if seconds:
            why = f"{CODES.requests} codes may be tried in a minute"
            raise ProblemError(request_codes.CALLS_EXCEEDED, why, headers={"Retry-After": str(seconds)})

    async def _check_trial(self, holder: Holder, name: str, plan: str) -> None:
        """Raise ProblemError if a customer begins a trial without the payment method that it needs. Staff may do so."""
        stripe = self._resources.stripe
        if holder.customer is None or stripe is None:
            return
        async with self._database.reading() as connection:
            plans = await self._fetch_plans_on_sale(connection)
            version = find_newest_versions(plans, name).get(plan, plan)
            trial = plans[version].trial if version in plans else None
            if trial is None or trial.card != "required":
                return
            customer = await subscription_rows.get_subscriber(connection, name)
            if not await eligibility.begins_trial(connection, customer, time.time()):
                return
        try:
            can_pay = await has_payment_method(self._database, stripe, customer.id)
        except StripeCallError as error:
            raise build_stripe_problem(error) from None
        if not can_pay:
            raise ProblemError(
                billing_codes.TRIAL_NEEDS_PAYMENT,
                "this trial needs a payment method: add one first, by POST /billing/portal",
            )

    @post("/billing/upgrade", roles=BILLING | OWN, change=UPDATE)
    async def upgrade_subscription(self, call: Call[UpgradeQuery, Nothing]) -> Result[ChangedSubscription]:
        """Upgrade a subscription at once to the plan with this tier."""

        def choose_plan(loaded: LoadedSubscription, plans: Mapping[str, Plan]) -> str:
            return plans_on_sale.get_version_of_tier(call.query.tier, plans, loaded.customer.name)

        return await self._change_plan(call, choose_plan, "now", PlanTerms())

    async def _change_plan(
        self,
        call: Call[CustomerChangeQuery, UpdateSubscriptionRequest | Nothing],
        choose_plan: Callable[[LoadedSubscription, Mapping[str, Plan]], str],
        when: changes.When | None,
        terms: PlanTerms,
    ) -> Result[ChangedSubscription]:
        customer = self._get_customer(call)
        await self._check_selling(call.holder)

        async def make(connection: AsyncConnection) -> Result[ChangedSubscription]:
            loaded = await subscription_rows.get_by_customer(connection, customer)
            plans = await self._fetch_plans_on_sale(connection)
            plan, held = choose_plan(loaded, plans), loaded.current.last.version
            await self._check_choice(connection, call.holder, loaded.customer.name, plan, plans, held)
            subscription, version = await subscriptions.change_subscription(
                connection,
                call.caller,
                customer,
                plan,
                when,
                settings=self._settings,
                now=time.time(),
                match=parse_if_match(call.request),
                currency=terms.currency,
                is_yearly=terms.is_yearly,
                quantity=terms.quantity,
            )
            return Result(subscription, version)

        return await self._change(call, make)

    # ---- usage

    @get("/billing/usage", roles=MONEY_READERS | OWN, errors=NO_USAGE, rate=RequestRate(100, "customer"))
    async def report_usage(self, call: Call[CustomerQuery, Nothing]) -> BilledUsage:
        """Report this period's usage of all meters that the plan bills or caps."""
        return await self._fetch_usage(call)

    @get(
        "/billing/usage/{meter}",
        roles=MONEY_READERS | OWN,
        errors=NO_USAGE
        | {404: "Billing is not configured, or the customer has no plan that bills or caps this meter."},
        rate=RequestRate(100, "customer"),
    )
    async def report_meter_usage(self, call: Call[CustomerQuery, Nothing]) -> BilledUsage:
        """Report the usage of a meter in this period."""
        used = await self._fetch_usage(call)
        named = [meter for meter in used["meters"] if meter["meter"] == call.path("meter")]
        if not named:
            raise ProblemError(account_codes.METER_NOT_FOUND, "the plan neither bills nor bounds this meter")
        return {**used, "meters": named}

    @get("/billing/quotas", roles=MONEY_READERS | OWN, errors=NO_USAGE, rate=RequestRate(100, "customer"))
    async def report_quotas(self, call: Call[CustomerQuery, Nothing]) -> BilledUsage:
        """Report this period's usage of the meters that the plan caps."""
        used = await self._fetch_usage(call)
        return {**used, "meters": [meter for meter in used["meters"] if meter["cap"] is not None]}

    async def _fetch_usage(self, call: Call[CustomerQuery, Nothing]) -> BilledUsage:
        """Return the plan and period of a customer, and the usage of each meter of the plan."""
        customer = self._get_customer(call)
        async with self._database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, customer)
            current = loaded.current
            last, terms = loaded.current.last, quantities.QuantityTerms(self._settings.meters, loaded.current.anchor)
            name, sharing = loaded.customer.name, current.allowance_segments  # They share the included quantities.
            try:
                by_segment = await quantities.fetch_segment_quantities(
                    connection, name, current.segments, sharing, terms
                )
                waived = await quantities.fetch_waived(connection, name, [segment.span for segment in sharing])
            except (quantities.QuantityTooLargeError, quantities.UsageNotStoredError) as error:
                raise ProblemError(billing_codes.USAGE_NOT_PRICEABLE, str(error)) from None
        used = {key: quantity for of_segment in by_segment.values() for key, quantity in of_segment.items()}
        return {
            "customer": name,
            "plan": last.version,
            "period_start": format_timestamp(sharing[0].span.start * 1000),
            "period_end": format_timestamp(last.span.end * 1000),
            "meters": quantities.plan_usage_to_response(last.plan, used, waived),
        }

    # ---- Stripe's customer portal

    @post(
        "/billing/portal",
        roles=BILLING | OWN,
        example={"return_url": "https://shop.example/account"},
        status=201,
        headers=CREATE.headers,
        errors={
            404: "Billing is not configured, or the customer does not exist.",
            409: "Billing is off, the customer is being deleted, or Stripe refuses.",
        },
    )
    async def create_portal_session(self, call: Call[CustomerQuery, PortalRequest]) -> StripeSession:
        """Create a session of Stripe's customer portal."""
        payer = await self._get_payer(self._get_customer(call))
        try:
            url = call.body.return_url
            session = await checkout.create_portal_session(self._get_stripe(), payer.stripe_id, url)
        except StripeCallError as error:
            raise build_stripe_problem(error) from None
        async with self._database.writing() as connection:
            entry = AuditEntry("billing.portal", payer.id, None, {"session": session["id"]}, payer.id)
            await audit.append_entry(connection, call.caller, entry)
            await billing_details.expire_details(connection, payer.id)  # The customer may change them at Stripe.
        return {"id": session["id"], "url": session["url"]}


@contextmanager
def rejecting_coupons(holder: Holder) -> Iterator[None]:
    """Answer for a code that cannot be redeemed.

    Customers get the same text for every reason, because codes are secrets.
    """
    try:
        yield
    except CouponRejectedError as error:
        fault = "is not a code that can be used here" if holder.customer is not None else str(error)
        raise reject_field("coupon", fault) from None


def get_terms(body: UpdateSubscriptionRequest) -> PlanTerms:
    """Return the terms of a change other than the plan."""
    is_yearly = None if body.interval is None else body.interval == "year"
    return PlanTerms(is_yearly, body.quantity, body.currency)


def plan_to_response(version: str, plan: Plan) -> PlanResponse:
    """Return a plan in the API's form."""
    return {
        "plan": get_plan_name(version),
        "name": plan.name or get_plan_name(version),
        "version": version,
        "currency": plan.currency,
        "tier": get_plan_tier(version, plan),
        "fee": plan.fee,
        "year_fee": plan.year_fee,
        "max_quantity": None if plan.quantity is None else plan.quantity.max,
        "minimum": plan.minimum,
        "threshold": plan.threshold,
        "trial": None if plan.trial is None else {"days": plan.trial.days, "card": plan.trial.card},
        "meters": {meter: price_to_response(price) for meter, price in plan.meters.items()},
        "entitlements": plan.entitlements,
    }


GROUP = Group(
    "billing",
    "Plans, subscriptions, billed usage and Stripe's customer portal.",
    BillingHandlers,
    rate=RequestRate(10, "address"),
    errors={404: "Billing is not configured, or the customer or its subscription does not exist."},
    parameters={"meter": PathParameter("The name of the meter, such as requests.")},
)
