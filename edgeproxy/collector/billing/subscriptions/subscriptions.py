"""Subscriptions.

Each change is one transaction with its segments, the customer's tier, its invoice and its audit entry.

`changes.py` decides the effect of a change.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import compute_difference, require_version
from edgeproxy.collector.accounts.ids import generate_id, now_ms
from edgeproxy.collector.accounts.models import UpdateCustomerRequest
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.discounts import Discount, rate_discounts
from edgeproxy.collector.billing.rating.rater import Segment, Span
from edgeproxy.collector.billing.subscriptions import (
    cancellations,
    changes,
    coupons,
    customer_currency,
    eligibility,
    entitlements,
    plan_versions,
    plans_on_sale,
    prepared_changes,
    subscription_rows,
    unpaid_plans,
)
from edgeproxy.collector.billing.subscriptions.cancellations import Feedback
from edgeproxy.collector.billing.subscriptions.changes import PlanChange, SubscriptionState, When
from edgeproxy.collector.billing.subscriptions.prepared_changes import PlanTerms
from edgeproxy.collector.billing.subscriptions.subscription_response import (
    ChangedSubscription,
    Subscription,
    find_withdrawn,
    to_response,
)
from edgeproxy.collector.billing.subscriptions.subscription_rows import (
    ACTIVE,
    TRIALING,
    LoadedSubscription,
    Subscriber,
    SubscriptionRow,
    get_subscriber,
)
from edgeproxy.collector.database.billing_tables import CANCELED
from edgeproxy.config.collector.catalog import Plan, get_plan_tier
from edgeproxy.config.collector.settings import CollectorSettings

NOTHING_PLANNED: Mapping[str, object] = dict.fromkeys(("next_version", "next_is_yearly", "next_quantity"))
"""The columns of a subscription without a pending change."""
RUNNER = Caller("billing")
"""The caller in the audit log for changes at the end of a period."""


async def create_subscription(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    plan: str,
    *,
    is_yearly: bool,
    settings: CollectorSettings,
    now: float,
    coupon: str | None = None,
    currency: str | None = None,
    quantity: int = 1,
) -> tuple[Subscription, int]:
    """Create a subscription that begins now, or resume one that ended within its period.

    It has the plan's trial if the customer has had none, a coupon if its code is given, and the currency if none was
    chosen yet. Raises ChangeRejectedError and CouponRejectedError.
    """
    # If two requests come at once, the second waits for this lock and then finds the subscription of the first.
    customer = await get_subscriber(connection, ref, lock=True)
    terms = PlanTerms(is_yearly, quantity, currency)
    ended = await eligibility.check_may_subscribe(connection, customer, now)
    if ended is not None:
        loaded = await subscription_rows.get_by_id(connection, ended.id)
        return await _resume_subscription(
            connection, caller, loaded, plan, terms, settings=settings, now=now, coupon=coupon
        )
    current, base = await prepared_changes.prepare_subscription(
        connection, plan, customer, terms, settings=settings, now=now
    )
    if currency is not None:
        customer = await customer_currency.fix_currency(connection, caller, customer, currency, before=base)
    response = await begin_prepared(connection, caller, customer, current, settings=settings, now=now, coupon=coupon)
    return response, 1


async def _resume_subscription(
    connection: AsyncConnection,
    caller: Caller,
    loaded: LoadedSubscription,
    plan: str,
    terms: PlanTerms,
    *,
    settings: CollectorSettings,
    now: float,
    coupon: str | None,
) -> tuple[Subscription, int]:
    """Resume a subscription that ended within its period. Raises ChangeRejectedError and CouponRejectedError."""
    plans = await plan_versions.fetch_plans_on_sale(connection, settings.plans, now, loaded.customer.name)
    change = await prepared_changes.prepare_resumption(connection, loaded, plan, terms, plans=plans, now=now)
    begun, row, current = change.begun, loaded.row, loaded.current
    assert begun is not None
    customer = await _fix_currency(connection, caller, loaded.customer, begun.plan, terms.currency)
    if coupon is not None:
        after = prepared_changes.compute_resumed_state(loaded, begun)
        of = (customer, row.id, after, loaded.discounts, coupon, settings, now)
        discount = await coupons.redeem(connection, caller, *of)
        change = await prepared_changes.add_discount(connection, loaded, change, discount)
    # Stripe's subscription has ended, or ends now.
    await subscription_rows.begin_segment(connection, row.id, begun, current.period, "invoice_items")
    await _apply_plan(connection, caller, customer, begun, current.anchor, settings)
    await invoice_change(connection, row, change, now)
    await cancellations.drop_feedback(connection, row.id)
    # `customer` was read before the plan set its tier: this is the tier to restore when the subscription ends again.
    values = {**NOTHING_PLANNED, "cancel_at": None, "tier_before": customer.tier}
    values |= {"plan_version": begun.version, "is_yearly": int(begun.is_yearly), "quantity": begun.quantity}
    return await write_change(connection, caller, loaded._replace(customer=customer), values, state=ACTIVE)


async def invoice_change(connection: AsyncConnection, row: SubscriptionRow, change: PlanChange, now: float) -> None:
    """Create the invoice of a change, which closes now. A resumption within the paid time has none."""
    begun = change.begun
    assert begun is not None
    if not change.lines:
        return
    kind = await invoices.choose_kind(connection, row.customer, begun.period, changes.CHANGE)
    of = (row.customer, row.id, kind, begun.period)
    await invoices.create_invoice(connection, *of, change.lines, currency=begun.plan.currency, now=now)


async def begin_prepared(
    connection: AsyncConnection,
    caller: Caller,
    customer: Subscriber,
    current: SubscriptionState,
    *,
    settings: CollectorSettings,
    now: float,
    coupon: str | None = None,
) -> Subscription:
    """Write a new subscription with its tier, caps, coupon, first invoice and audit entry.

    Raises CouponRejectedError.
    """
    customer = await _fix_currency(connection, caller, customer, current.last.plan)
    created = await _insert_subscription(connection, customer, current, settings)
    await _apply_plan(connection, caller, customer, current.last, current.anchor, settings)
    discounts = []
    if coupon is not None:
        discounts = [await coupons.redeem(connection, caller, customer, created.id, current, (), coupon, settings, now)]
    # A trial is free. `roll_period` invoices the first fee when the trial ends.
    if not current.last.is_trial:
        await _invoice_first_fee(connection, created, current.segments, discounts, current.period, now)
    response = to_response(created, customer.name, current.last.plan.currency)
    after = {**response} if coupon is None else {**response, "coupon": coupon}
    await audit.append_entry(connection, caller, AuditEntry("subscription.create", customer.name, None, after))
    return response


async def _insert_subscription(
    connection: AsyncConnection, customer: Subscriber, current: SubscriptionState, settings: CollectorSettings
) -> SubscriptionRow:
    """Insert a subscription that begins now, with its segment, and return it."""
    (segment,) = current.segments
    created = SubscriptionRow(
        id=generate_id(),
        customer=customer.id,
        plan_version=segment.version,
        is_yearly=int(segment.is_yearly),
        state=TRIALING if segment.is_trial else ACTIVE,
        anchor=current.anchor,
        period_start=current.period.start,
        period_end=current.period.end,
        tier_before=customer.tier,
        quantity=segment.quantity,
        trial_ends_at=segment.span.end if segment.is_trial else None,
        created_at=now_ms(),
    )
    await subscription_rows.insert_subscription(connection, created)
    await subscription_rows.begin_segment(
        connection, created.id, segment, current.period, choose_collection(segment, settings)
    )
    return created


def choose_collection(segment: Segment, settings: CollectorSettings) -> str:
    """Return the way to collect usage of a segment. Stripe's meters cannot charge a trial, nor every plan."""
    assert settings.billing is not None
    is_here = segment.is_trial or not segment.plan.fits_stripe_meters
    return "invoice_items" if is_here else settings.billing.collection


