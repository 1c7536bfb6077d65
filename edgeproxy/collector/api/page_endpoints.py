"""The endpoints that pages need beside those of others: contacts of customers, and incidents."""

from typing import Any

from edgeproxy.collector.accounts.contacts import AlertAddress, ContactList, Contacts, CustomerAlertAddress
from edgeproxy.collector.api.endpoint import ADMIN, OWN, READERS, SUPPORT, Endpoint
from edgeproxy.collector.api.handlers.contacts import ContactHandlers
from edgeproxy.collector.api.handlers.incidents import IncidentHandlers
from edgeproxy.collector.api.ledger_models import ChangeQuery
from edgeproxy.collector.pages.incidents import CreateIncidentRequest, Incident, IncidentList, IncidentUpdate

CONTACTS = "/v1/customers/{customer}/contacts"
ALERT_ADDRESS = "/v1/customers/{customer}/alert-address"


def page_endpoints(
    contacts: ContactHandlers, incidents: IncidentHandlers, creates: dict[str, Any]
) -> tuple[Endpoint[Any, Any], ...]:
    """List them; `creates` is what endpoints have in common that make something."""
    made = {**creates, "shows": ("Idempotent-Replayed",)}
    return (
        Endpoint(
            *("GET", CONTACTS, READERS | OWN, contacts.contacts, "Who may sign in for a customer."),
            answers=ContactList,
        ),
        Endpoint(
            *("PUT", CONTACTS, ADMIN, contacts.put_contacts),
            "Say who may sign in for a customer, by links that are mailed; the sessions of all others end.",
            query=ChangeQuery,
            sends=Contacts,
            answers=ContactList,
        ),
        Endpoint(
            *("GET", ALERT_ADDRESS, READERS | OWN, contacts.alert_address, "Where a customer's own alerts are mailed."),
            answers=CustomerAlertAddress,
        ),
        Endpoint(
            *("PUT", ALERT_ADDRESS, SUPPORT | OWN, contacts.put_alert_address),
            "Have a customer's own alerts mailed to one of its contacts, or nowhere.",
            query=ChangeQuery,
            sends=AlertAddress,
            answers=CustomerAlertAddress,
        ),
        Endpoint(
            *("GET", "/v1/incidents", READERS, incidents.incidents, "The incidents of 90 days, the last one first."),
            answers=IncidentList,
        ),
        Endpoint(
            *("POST", "/v1/incidents", SUPPORT, incidents.begin_incident),
            "Begin an incident. The status page tells of it to everybody.",
            **made,
            sends=CreateIncidentRequest,
            answers=Incident,
        ),
        Endpoint(
            *("POST", "/v1/incidents/{incident}/updates", SUPPORT, incidents.update_incident),
            "Tell what is known of an incident by now; with the state resolved it ends.",
            **made,
            sends=IncidentUpdate,
            answers=Incident,
        ),
    )
