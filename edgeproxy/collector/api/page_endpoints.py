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
            *(
                "GET",
                CONTACTS,
                READERS | OWN,
                contacts.contacts,
                "List the contacts of a customer, who may sign in for it.",
            ),
            answers=ContactList,
        ),
        Endpoint(
            *("PUT", CONTACTS, ADMIN, contacts.put_contacts),
            "Replace the contacts of a customer; the sessions of those removed end.",
            query=ChangeQuery,
            sends=Contacts,
            answers=ContactList,
        ),
        Endpoint(
            *(
                "GET",
                ALERT_ADDRESS,
                READERS | OWN,
                contacts.alert_address,
                "Fetch the address to which a customer's alerts are mailed.",
            ),
            answers=CustomerAlertAddress,
        ),
        Endpoint(
            *("PUT", ALERT_ADDRESS, SUPPORT | OWN, contacts.put_alert_address),
            "Set the contact to which a customer's alerts are mailed, or none.",
            query=ChangeQuery,
            sends=AlertAddress,
            answers=CustomerAlertAddress,
        ),
        Endpoint(
            *(
                "GET",
                "/v1/incidents",
                READERS,
                incidents.incidents,
                "List the incidents of the last 90 days, latest first.",
            ),
            answers=IncidentList,
        ),
        Endpoint(
            *("POST", "/v1/incidents", SUPPORT, incidents.begin_incident),
            "Create an incident; the status page shows it to everyone.",
            **made,
            sends=CreateIncidentRequest,
            answers=Incident,
        ),
        Endpoint(
            *("POST", "/v1/incidents/{incident}/updates", SUPPORT, incidents.update_incident),
            "Add an update to an incident; the state `resolved` ends it.",
            **made,
            sends=IncidentUpdate,
            answers=Incident,
        ),
    )
