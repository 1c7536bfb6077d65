"""The problems of money: plans, invoices, credits and charging."""

from typing import Final

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.languages.marks import N_

BILLING_OFF: Final = ProblemCode(
    "billing-off",
    409,
    "Billing has `mode: off`, so nothing is asked of Stripe.",
    "Ask an operator.",
    N_("Nothing can be bought here now."),
    has_reason=True,
)
SELLING_STOPPED: Final = ProblemCode(
    "selling-stopped",
    503,
    "Nothing is sold at the moment.",
    "Try again after `Retry-After`.",
    N_("Nothing can be bought here now. %(message)s"),
)
STRIPE_UNAVAILABLE: Final = ProblemCode(
    "stripe-unavailable",
    503,
    "Stripe does not answer.",
    "Look at the state of the object, then try again after `Retry-After`.",
    N_("Stripe does not answer now. Look at the details below before you try again: some may be changed."),
)
STRIPE_REFUSED: Final = ProblemCode(
    "stripe-refused",
    409,
    "Stripe refuses the request.",
    "Follow the reason in `detail`.",
    N_("Stripe does not accept this."),
    has_reason=True,
)
USAGE_NOT_PRICEABLE: Final = ProblemCode(
    "usage-not-priceable",
    422,
    "The usage of the period cannot be priced.",
    "Have an operator look at `detail`.",
    N_("The usage cannot be priced now. The provider can look at it."),
    has_reason=True,
)
METER_NOT_ADDED: Final = ProblemCode(
    "meter-not-added",
    422,
    "The usage of the meter is not added up, so its cost has no parts.",
    "Read the price on the invoice.",
    N_("The usage of this meter is not added up. Its price is on the invoice."),
)
PLAN_MISSING: Final = ProblemCode(
    "plan-missing",
    409,
    "The customer has no plan, so there are no prices.",
    "Give a budget in units of a meter, or begin a plan.",
    N_("Without a plan there are no prices. Choose a meter."),
)
SUBSCRIPTION_NOT_FOUND: Final = ProblemCode(
    "subscription-not-found", 404, "The customer has no subscription.", "Begin one.", N_("The customer has no plan.")
)
SUBSCRIPTION_EXISTS: Final = ProblemCode(
    "subscription-exists",
    409,
    "The customer has a subscription.",
    "Change that subscription.",
    N_("There is a plan already. Change that one."),
)
SUBSCRIPTION_PLANNED: Final = ProblemCode(
    "subscription-planned",
    409,
    "A subscription begins when the paid time of the former one ends.",
    "Wait until it has begun.",
    N_("A plan begins when the paid time of the former one ends."),
    has_reason=True,
)
SUBSCRIPTION_ENDING: Final = ProblemCode(
    "subscription-ending",
    409,
    "The subscription is ending.",
    "Change to the present plan first, so that it goes on.",
    N_("The plan is ending. Let it go on first."),
)
TRIAL_OF_ANOTHER_PLAN: Final = ProblemCode(
    "trial-of-another-plan",
    409,
    "The trial is of another plan.",
    "Choose the plan when the trial ends.",
    N_("The trial is of another plan. Choose another one when it ends."),
)
TRIAL_NEEDS_PAYMENT: Final = ProblemCode(
    "trial-needs-payment",
    409,
    "The trial needs a payment method.",
    "Add one by `POST /billing/portal`.",
    N_("This trial needs a payment method. Add one first."),
)
INVOICE_ADDRESS_MISSING: Final = ProblemCode(
    "invoice-address-missing",
    409,
    "No invoice could reach the customer.",
    "Add a contact, or an e-mail address by `POST /billing/portal`.",
    N_("No invoice could reach you. Add an e-mail address first."),
)
PLAN_NOT_HIGHER: Final = ProblemCode(
    "plan-not-higher",
    422,
    "The plan does not cost more, so it cannot begin at once.",
    "Have it begin at the end of the period.",
    N_("This plan costs no more than yours. It can begin at the end of the period."),
)
PLAN_NOT_YEARLY: Final = ProblemCode(
    "plan-not-yearly",
    422,
    "The plan is not sold by the year.",
    "Choose the term of a month.",
    N_("This plan is not sold by the year."),
)
PLAN_UNCHANGED: Final = ProblemCode(
    "plan-unchanged",
    409,
    "The subscription has this plan and quantity.",
    "No step is needed.",
    N_("This is your plan already."),
)
PERIOD_ENDING: Final = ProblemCode(
    "period-ending",
    409,
    "The period ends in this minute.",
    "Repeat the request in the next minute.",
    N_("The period ends in this minute. Try again in the next one."),
)
QUANTITY_TOO_LARGE: Final = ProblemCode(
    "quantity-too-large",
    422,
    "The plan is not sold in this quantity.",
    "Choose at most `params.most`.",
    N_("Choose at most %(most)s."),
)
COUPON_NOT_NEW: Final = ProblemCode(
    "coupon-not-new",
    409,
    "A coupon comes with a new subscription alone.",
    "Leave the coupon out, or redeem it by its own endpoint.",
    N_("A coupon comes with a new plan, and there is one already."),
)
COUPON_NOT_FOUND: Final = ProblemCode(
    "coupon-not-found",
    404,
    "The subscription has no coupon.",
    "No step is needed.",
    N_("The plan has no coupon."),
)
CURRENCY_FIXED: Final = ProblemCode(
    "currency-fixed",
    409,
    "The customer is charged in another currency, and that cannot change.",
    "Use the currency that `detail` names.",
    N_("The currency cannot change any more."),
    has_reason=True,
)
CURRENCY_NOT_SOLD: Final = ProblemCode(
    "currency-not-sold",
    409,
    "Nothing is sold in this currency.",
    "Choose one of the currencies that are sold.",
    N_("Nothing is sold in this currency."),
    has_reason=True,
)
PRICE_CHANGE_NOT_FOUND: Final = ProblemCode(
    "price-change-not-found",
    404,
    "There is no such price change.",
    "Read the list of the price changes.",
    N_("There is no such price change."),
)
PRICE_CHANGE_LATE: Final = ProblemCode(
    "price-change-late",
    409,
    "The price change can no longer be withdrawn.",
    "Schedule another one.",
    N_("This price change cannot be withdrawn any more."),
)
DRY_RUN_OUTDATED: Final = ProblemCode(
    "dry-run-outdated",
    409,
    "The change has another effect than the dry run has shown.",
    "Make another dry run, and send its digest.",
    N_("This is no longer what the preview showed. Look at it again."),
)
INVOICE_NOT_FOUND: Final = ProblemCode(
    "invoice-not-found",
    404,
    "There is no such invoice.",
    "Read the list of the invoices.",
    N_("There is no such invoice."),
)
INVOICE_LINE_NOT_FOUND: Final = ProblemCode(
    "invoice-line-not-found",
    404,
    "The invoice has no such line.",
    "Use a position of the invoice's lines, from 0.",
    N_("The invoice has no such line."),
)
INVOICE_STATE: Final = ProblemCode(
    "invoice-state",
    409,
    "The invoice's state does not permit the step.",
    "Read its `state`.",
    N_("That cannot be done with the invoice as it is now."),
    has_reason=True,
)
PURCHASE_NOT_FOUND: Final = ProblemCode(
    "purchase-not-found",
    404,
    "There is no such purchase of credits.",
    "Read the list of the purchases.",
    N_("There is no such purchase."),
)
PURCHASE_SPENT: Final = ProblemCode(
    "purchase-spent",
    409,
    "Nothing of the purchase is unspent.",
    "No refund is possible.",
    N_("Nothing of this purchase is left."),
)
PAYMENT_METHOD_MISSING: Final = ProblemCode(
    "payment-method-missing",
    409,
    "The customer has no saved payment method that can be charged.",
    "Add one by `POST /billing/portal`.",
    N_("There is no saved payment method. Add one first."),
)
TOP_UP_NOT_OFFERED: Final = ProblemCode(
    "top-up-not-offered",
    409,
    "Credits are not topped up automatically while Stripe computes the tax (`billing.tax.stripe_tax`).",
    "Buy credits by `POST /billing/checkout`.",
    N_("Credits cannot be topped up automatically here. You can buy them yourself."),
)
CONSUMPTION_NOT_FOUND: Final = ProblemCode(
    "consumption-not-found",
    404,
    "The customer has no such consumption of credits.",
    "Read the customer's statement.",
    N_("There is no such entry."),
)
CREDITS_EXCEEDED: Final = ProblemCode(
    "credits-exceeded",
    409,
    "The change takes more credits than there are. `errors` has the most.",
    "Take less.",
    N_("There are not that many credits."),
)
REFUND_FAILED: Final = ProblemCode(
    "refund-failed",
    409,
    "The refund failed before.",
    "Ask for a new refund.",
    N_("This refund failed. Ask for a new one."),
)
RECEIPT_MISSING: Final = ProblemCode(
    "receipt-missing",
    409,
    "The purchase has no receipt.",
    "Try again once the payment is confirmed.",
    N_("There is no receipt of this purchase."),
)
STATEMENT_NOT_FOUND: Final = ProblemCode(
    "statement-not-found",
    404,
    "There is no such statement.",
    "Write a month such as `2027-01`, with `.csv` or `.pdf` for a file.",
    N_("There is no such month here."),
)
TAX_NUMBER_MISSING: Final = ProblemCode(
    "tax-number-missing",
    422,
    "A business needs a valid tax number for this purchase.",
    "Enter it in the customer portal.",
    N_("A business needs a valid tax number. Enter it first."),
)
CHARGING_STOPPED: Final = ProblemCode(
    "charging-stopped",
    409,
    "Nobody is charged already.",
    "No step is needed.",
    N_("%(who)s has stopped charging already."),
)
CHARGING_RUNNING: Final = ProblemCode(
    "charging-running",
    409,
    "Customers are charged already.",
    "No step is needed.",
    N_("Customers are charged already."),
)
CHARGING_FIXED: Final = ProblemCode(
    "charging-fixed",
    409,
    "The collector's file does not permit the step.",
    "Change the file, and reload.",
    N_("The provider's file does not allow this step."),
    has_reason=True,
)
GATES_CLOSED: Final = ProblemCode(
    "gates-closed",
    409,
    "Gates of the roll-out are closed.",
    "Wait until they open, or send `force` with a reason.",
    N_("Gates of the roll-out are closed."),
    has_reason=True,
)
DAY_NOT_FOUND: Final = ProblemCode(
    "day-not-found", 404, "There is no such day.", "Write a date such as `2027-01-31`.", N_("There is no such day.")
)
DAY_NOT_OVER: Final = ProblemCode(
    "day-not-over", 409, "The day is not over.", "Ask after its end.", N_("This day is not over.")
)