async def _fix_currency(
    connection: AsyncConnection, caller: Caller, customer: Subscriber, plan: Plan, currency: str | None = None
) -> Subscriber:
    """Fix the currency of a customer, by default the plan's if it has prices, unless one was chosen before."""
    if currency is None and not plan.has_prices:
        return customer
    chosen = currency or customer.currency or plan.currency
    return await customer_currency.fix_currency(connection, caller, customer, chosen, before=plan.currency)


async def change_subscription(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    plan: str,
    when: When | None,
    *,
    settings: CollectorSettings,
    now: float,
    match: frozenset[int] | None = None,
    currency: str | None = None,
    is_yearly: bool | None = None,
    quantity: int | None = None,
) -> tuple[ChangedSubscription, int]:
    """Change to another plan, interval or quantity, at once or when the paid time ends. A waiting change is withdrawn.

    `currency` applies if none was chosen yet. Raises ChangeRejectedError.
    """
    loaded = await subscription_rows.get_by_customer(connection, ref, lock=True)
    row, current = loaded.row, loaded.current
    require_version(row.version, match)
    plans = await plan_versions.fetch_plans_on_sale(connection, settings.plans, now, loaded.customer.name)
    terms = PlanTerms(is_yearly, quantity, currency)
    plan_change = await prepared_changes.prepare_change(connection, loaded, plan, when, terms, plans=plans, now=now)
    sold = plans[plans_on_sale.resolve_version(plan, plans, loaded.customer.name)]
    loaded = loaded._replace(customer=await _fix_currency(connection, caller, loaded.customer, sold, currency))
    values: dict[str, object] = {"next_version": plan_change.next_version, "cancel_at": None}
    values["next_is_yearly"] = None if plan_change.next_is_yearly is None else int(plan_change.next_is_yearly)
    values["next_quantity"] = plan_change.next_quantity
    if (begun := plan_change.begun) is not None:
        values |= {"plan_version": begun.version, "is_yearly": int(begun.is_yearly), "quantity": begun.quantity}
        await subscription_rows.end_segment(connection, row.id, current.last, plan_change.at)
        # The collection of usage changes only at a period's end, unless Stripe's meters cannot charge the usage: Stripe
        # allows one price change per period, and cannot apply included amounts to the whole period.
        same = await subscription_rows.get_collection(connection, row.id, current.last)
        is_plain = begun.plan.fits_stripe_meters and not current.has_changed and begun.version != current.last.version
        collection = same if is_plain else "invoice_items"
        await subscription_rows.begin_segment(connection, row.id, begun, current.period, collection)
        await _apply_plan(connection, caller, loaded.customer, begun, current.anchor, settings)
        await invoice_change(connection, row, plan_change, now)
    await cancellations.drop_feedback(connection, row.id)
    response, version = await write_change(connection, caller, loaded, values)
    return {**response, "withdrawn": find_withdrawn(row, plan_change)}, version


