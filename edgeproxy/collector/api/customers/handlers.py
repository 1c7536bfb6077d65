"""Customers, their contacts, the address of their alerts, and raises of their limits."""

import asyncio
import hashlib
import tempfile
import time

from aiohttp import web
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, colleagues, contacts, customers, limit_raises
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.colleagues import PutContactRequest, RemoveContactRequest
from edgeproxy.collector.accounts.contacts import AlertAddress, Contacts, CustomerAlertAddress
from edgeproxy.collector.accounts.limit_raises import RaiseLimitsRequest
from edgeproxy.collector.accounts.models import CreateCustomerRequest
from edgeproxy.collector.accounts.preferred_region import PreferredRegion, put_preferred_region
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.accounts.search import search_customers
from edgeproxy.collector.anomalies.job import WHY_PAUSED
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.changes import ChangeHandlers, ChangeResult, answer_with_etag, parse_if_match
from edgeproxy.collector.api.customers.models import CustomersQuery
from edgeproxy.collector.api.endpoint import ZIP, AnyCall, Call, Nothing, Query
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Resources
from edgeproxy.collector.api.responses import ProblemError, answer, answer_page
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.privacy import own_requests
from edgeproxy.collector.privacy.export import ARCHIVE_BYTES_MAX, ArchiveTooLargeError, write_archive

DOWNLOADS_AT_ONCE = 2
"""Archives created concurrently. Each uses a connection for reading, and a large one takes a minute."""
SUPPORT_FIELDS = frozenset({"paused"})
"""The fields of a customer that support may change."""


