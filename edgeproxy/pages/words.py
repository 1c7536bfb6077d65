"""Words that pages say for what the API has words for, in English; `locale/` has the other languages."""


def N_(text: str) -> str:
    """Mark a text for those who translate."""
    return text


MESSAGES = {
    "signed-out": N_("You have signed out."),
    "created": N_("The customer is made."),
    "changed": N_("The change is made."),
    "paused": N_("The customer is paused."),
    "resumed": N_("The customer is served again."),
    "revoked": N_("The key is revoked."),
    "replayed": N_("It is counted."),
    "discarded": N_("It is discarded."),
    "told": N_("The status page tells of it."),
    "plan": N_("The plan is changed."),
    "sent": N_("It is on its way again."),
}
FAULTS = {
    400: N_("That cannot be understood"),
    401: N_("Sign in again"),
    403: N_("That is not allowed"),
    404: N_("There is no such thing"),
    409: N_("That cannot be done now"),
    422: N_("Some of it cannot be used"),
    503: N_("The data cannot be had now. Try again in a minute."),
}
CUSTOMER_STATES = {
    "active": N_("active"),
    "paused": N_("paused"),
    "deleting": N_("being deleted"),
    "deleted": N_("deleted"),
}
KEY_STATES = {
    "active": N_("active"),
    "due": N_("to be rotated"),
    "rotating": N_("being replaced"),
    "expired": N_("expired"),
    "revoked": N_("revoked"),
}
INCIDENT_STATES = {
    "investigating": N_("We are looking into it"),
    "identified": N_("We know why"),
    "monitoring": N_("It is mended, and we watch it"),
    "resolved": N_("It is over"),
}
SPANS = {
    "0s": N_("at once"),
    "1h": N_("an hour"),
    "1d": N_("a day"),
    "7d": N_("a week"),
    "30d": N_("30 days"),
}
SEVERITIES = {"page": N_("look now"), "warn": N_("look today"), "info": N_("to know")}
DELIVERY_STATES = {"due": N_("on its way"), "sent": N_("sent"), "dead": N_("given up")}
PERIODS = {"day": N_("a day"), "month": N_("a month")}

WORDS: dict[str, dict[str, str] | dict[int, str]] = {
    "messages": MESSAGES,
    "faults": FAULTS,
    "customer_states": CUSTOMER_STATES,
    "key_states": KEY_STATES,
    "incident_states": INCIDENT_STATES,
    "spans": SPANS,
    "periods": PERIODS,
    "severities": SEVERITIES,
    "delivery_states": DELIVERY_STATES,
}
"""All of them, by the names that templates use."""
