"""All endpoints of the collector, a row each: of this table routing, the checks of who may call and of what is sent,
and `GET /v1/openapi.json` are made.
"""

from typing import Any, NamedTuple

from edgeproxy.collector.accounts.models import (
    CreateCustomerRequest,
    CreateKeyRequest,
    CustomerList,
    CustomerResponse,
    FlagList,
    FlagRequest,
    FlagResponse,
    Key,
    KeyList,
    KeyWithSecret,
    LeakReport,
    LeakReportResult,
    RotateKeyRequest,
    UpdateCustomerRequest,
    UpdateKeyRequest,
)
from edgeproxy.collector.accounts.tokens import (
    CreateTokenRequest,
    CreateTokenSecretRequest,
    TokenList,
    TokenResponse,
    TokenWithSecret,
)
from edgeproxy.collector.api import ledger_models
from edgeproxy.collector.api.alert_endpoints import alert_endpoints
from edgeproxy.collector.api.billing_endpoints import billing_endpoints
from edgeproxy.collector.api.change_fields import CHANGES, CREATES
from edgeproxy.collector.api.credit_endpoints import credit_endpoints
from edgeproxy.collector.api.delivery_endpoints import delivery_endpoints
from edgeproxy.collector.api.endpoint import (
    ADMIN,
    ANYONE,
    API_USERS,
    BEACON,
    BYTES,
    CSV,
    EDGE,
    EVERYWHERE,
    JSON,
    JSON_LINES,
    OWN,
    READERS,
    SERVICE,
    SUPPORT,
    TEXT,
    Endpoint,
    HeadField,
)
from edgeproxy.collector.api.figure_endpoints import figure_endpoints
from edgeproxy.collector.api.handlers.accounts import AccountHandlers
from edgeproxy.collector.api.handlers.alerts import AlertHandlers
from edgeproxy.collector.api.handlers.audit import AuditHandlers
from edgeproxy.collector.api.handlers.billing import BillingHandlers
from edgeproxy.collector.api.handlers.contacts import ContactHandlers
from edgeproxy.collector.api.handlers.credits import CreditHandlers
from edgeproxy.collector.api.handlers.delivery import DeliveryHandlers
from edgeproxy.collector.api.handlers.directory import DirectoryHandlers
from edgeproxy.collector.api.handlers.events import EventHandlers
from edgeproxy.collector.api.handlers.figures import FigureHandlers
from edgeproxy.collector.api.handlers.incidents import IncidentHandlers
from edgeproxy.collector.api.handlers.ledger import LedgerHandlers
from edgeproxy.collector.api.handlers.quarantine import QuarantineHandlers
from edgeproxy.collector.api.handlers.quotas import QuotaHandlers
from edgeproxy.collector.api.handlers.regions import RegionHandlers
from edgeproxy.collector.api.handlers.service import ServiceHandlers
from edgeproxy.collector.api.handlers.tokens import TokenHandlers
from edgeproxy.collector.api.page_endpoints import page_endpoints
from edgeproxy.collector.api.quota_endpoints import quota_endpoints
from edgeproxy.collector.api.request_limits import Often


class Handlers(NamedTuple):
    """Who answers."""

    service: ServiceHandlers
    ledger: LedgerHandlers
    quarantine: QuarantineHandlers
    audit: AuditHandlers
    accounts: AccountHandlers
    regions: RegionHandlers
    directory: DirectoryHandlers
    events: EventHandlers
    tokens: TokenHandlers
    alerts: AlertHandlers
    billing: BillingHandlers
    quotas: QuotaHandlers
    contacts: ContactHandlers
    incidents: IncidentHandlers
    delivery: DeliveryHandlers
    credits: CreditHandlers
    figures: FigureHandlers


