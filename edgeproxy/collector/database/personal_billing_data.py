"""The map of personal data for plans, invoices and the exchange with Stripe. Literal, pure."""

from collections.abc import Mapping

from edgeproxy.collector.database.personal_marks import (
    BOOKS,
    CLEARS,
    CUSTOMER_ID,
    CUSTOMER_NAME,
    DELETES,
    DELETION,
    DIMENSION,
    EMAIL,
    FAILURE,
    ID,
    NAME,
    ONE,
    OPERATOR,
    REASON,
    STRIPE_ID,
    Owner,
    PersonalData,
    Subject,
    TableEntry,
)

BILLING_TABLES: Mapping[str, TableEntry] = {
    # ---- plans and invoices
    "plan_versions": TableEntry(
        BOOKS, {"version": CUSTOMER_NAME}, "settings", copies="backups; a price of one customer is `PLAN@N+NAME`"
    ),
    "price_changes": TableEntry(BOOKS, {"why": REASON, "created_by": OPERATOR}, "id state"),
    "price_moves": TableEntry(
        BOOKS, {"plan": CUSTOMER_NAME, "before": CUSTOMER_NAME, "after": CUSTOMER_NAME}, "change"
    ),
    "billing_customers": TableEntry(
        BOOKS,
        {
            "customer": CUSTOMER_ID,
            "stripe_id": STRIPE_ID,
            "email_hash": EMAIL,
            "country": PersonalData("country of a customer", Subject.CUSTOMER, "tax"),
        },
        "tax_status deletion_waits_for",
        ID,
        CLEARS,
        ("email_hash",),
        copies="backups; Stripe",
    ),
    "billing_details": TableEntry(
        DELETION,
        {
            "customer": CUSTOMER_ID,
            "payer": PersonalData("name, addresses and tax numbers on invoices", Subject.CUSTOMER, "invoicing"),
            "payment_method": PersonalData(
                "brand, last four digits and expiry of a card", Subject.CUSTOMER, "showing by what is paid"
            ),
        },
        "",
        ID,
        DELETES,
        copies="backups; Stripe, whose copy this is",
    ),
    "subscriptions": TableEntry(
        BOOKS,
        {
            "customer": CUSTOMER_ID,
            "plan_version": CUSTOMER_NAME,
            "next_version": CUSTOMER_NAME,
            "told_version": CUSTOMER_NAME,
            "stripe_id": STRIPE_ID,
        },
        "id state tier_before",
        ID,
        copies="backups; Stripe",
    ),
    "cancellations": TableEntry(
        f"for good, as reasons are counted; the comment {DELETION}",
        {
            "customer": CUSTOMER_ID,
            "comment": PersonalData("why a customer left, in its words", Subject.CUSTOMER, "knowing what to mend"),
        },
        "subscription reason",
        ID,
        CLEARS,
        ("comment",),
        copies="backups; Stripe, with plans that are collected by its meters",
    ),
    "segments": TableEntry(
        BOOKS,
        {"plan_version": CUSTOMER_NAME},
        "subscription meter stripe_item stripe_price collection",
        Owner("subscription", "subscriptions"),
        copies="backups; Stripe",
    ),
    "invoices": TableEntry(
        BOOKS,
        {
            "customer": CUSTOMER_ID,
            "stripe_id": STRIPE_ID,
            "replaced_ids": STRIPE_ID,
            "held_why": REASON,
            "voided_why": REASON,
            "accepted_why": REASON,
            **dict.fromkeys(("pdf", "url", "number"), STRIPE_ID),
            "error": FAILURE,
        },
        "id subscription period kind state currency booked",
        ID,
        ended=(
            *("stripe_id", "replaced_ids", "held_why", "voided_why", "accepted_why", "pdf", "url", "number", "error"),
        ),
        copies="backups; Stripe",
    ),
    "invoice_parties": TableEntry(
        DELETION,
        {
            "customer": CUSTOMER_ID,
            "parties": PersonalData("name, address and tax numbers on an invoice", Subject.CUSTOMER, "invoicing"),
        },
        "invoice",
        ID,
        DELETES,
        copies="backups; Stripe, whose copy this is",
    ),
    "invoice_lines": TableEntry(
        BOOKS,
        {"plan_version": CUSTOMER_NAME, "value": DIMENSION, "text": DIMENSION},
        "invoice kind meter unit_price",
        Owner("invoice", "invoices"),
        ended=("value", "text"),
        copies="backups; Stripe",
    ),
    "credit_notes": TableEntry(
        BOOKS,
        {"why": REASON, "stripe_id": STRIPE_ID, "error": FAILURE},
        "id invoice state booked",
        Owner("invoice", "invoices"),
        ended=("why", "stripe_id", "error"),
        copies="backups; Stripe",
    ),
    "disputes": TableEntry(
        BOOKS,
        {"customer": CUSTOMER_ID, "stripe_id": STRIPE_ID},
        "id invoice purchase state currency reason",
        ID,
        ended=("stripe_id",),
        copies="backups; Stripe",
    ),
    "dunning": TableEntry(
        BOOKS,
        {"payment_method": STRIPE_ID, "why": FAILURE},
        "invoice state",
        Owner("invoice", "invoices"),
        ended=("payment_method", "why"),
    ),
    "rated": TableEntry(BOOKS, impersonal="invoice", owner=Owner("invoice", "invoices")),
    "coupons": TableEntry(BOOKS, impersonal="code"),
    "coupon_redemptions": TableEntry(BOOKS, {"customer": CUSTOMER_ID}, "code subscription plans", ID),
    "imported_subscriptions": TableEntry(
        BOOKS,
        {"stripe_id": STRIPE_ID, "customer": CUSTOMER_ID, "plan_version": CUSTOMER_NAME},
        "state why subscription",
        ID,
    ),
    "spend_alerts": TableEntry(DELETION, {"customer": CUSTOMER_ID}, "", ID, DELETES),
    "credit_transactions": TableEntry(
        BOOKS,
        {
            "customer": CUSTOMER_ID,
            "source": STRIPE_ID,
            "details": PersonalData("ids at Stripe, and reasons of operators", Subject.CUSTOMER, "book-keeping"),
        },
        "kind original hash currency",
        ID,
        ended=("details",),
        operator_fields={"details": frozenset({"by", "why"})},
    ),
    "credit_entries": TableEntry(
        BOOKS, {"model": DIMENSION}, "account grant_id meter", Owner("seq", "credit_transactions", "seq")
    ),
    "credit_head": TableEntry(ONE, impersonal="hash cleared_hash"),
    "credit_grants": TableEntry(BOOKS, {"customer": CUSTOMER_ID, "payment": STRIPE_ID}, "id", ID),
    "credit_balances": TableEntry(BOOKS, {"customer": CUSTOMER_ID}, "", ID),
    # ---- the exchange with Stripe
    "billing_outbox": TableEntry(
        BOOKS, {"customer": CUSTOMER_NAME, "answer": FAILURE}, "meter identifier state", NAME, copies="backups; Stripe"
    ),
    "billing_slices": TableEntry(BOOKS),
    "billing_exporter": TableEntry(ONE, impersonal="stopped"),
    "webhook_events": TableEntry(
        "60 days (`retention.webhooks`)",
        {
            "object": STRIPE_ID,
            "error": FAILURE,
            "payload": PersonalData("names and addresses of payers, encrypted", Subject.CUSTOMER, "following payments"),
        },
        "id type object_type source state",
    ),
    "webhook_polls": TableEntry(ONE, impersonal="list"),
    "reconciliations": TableEntry(BOOKS, {"rows": CUSTOMER_NAME}, "id kind level meters"),
    "billing_answers": TableEntry("for good, as a row for each hour is two numbers"),
    "rollout": TableEntry(
        "until it is replaced", {"stopped_by": OPERATOR, "message": REASON}, "credits_meter", copies="backups; portal"
    ),
    "billing_waivers": TableEntry(BOOKS, {"who": OPERATOR, "why": REASON}),
}
"""Tables of billing. If erasure deletes children and parents, children come first."""
