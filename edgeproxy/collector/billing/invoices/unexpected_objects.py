"""The errors of Stripe objects that cannot be applied in their current state."""


class UnexpectedObjectError(Exception):
    """An object cannot be booked in its current state; applying it later may succeed. The message is for operators."""


class UnbookedPaymentError(UnexpectedObjectError):
    """The object is about a payment for a purchase or an invoice that is not booked yet.

    The missing event may arrive with Stripe's list of events.
    """