class CustomerHandlers(ChangeHandlers):
    """Handlers of customers and of their contacts."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._downloading: set[str] = set()
        """Customers whose archives are being created or waiting."""
        self._download_room = asyncio.Semaphore(DOWNLOADS_AT_ONCE)

    async def list_customers(self, call: Call[CustomersQuery, Nothing]) -> web.Response:
        """List customers. A customer sees only itself."""
        query, holder = call.query, call.holder
        filters = {"tier": query.tier, "external_id": query.external_id, "name": query.name}
        if holder.customer is not None:
            if query.name not in (None, holder.customer):
                raise auth.DeniedError(403, f"{holder.called} is bound to another customer")
            filters["name"] = holder.customer
        elif query.search:
            async with self._database.reading() as connection:
                matches = await search_customers(connection, self._database, query.search, query.limit)
            return answer(200, {"customers": matches})
        async with self._database.reading() as connection:
            rows = await customers.list_customers(
                connection, query.cursor, query.limit, sort=query.sort, ref=query.ref, **filters
            )
        return answer_page("customers", rows, rows.next)

    async def create_customer(self, call: Call[ChangeQuery, CreateCustomerRequest]) -> web.Response:
        """Create a customer."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            customer = await customers.create_customer(connection, call.caller, call.body, self._settings)
            return ChangeResult(201, customer, 1)

        return await self._change(call, make, creates=True)

    async def fetch_customer(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch a customer."""
        async with self._database.reading() as connection:
            row = await customers.get_row(connection, call.path("customer"))
        return answer_with_etag(200, customers.to_response(row), row.version)

    async def update_customer(self, call: Call[ChangeQuery, BaseModel]) -> web.Response:
        """Update a customer. Support may only pause it. Ending a pause for unusual usage needs consent."""
        if "admin" not in call.holder.roles and call.body.model_fields_set - SUPPORT_FIELDS:
            raise auth.DeniedError(403, f"{call.holder.called} may change nothing but paused")

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, match = call.path("customer"), parse_if_match(call.request)
            if "paused" in call.body.model_fields_set:
                paused = customers.to_response(await customers.get_row(connection, ref, lock=True))["paused"]
                if paused is not None and paused["why"] == WHY_PAUSED:
                    auth.require_consent(call.holder, "take back a pause for unusual usage", time.time())
            return ChangeResult(
                200,
                *await customers.update_customer(connection, call.caller, ref, call.body, self._settings, match=match),
            )

        return await self._change(call, make)

    async def delete_customer(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Begin the deletion of a customer."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, match = call.path("customer"), parse_if_match(call.request)
            async with across_customers(connection):  # An owner's deletion also ends an operator's raise of limits.
                response = await customers.start_deletion(connection, call.caller, ref, match=match)
                if call.holder.customer is not None:
                    row = await customers.get_row(connection, ref)
                    await own_requests.record_deletion(connection, call.caller, row)
                return ChangeResult(202, response)

        return await self._change(call, make)

    async def export_customer(self, call: Call[Query, Nothing]) -> web.Response:
        """Send all data of a customer as a file."""
        customer = call.path("customer")
        if customer in self._downloading:
            raise ProblemError(429, "another download of it is under way", headers={"Retry-After": "30"})
        self._downloading.add(customer)
        try:
            async with self._download_room:
                row, content = await self._make_archive(customer, is_own=call.holder.customer is not None)
        finally:
            self._downloading.remove(customer)
        async with self._database.writing() as connection:
            if call.holder.customer is not None:
                sha256 = hashlib.sha256(content).hexdigest()
                await own_requests.record_download(connection, call.caller, row, sha256)
            await audit.append_entry(connection, call.caller, AuditEntry("customer.export", row.name))
        headers = {"Content-Disposition": f'attachment; filename="{row.name}.zip"', "Cache-Control": "no-store"}
        return web.Response(body=content, content_type=ZIP, headers=headers)

    async def _make_archive(self, customer: str, *, is_own: bool) -> tuple[CustomerRow, bytes]:
        """Return a customer and its archive. Raises ProblemError if it is too large."""
        with tempfile.TemporaryFile() as file:
            async with self._database.reading(whole=True) as connection, across_customers(connection):
                row = await customers.get_row(connection, customer)
                try:
                    await write_archive(connection, row, file, is_own=is_own, bytes_max=ARCHIVE_BYTES_MAX)
                except ArchiveTooLargeError:
                    raise ProblemError(409, "it is too large for a download: ask for it to be sent") from None
            file.seek(0)
            return row, file.read()

    async def restore_customer(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Cancel the deletion of a customer."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, match = call.path("customer"), parse_if_match(call.request)
            before = await customers.get_row(connection, ref, lock=True)
            restored = await customers.restore_customer(connection, call.caller, ref, match=match)
            await own_requests.withdraw_deletion(connection, call.caller, before)
            return ChangeResult(200, *restored)

        return await self._change(call, make)

    # ---- contacts

    async def list_contacts(self, call: Call[Query, Nothing]) -> web.Response:
        """List the contacts of a customer."""
        async with self._database.reading() as connection:
            return answer(200, contacts.to_response(await contacts.fetch_contacts(connection, call.path("customer"))))

    async def put_contacts(self, call: Call[ChangeQuery, Contacts]) -> web.Response:
        """Replace the contacts of a customer."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref = call.path("customer")
            at = await self._find_sensitive_from(connection, call, ref)
            return ChangeResult(200, await contacts.put_contacts(connection, call.caller, ref, call.body, at))

        return await self._change(call, make)

    async def put_contact(self, call: Call[ChangeQuery, PutContactRequest]) -> web.Response:
        """Add a contact of a customer, or change its role."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref = call.path("customer")
            at = await self._find_sensitive_from(connection, call, ref)
            is_new, body = await colleagues.put_contact(connection, call.caller, ref, call.body, at)
            return ChangeResult(201 if is_new else 200, body)

        return await self._change(call, make)

    async def _find_sensitive_from(self, connection: AsyncConnection, call: AnyCall, ref: str) -> int | None:
        """Return the earliest time of sensitive operations by a contact that the caller adds. None: at once."""
        now, is_trusted = time.time(), True
        try:
            auth.require_consent(call.holder, "vouch for a contact", now)
        except auth.DeniedError:
            is_trusted = False
        return await contacts.find_sensitive_from(connection, ref, call.caller, now, is_trusted=is_trusted)

    async def remove_contact(self, call: Call[ChangeQuery, RemoveContactRequest]) -> web.Response:
        """Remove a contact of a customer."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref, email = call.path("customer"), call.body.email
            return ChangeResult(200, await colleagues.remove_contact(connection, call.caller, ref, email))

        return await self._change(call, make)

    async def fetch_alert_address(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch the address of a customer's alerts."""
        async with self._database.reading() as connection:
            email = await contacts.find_alert_address(connection, call.path("customer"))
        return answer(200, self._build_alert_address(email))

    async def put_alert_address(self, call: Call[ChangeQuery, AlertAddress]) -> web.Response:
        """Set the address of a customer's alerts, or none."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            email, ref = call.body.email, call.path("customer")
            await contacts.put_alert_address(connection, call.caller, ref, email, self._settings)
            return ChangeResult(200, self._build_alert_address(email))

        return await self._change(call, make)

    async def put_preferred_region(self, call: Call[ChangeQuery, PreferredRegion]) -> web.Response:
        """Set the region that a customer prefers, or none."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref = call.path("customer")
            return ChangeResult(
                200, *await put_preferred_region(connection, call.caller, ref, call.body.region, self._settings)
            )

        return await self._change(call, make)

    # ---- raises of limits

    async def fetch_limit_raise(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch the raise of a customer's limits. The customer does not see the actor and the reason."""
        own = call.holder.customer is not None
        async with self._database.reading() as connection:
            return answer(200, await limit_raises.fetch_raise(connection, call.path("customer"), own=own))

    async def raise_limits(self, call: Call[ChangeQuery, RaiseLimitsRequest]) -> web.Response:
        """Raise a customer's limits temporarily."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            ref = call.path("customer")
            return ChangeResult(201, await limit_raises.raise_limits(connection, call.caller, ref, call.body))

        return await self._change(call, make, creates=True)

    async def end_limit_raise(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """End the raise of a customer's limits."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            return ChangeResult(200, await limit_raises.end_raise(connection, call.caller, call.path("customer")))

        return await self._change(call, make)

    def _build_alert_address(self, email: str | None) -> CustomerAlertAddress:
        return {"email": email, "is_mailed": self._settings.alerts.customers is not None}