BATCH_FIELDS = {
    name: HeadField({"type": "string", "pattern": pattern}, description, required=True)
    for name, pattern, description in (
        ("Edge-Id", "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", "The id of the edge."),
        ("Edge-Seq", "^[1-9][0-9]{0,14}$", "The number of the batch."),
        ("Edge-Hash", "^[0-9a-f]{64}$", "The hash of the batch, in hex digits."),
    )
}
"""The fields of the head that say which batch it is."""
A_CUSTOMER, A_KEY, A_FLAG = "/v1/customers/{customer}", "/v1/keys/{key}", "/v1/flags/{flag}"
A_TOKEN = "/v1/tokens/{token}"
LEAK_REPORTS = Often(10, "address")
EVENT_MEDIA = (JSON, JSON_LINES, "application/cloudevents+json", "application/cloudevents-batch+json")
A_LETTER = "/v1/dead-letters/{letter}"
A_BATCH = "/v1/quarantine/{edge}/{seq}"


def endpoints(handlers: Handlers) -> tuple[Endpoint[Any, Any], ...]:
    """List all endpoints."""
    service, ledger, quarantine, audit, accounts, regions, directory, events, tokens, alerts, billing, quotas, *_ = (
        handlers
    )
    return (
        # The ledger: what edges have counted.
        Endpoint(
            *(
                "POST",
                "/v1/batches",
                EDGE,
                ledger.take,
                "Ingest a batch of an edge; the answer comes once it is on disk.",
            ),
            media=(BYTES,),
            answers=ledger_models.Watermark,
            fields=BATCH_FIELDS,
            refuses=(409, 422, 429),
        ),
        Endpoint(
            *("GET", "/v1/usage", READERS | OWN, ledger.usage, "Report usage, grouped by any of its dimensions."),
            query=ledger_models.UsageQuery,
            answers=ledger_models.Usage,
            gives=(CSV,),
            refuses=(429,),
            own="the handler asks for the customer's usage alone",
        ),
        Endpoint(
            "GET",
            "/v1/edges",
            READERS,
            ledger.edges,
            "List edges with their watermarks, delays and gaps.",
            answers=ledger_models.EdgeList,
        ),
        Endpoint(
            *("PATCH", "/v1/edges/{edge}", ADMIN, ledger.change_edge),
            "Retire an edge or take it back, bind it to another token and region, or consent to a gap.",
            sends=ledger_models.UpdateEdgeRequest,
            answers=ledger_models.EdgeUpdated,
            refuses=(409,),
        ),
        # Usage that services report.
        Endpoint(
            *(
                "POST",
                "/v1/events",
                SERVICE,
                events.take,
                "Ingest usage events; the answer comes once they are on disk.",
            ),
            media=EVENT_MEDIA,
            answers=ledger_models.EventsResult,
            status=202,
            refuses=(413, 415, 429),
        ),
        Endpoint(
            *("GET", "/v1/dead-letters", ADMIN, events.letters, "List the events that were rejected, oldest first."),
            query=ledger_models.DeadLettersQuery,
            answers=ledger_models.DeadLetterList,
        ),
        Endpoint(
            "GET", A_LETTER, ADMIN, events.letter, "Fetch an event that was rejected.", answers=ledger_models.DeadLetter
        ),
        Endpoint(
            *("POST", f"{A_LETTER}/replay", ADMIN, events.replay),
            "Count a rejected event after all, as it is or as the request has it.",
            media=(JSON,),
            answers=ledger_models.EventsResult,
            refuses=(409, 422),
        ),
        Endpoint(
            *("DELETE", A_LETTER, ADMIN, events.discard, "Discard a rejected event for good."),
            query=ledger_models.WhyQuery,
            status=204,
        ),
        # What edges must know of customers and keys.
        Endpoint(
            *("GET", "/v1/directory", EDGE, directory.news),
            "Fetch the signed lines of the directory after a version; the answer waits until there are some.",
            query=ledger_models.DirectoryQuery,
            answers=ledger_models.DirectoryChanges,
            refuses=(404,),
        ),
        Endpoint(
            *(
                "GET",
                "/v1/directory/parts/{token}/{place}",
                EDGE,
                directory.part,
                "Fetch a part of a version of the directory.",
            ),
            gives=(BYTES,),
        ),
        # What nobody could read.
        Endpoint(
            *("GET", "/v1/quarantine", ADMIN, quarantine.listing, "List the batches in quarantine."),
            query=ledger_models.QuarantineQuery,
            answers=ledger_models.QuarantineList,
        ),
        Endpoint(
            "GET",
            A_BATCH,
            ADMIN,
            quarantine.shown,
            "Fetch a batch in quarantine, without its body.",
            answers=ledger_models.QuarantinedBatch,
        ),
        Endpoint(
            "GET",
            f"{A_BATCH}/body",
            ADMIN,
            quarantine.body,
            "Download the body of a batch in quarantine.",
            gives=(BYTES,),
        ),
        Endpoint(
            *("POST", f"{A_BATCH}/replay", ADMIN, quarantine.replay),
            "Count a batch in quarantine after all, by its own body or by the one in the request.",
            media=(BYTES,),
            answers=ledger_models.ReplayResult,
            refuses=(409, 422),
        ),
        # Who did what.
        Endpoint(
            *("GET", "/v1/audit", ADMIN, audit.page, "List the audit log, oldest entry first."),
            query=ledger_models.AuditQuery,
            answers=ledger_models.AuditPage,
        ),
        # Customers.
        Endpoint(
            *("GET", "/v1/customers", READERS | OWN, accounts.customers, "List customers, oldest first."),
            query=ledger_models.CustomersQuery,
            answers=CustomerList,
            own="the handler lists the customer alone",
        ),
        Endpoint(
            *("POST", "/v1/customers", ADMIN, accounts.create_customer, "Create a customer."),
            **CREATES,
            sends=CreateCustomerRequest,
            answers=CustomerResponse,
        ),
        Endpoint(
            *("GET", A_CUSTOMER, READERS | OWN, accounts.customer, "Fetch a customer by id or name."),
            answers=CustomerResponse,
            shows=("ETag",),
        ),
        Endpoint(
            *("PATCH", A_CUSTOMER, SUPPORT, accounts.change_customer),
            "Update a customer: null removes a field. Support may update `paused` alone.",
            **CHANGES,
            sends=UpdateCustomerRequest,
            answers=CustomerResponse,
        ),
        Endpoint(
            *("DELETE", A_CUSTOMER, ADMIN, accounts.delete_customer),
            "Begin to delete a customer: edges answer its keys with 401, tokens of issuers with 403. Usage stays.",
            **CHANGES,
            answers=CustomerResponse,
            status=202,
            sensitive=True,
        ),
        Endpoint(
            *("POST", f"{A_CUSTOMER}/restore", ADMIN, accounts.restore_customer),
            "Take the deletion of a customer back, until `retention.deleted` is over.",
            **CHANGES,
            answers=CustomerResponse,
            sensitive=True,
        ),
        *quota_endpoints(quotas),
        # Keys.
        Endpoint(
            *(
                "GET",
                f"{A_CUSTOMER}/keys",
                READERS | OWN,
                accounts.keys,
                "List the keys of a customer, without secrets.",
            ),
            query=ledger_models.KeysQuery,
            answers=KeyList,
        ),
        Endpoint(
            *("POST", f"{A_CUSTOMER}/keys", ADMIN | OWN, accounts.create_key),
            "Create a key; its secret is in this answer alone. A customer's is at most as wide as one it has.",
            **CREATES,
            sends=CreateKeyRequest,
            answers=KeyWithSecret,
        ),
        Endpoint(
            "GET", A_KEY, READERS | OWN, accounts.key, "Fetch a key, without its secret.", answers=Key, shows=("ETag",)
        ),
        Endpoint(
            *("PATCH", A_KEY, ADMIN | OWN, accounts.change_key),
            "Update a key: null removes a field. A customer can make it narrower, not wider.",
            **CHANGES,
            sends=UpdateKeyRequest,
            answers=Key,
        ),
        Endpoint(
            *("DELETE", A_KEY, SUPPORT | OWN, accounts.revoke_key, "Revoke a key at once."),
            **CHANGES,
            answers=Key,
        ),
        Endpoint(
            *("POST", f"{A_KEY}/restore", ADMIN, accounts.restore_key),
            "Restore a revoked key, within 24 hours and before it would have expired.",
            **CHANGES,
            answers=Key,
            sensitive=True,
        ),
        Endpoint(
            *("POST", f"{A_KEY}/rotate", SUPPORT | OWN, accounts.rotate_key),
            "Rotate a key: create its replacement, and end it after the overlap.",
            **CREATES,
            sends=RotateKeyRequest,
            answers=KeyWithSecret,
        ),
        Endpoint(
            *("POST", "/v1/keys/leaked", ANYONE, accounts.leaked),
            "Report leaked keys, which are revoked; only a key itself is proof. The answer is always the same.",
            serve=frozenset({"customers"}),
            sends=LeakReport,
            answers=LeakReportResult,
            status=202,
            often=LEAK_REPORTS,
        ),
        # Tokens.
        Endpoint(
            *("GET", "/v1/tokens", ADMIN, tokens.tokens, "List all tokens, without secrets."),
            answers=TokenList,
        ),
        Endpoint(
            *("POST", "/v1/tokens", ADMIN, tokens.create_token),
            "Create a token; its secret is in this answer alone. Roles of people need a second factor.",
            **CREATES,
            sends=CreateTokenRequest,
            answers=TokenWithSecret,
        ),
        Endpoint("GET", A_TOKEN, ADMIN, tokens.token, "Fetch a token, without its secrets.", answers=TokenResponse),
        Endpoint(
            *("POST", A_TOKEN, ADMIN, tokens.add_secret),
            "Add a secret to a token; its other secrets end after the overlap.",
            **CREATES,
            sends=CreateTokenSecretRequest,
            answers=TokenWithSecret,
        ),
        Endpoint(
            *("DELETE", A_TOKEN, ADMIN, tokens.revoke_token, "Revoke a token and all of its secrets at once."),
            query=ledger_models.ChangeQuery,
            answers=TokenResponse,
        ),
        # Flags.
        Endpoint("GET", "/v1/flags", READERS, accounts.flags, "List all flags.", answers=FlagList),
        Endpoint("GET", A_FLAG, READERS, accounts.flag, "Fetch a flag.", answers=FlagResponse, shows=("ETag",)),
        Endpoint(
            *(
                "PUT",
                A_FLAG,
                ADMIN,
                accounts.put_flag,
                "Set who has a flag; where an edge's own files set it, those count there.",
            ),
            **CHANGES,
            sends=FlagRequest,
            answers=FlagResponse,
        ),
        # Which region is nearest to whom.
        Endpoint(
            *(
                "POST",
                "/v1/regions/reports",
                BEACON,
                regions.take,
                "Ingest the round trips that clients have measured to each region.",
            ),
            sends=ledger_models.RegionReports,
            answers=ledger_models.RegionReportsResult,
            refuses=(404,),
        ),
        Endpoint(
            *("GET", "/v1/regions/best", BEACON | EDGE | READERS, regions.best, "Find the best region for a client."),
            query=ledger_models.BestRegionQuery,
            answers=ledger_models.BestRegion,
            refuses=(404,),
        ),
        *alert_endpoints(alerts),
        *billing_endpoints(billing),
        # What pages need.
        *page_endpoints(handlers.contacts, handlers.incidents, CREATES),
        *delivery_endpoints(handlers.delivery),
        *credit_endpoints(handlers.credits),
        *figure_endpoints(handlers.figures),
        # The collector itself.
        Endpoint(
            *("GET", "/healthz", ANYONE, service.healthz, "Check that the collector is alive."),
            serve=EVERYWHERE,
            gives=(TEXT,),
        ),
        Endpoint(
            *("GET", "/readyz", ANYONE, service.readyz, "Check that the collector takes batches now."),
            serve=EVERYWHERE,
            answers=ledger_models.Ready,
        ),
        Endpoint(
            *("GET", "/metrics", ANYONE, service.metrics, "Fetch the metrics, for Prometheus."),
            serve=frozenset({"metrics"}),
            gives=(TEXT,),
            refuses=(401,),
        ),
        Endpoint(
            *(
                "GET",
                "/v1/openapi.json",
                ANYONE,
                service.openapi,
                "Fetch the OpenAPI description of what this listener answers.",
            ),
            serve=API_USERS,
            answers=dict[str, Any],
        ),
    )