async def cancel_subscription(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    when: When,
    *,
    settings: CollectorSettings,
    now: float,
    match: frozenset[int] | None = None,
    feedback: Feedback | None = None,
) -> tuple[ChangedSubscription, int]:
    """End a subscription, at once or when the paid time ends, and record the reason. A waiting change is withdrawn.
    Raises ChangeRejectedError.

    Nothing is refunded. Without `feedback` the earlier feedback stays.
    """
    loaded = await subscription_rows.get_by_customer(connection, ref, lock=True)
    require_version(loaded.row.version, match)
    last, at, state = loaded.current.last, loaded.current.last.paid.end, None
    if when == "now":
        at, state = changes.end_now(loaded.current, now).last.span.end, CANCELED
        await subscription_rows.end_segment(connection, loaded.row.id, last, at)
        await _end_subscription(connection, caller, loaded, at, settings)
    if feedback is not None:
        await cancellations.record_feedback(connection, loaded.row.id, loaded.row.customer, feedback, now)
    values = {**NOTHING_PLANNED, "cancel_at": at}
    response, version = await write_change(connection, caller, loaded, values, state=state)
    return {**response, "withdrawn": find_withdrawn(loaded.row, None)}, version


async def roll_period(
    connection: AsyncConnection, number: str, *, settings: CollectorSettings, now: float, can_pay: bool = True
) -> bool:
    """Begin the next period of a subscription, by id, if the current one is over. Return whether it was.

    `can_pay` tells whether there is a payment method at the end of a trial.
    """
    loaded = await subscription_rows.get_by_id(connection, number)
    row, current = loaded.row, loaded.current
    # The row is locked only now. Since the caller listed it, another collector may have rolled its period.
    if row.state == CANCELED or row.period_end > now:
        return False
    begun = changes.next_segment(current, loaded.plans)
    # A plan that follows a trial would only run up a debt if nobody can pay it.
    if begun is not None and not can_pay and changes.needs_payment_method(current, begun):
        begun = None
    if begun is not None:
        assert settings.billing is not None
        begun = await unpaid_plans.stop_unpaid(connection, loaded, begun, settings.billing.unpaid, now)
    if begun is None:
        await _end_subscription(connection, RUNNER, loaded, current.period.end, settings)
        ended = {**NOTHING_PLANNED, "cancel_at": current.period.end}
        await write_change(connection, RUNNER, loaded, ended, state=CANCELED)
        return True
    period = periods.period_after(current.period, current.anchor)
    await _fix_currency(connection, RUNNER, loaded.customer, begun.plan)
    await subscription_rows.begin_segment(connection, row.id, begun, period, choose_collection(begun, settings))
    values: dict[str, object] = {"period_start": period.start, "period_end": period.end}
    last = current.last
    if (begun.version, begun.is_yearly, begun.quantity) != (last.version, last.is_yearly, last.quantity):
        values |= {"plan_version": begun.version, "is_yearly": int(begun.is_yearly), "quantity": begun.quantity}
        values |= NOTHING_PLANNED
        await _apply_plan(connection, RUNNER, loaded.customer, begun, current.anchor, settings)
    is_trial = current.last.is_trial
    if is_trial:
        await _invoice_first_fee(connection, row, [begun], loaded.discounts, period, now)
    else:
        await _create_period_invoice(connection, loaded, now, settings, begun)
    # A renewal without a change is no event for the audit log: each subscription has one in each period.
    is_recorded = is_trial or "next_version" in values
    await write_change(connection, RUNNER, loaded, values, state=ACTIVE, is_recorded=is_recorded)
    return True


