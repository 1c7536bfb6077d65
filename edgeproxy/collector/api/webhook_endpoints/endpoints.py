"""The table of endpoints: customers' webhooks."""

from edgeproxy.collector.accounts.webhook_models import (
    CreateWebhookEndpointRequest,
    UpdateWebhookEndpointRequest,
    WebhookDelivery,
    WebhookDeliveryList,
    WebhookEndpoint,
    WebhookEndpointList,
    WebhookEndpointWithSecret,
)
from edgeproxy.collector.api.endpoint import CREATE, OWN, READERS, SUPPORT, UPDATE, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import CUSTOMER, Group, PathParameter
from edgeproxy.collector.api.webhook_endpoints.handlers import WebhookEndpointHandlers
from edgeproxy.collector.api.webhook_endpoints.models import MessagesQuery

ALL = "/v1/customers/{customer}/webhook-endpoints"
ONE = f"{ALL}/{{endpoint}}"
ON_ITS_WAY = {409: "The endpoint is disabled, or the message is on its way already."}
GROUP = Group(
    "webhook-endpoints",
    "Customers' own webhooks: endpoints that receive events, and the messages to them.",
    WebhookEndpointHandlers,
    (
        Endpoint(
            "GET",
            ALL,
            WebhookEndpointHandlers.list_endpoints,
            "List the webhook endpoints of a customer, without secrets.",
            roles=READERS | OWN,
            response=WebhookEndpointList,
        ),
        Endpoint(
            "POST",
            ALL,
            WebhookEndpointHandlers.create_endpoint,
            "Create a webhook endpoint. Only this answer contains its secret.",
            roles=SUPPORT | OWN,
            query=ChangeQuery,
            body=CreateWebhookEndpointRequest,
            response=WebhookEndpointWithSecret,
            status=201,
            change=CREATE,
            example={"url": "https://hooks.acme.example/edge", "types": ["invoice.paid", "usage.threshold_reached"]},
        ),
        Endpoint(
            "GET",
            ONE,
            WebhookEndpointHandlers.fetch_endpoint,
            "Fetch a webhook endpoint, without its secret.",
            roles=READERS | OWN,
            response=WebhookEndpoint,
            response_headers=("ETag",),
        ),
        Endpoint(
            "PATCH",
            ONE,
            WebhookEndpointHandlers.update_endpoint,
            "Update a webhook endpoint, or disable or enable it.",
            roles=SUPPORT | OWN,
            query=ChangeQuery,
            body=UpdateWebhookEndpointRequest,
            response=WebhookEndpoint,
            change=UPDATE,
            example={"types": ["invoice.paid", "payment.failed"]},
        ),
        Endpoint(
            "DELETE",
            ONE,
            WebhookEndpointHandlers.delete_endpoint,
            "Delete a webhook endpoint, and the messages on their way to it.",
            roles=SUPPORT | OWN,
            query=ChangeQuery,
            response=WebhookEndpoint,
        ),
        Endpoint(
            "POST",
            f"{ONE}/secret",
            WebhookEndpointHandlers.rotate_secret,
            "Give a webhook endpoint a new secret. The old one signs too for 24 hours.",
            roles=SUPPORT | OWN,
            query=ChangeQuery,
            response=WebhookEndpointWithSecret,
            status=201,
            change=CREATE,
        ),
        Endpoint(
            "POST",
            f"{ONE}/test",
            WebhookEndpointHandlers.send_test,
            "Send a message of the type `webhook.test`.",
            roles=SUPPORT | OWN,
            query=ChangeQuery,
            response=WebhookDelivery,
            status=202,
            errors=ON_ITS_WAY,
        ),
        Endpoint(
            "GET",
            f"{ONE}/messages",
            WebhookEndpointHandlers.list_messages,
            "List the messages to a webhook endpoint in the last 30 days, latest first.",
            roles=READERS | OWN,
            query=MessagesQuery,
            response=WebhookDeliveryList,
        ),
        Endpoint(
            "POST",
            f"{ONE}/messages/{{message}}/redeliver",
            WebhookEndpointHandlers.redeliver_message,
            "Send a message again, even if it was accepted before.",
            roles=SUPPORT | OWN,
            query=ChangeQuery,
            response=WebhookDelivery,
            status=202,
            errors=ON_ITS_WAY,
        ),
    ),
    parameters={
        "customer": CUSTOMER,
        "endpoint": PathParameter("The id of the webhook endpoint, such as `we_…`."),
        "message": PathParameter("The id of the message, such as `msg_…`."),
    },
)
"""Customers' own webhooks."""
