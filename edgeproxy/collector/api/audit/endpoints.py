"""The table of endpoints: audit."""

from edgeproxy.collector.api.audit.handlers import AuditHandlers
from edgeproxy.collector.api.audit.models import AuditActors, AuditPage, AuditQuery
from edgeproxy.collector.api.endpoint import ADMIN, Endpoint
from edgeproxy.collector.api.group import Group

GROUP = Group(
    "audit",
    "The audit log: each change, its actor, and the values before and after.",
    AuditHandlers,
    (
        Endpoint(
            "GET",
            "/v1/audit",
            AuditHandlers.list_entries,
            "List the audit log, oldest entry first.",
            roles=ADMIN,
            query=AuditQuery,
            response=AuditPage,
        ),
        Endpoint(
            "GET",
            "/v1/audit/actors",
            AuditHandlers.list_actors,
            "List the actors of recent changes.",
            roles=ADMIN,
            response=AuditActors,
        ),
    ),
)
