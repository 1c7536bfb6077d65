"""Texts for the API's values on single pages of the console, in English."""

from edgeproxy.collector.languages.marks import N_

EDGE_STATES = {"well": N_("well"), "late": N_("late"), "retired": N_("retired")}
EDGE_LATENESS = {
    "unread": N_("nothing was read yet"),
    "silent": N_("does not ship"),
    "behind": N_("ships what is old"),
}
"""Why an edge is late."""
MATCHES = {
    "id": N_("the id"),
    "name": N_("the name"),
    "external_id": N_("the external id"),
    "key": N_("how a key begins"),
    "email": N_("the address of a contact"),
    "domain": N_("the domain of a contact"),
}
"""The field of a customer that matched a search."""
PRICE_TERMS = {
    "fee": N_("Fee a month"),
    "year_fee": N_("Fee a year"),
    "minimum": N_("Minimum a month"),
    "threshold": N_("Invoiced from"),
    "included": N_("included"),
    "price": N_("price of a unit"),
    "tier": N_("price, tier"),
}
"""Terms of a plan whose amounts can be changed."""
