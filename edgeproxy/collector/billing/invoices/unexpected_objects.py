"""The errors of objects of Stripe that cannot be applied as they are."""


class UnexpectedObjectError(Exception):
    """An object cannot be booked as it is; applying it later may succeed. The message is for operators."""


class UnbookedPaymentError(UnexpectedObjectError):
    """An object is about a payment of a purchase or an invoice that is not booked yet: the event of that may come with
    Stripe's list of events."""