async def _end_subscription(
    connection: AsyncConnection, caller: Caller, loaded: LoadedSubscription, at: int, settings: CollectorSettings
) -> None:
    """Create the last invoice of a subscription, and restore the customer's earlier tier."""
    row = loaded.row
    if not loaded.current.last.is_trial:
        await _create_period_invoice(connection, loaded, at, settings)
    if loaded.customer.deleting_since is None:
        await _set_tier(connection, caller, row.customer, row.tier_before, settings)
    await entitlements.update_entitlements(connection, loaded.customer, None, settings.meters)


async def _apply_plan(
    connection: AsyncConnection,
    caller: Caller,
    customer: Subscriber,
    begun: Segment,
    anchor: int | None,
    settings: CollectorSettings,
) -> None:
    """Apply the tier and the caps of a plan that has begun to a customer."""
    await _set_tier(connection, caller, customer.id, get_plan_tier(begun.version, begun.plan), settings)
    await entitlements.update_entitlements(connection, customer, (begun.version, begun.plan, anchor), settings.meters)


async def _set_tier(
    connection: AsyncConnection, caller: Caller, customer: str, tier: str, settings: CollectorSettings
) -> None:
    await customers.update_customer(
        connection, caller, customer, UpdateCustomerRequest.model_validate({"tier": tier}), settings
    )


async def write_change(
    connection: AsyncConnection,
    caller: Caller,
    loaded: LoadedSubscription,
    values: Mapping[str, object],
    *,
    state: str | None = None,
    is_recorded: bool = True,
) -> tuple[Subscription, int]:
    """Write changed columns of a subscription and its `state`, and return it with its version.

    `is_recorded` adds the change to the audit log.
    """
    row = loaded.row
    after = await subscription_rows.transition(connection, row, state or row.state, **values)
    currency = loaded.customer.currency or loaded.current.last.plan.currency
    response, before = (to_response(one, loaded.customer.name, currency) for one in (after, row))
    if is_recorded:
        entry = AuditEntry("subscription.change", loaded.customer.name, *compute_difference(before, response))
        await audit.append_entry(connection, caller, entry)
    return response, after.version


async def _invoice_first_fee(
    connection: AsyncConnection,
    row: SubscriptionRow,
    paid: Sequence[Segment],
    discounts: Sequence[Discount],
    period: Span,
    now: float,
) -> None:
    """Create the invoice for the fee of a subscription's first paid segment, which closes now."""
    fees = changes.compute_fees(paid, ())
    fees += rate_discounts(fees, (), paid, discounts)
    currency = paid[-1].plan.currency
    await invoices.create_invoice(
        connection, row.customer, row.id, changes.START, period, fees, currency=currency, now=now
    )


async def _create_period_invoice(
    connection: AsyncConnection, loaded: LoadedSubscription, now: float, settings: CollectorSettings, *begun: Segment
) -> None:
    """Create the invoice of the period that is over, with the fee of the segment that has `begun`."""
    assert settings.billing is not None
    of_period = [segment for segment in loaded.current.segments if segment.span.start >= loaded.current.period.start]
    costs = any(segment.plan.has_prices for segment in (*of_period, *begun))
    freeze = settings.billing.freeze
    await invoices.create_invoice(
        connection,
        loaded.row.customer,
        loaded.row.id,
        await invoices.choose_kind(connection, loaded.row.customer, loaded.current.period, changes.PERIOD),
        loaded.current.period,
        # The lines are computed after the freeze, which gives the usage of the period time to arrive.
        None,
        currency=[loaded.current.last, *begun][-1].plan.currency,
        now=now,
        freeze=freeze,
        costs=costs,
    )
