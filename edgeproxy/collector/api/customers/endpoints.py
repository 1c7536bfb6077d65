"""The table of endpoints: customers."""

from edgeproxy.collector.accounts.contacts import AlertAddress, ContactList, Contacts, CustomerAlertAddress
from edgeproxy.collector.accounts.models import (
    CreateCustomerRequest,
    CustomerList,
    CustomerResponse,
    UpdateCustomerRequest,
)
from edgeproxy.collector.api.customers.handlers import CustomerHandlers
from edgeproxy.collector.api.customers.models import CustomersQuery
from edgeproxy.collector.api.endpoint import ADMIN, CREATE, OWN, READERS, SUPPORT, UPDATE, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import CUSTOMER, Group

GROUP = Group(
    "customers",
    "Customers, their contacts and the address of their alerts.",
    CustomerHandlers,
    (
        Endpoint(
            "GET",
            "/v1/customers",
            CustomerHandlers.list_customers,
            "List customers, oldest first.",
            roles=READERS | OWN,
            query=CustomersQuery,
            response=CustomerList,
            own="the handler lists the customer alone",
        ),
        Endpoint(
            "POST",
            "/v1/customers",
            CustomerHandlers.create_customer,
            "Create a customer.",
            roles=ADMIN,
            query=ChangeQuery,
            body=CreateCustomerRequest,
            response=CustomerResponse,
            status=201,
            change=CREATE,
        ),
        Endpoint(
            "GET",
            "/v1/customers/{customer}",
            CustomerHandlers.fetch_customer,
            "Fetch a customer by id or name.",
            roles=READERS | OWN,
            response=CustomerResponse,
            response_headers=("ETag",),
        ),
        Endpoint(
            "PATCH",
            "/v1/customers/{customer}",
            CustomerHandlers.update_customer,
            "Update a customer: null removes a field. Support may update `paused` alone.",
            roles=SUPPORT,
            query=ChangeQuery,
            body=UpdateCustomerRequest,
            response=CustomerResponse,
            change=UPDATE,
        ),
        Endpoint(
            "DELETE",
            "/v1/customers/{customer}",
            CustomerHandlers.delete_customer,
            "Begin to delete a customer: edges answer its keys with 401, tokens of issuers with 403. Usage stays.",
            roles=ADMIN,
            query=ChangeQuery,
            response=CustomerResponse,
            status=202,
            change=UPDATE,
            is_sensitive=True,
        ),
        Endpoint(
            "POST",
            "/v1/customers/{customer}/restore",
            CustomerHandlers.restore_customer,
            "Take the deletion of a customer back, until `retention.deleted` is over.",
            roles=ADMIN,
            query=ChangeQuery,
            response=CustomerResponse,
            change=UPDATE,
            is_sensitive=True,
        ),
        Endpoint(
            "GET",
            "/v1/customers/{customer}/contacts",
            CustomerHandlers.list_contacts,
            "List the contacts of a customer, who may sign in for it.",
            roles=READERS | OWN,
            response=ContactList,
        ),
        Endpoint(
            "PUT",
            "/v1/customers/{customer}/contacts",
            CustomerHandlers.put_contacts,
            "Replace the contacts of a customer; the sessions of those removed end.",
            roles=ADMIN,
            query=ChangeQuery,
            body=Contacts,
            response=ContactList,
        ),
        Endpoint(
            "GET",
            "/v1/customers/{customer}/alert-address",
            CustomerHandlers.fetch_alert_address,
            "Fetch the address to which a customer's alerts are mailed.",
            roles=READERS | OWN,
            response=CustomerAlertAddress,
        ),
        Endpoint(
            "PUT",
            "/v1/customers/{customer}/alert-address",
            CustomerHandlers.put_alert_address,
            "Set the contact to which a customer's alerts are mailed, or none.",
            roles=SUPPORT | OWN,
            query=ChangeQuery,
            body=AlertAddress,
            response=CustomerAlertAddress,
        ),
    ),
    parameters={"customer": CUSTOMER},
)
