"""Customers, their contacts, the address of their alerts, and raises of their limits."""

import asyncio
import hashlib
import tempfile
import time
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BeforeValidator
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, colleagues, contacts, customers, limit_raises
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.colleagues import PutContactRequest, RemoveContactRequest
from edgeproxy.collector.accounts.contacts import AlertAddress, ContactList, Contacts, CustomerAlertAddress
from edgeproxy.collector.accounts.limit_raises import CustomerLimitRaise, RaiseLimitsRequest
from edgeproxy.collector.accounts.list_figures import FigureFilters, list_conditions
from edgeproxy.collector.accounts.models import (
    CreateCustomerRequest,
    CustomerList,
    CustomerResponse,
    UpdateCustomerRequest,
)
from edgeproxy.collector.accounts.notices import notify_of_deletion
from edgeproxy.collector.accounts.preferred_region import PreferredRegion, put_preferred_region
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.anomalies.job import WHY_PAUSED
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.changes import ChangeHandlers, parse_if_match
from edgeproxy.collector.api.endpoint import (
    ADMIN,
    CREATE,
    MONEY_READERS,
    OWN,
    READERS,
    SUPPORT,
    UPDATE,
    ZIP,
    AnyCall,
    Call,
    Nothing,
    Query,
    delete,
    get,
    patch,
    post,
    put,
)
from edgeproxy.collector.api.field_types import ChangeQuery, Cursor, PageLimit, Printed, in_query
from edgeproxy.collector.api.group import Group, Resources
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import ProblemError, Result, next_page
from edgeproxy.collector.customer_search import search_customers
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.privacy import own_requests
from edgeproxy.collector.privacy.export import ARCHIVE_BYTES_MAX, ArchiveTooLargeError, write_archive
from edgeproxy.collector.problems import account_codes, request_codes
from edgeproxy.config.units import Whole

AMOUNT_MAX = 10**15
"""The highest permitted amount in a filter."""
Amount = Annotated[int, BeforeValidator(Whole(0, AMOUNT_MAX)), in_query(0, AMOUNT_MAX)]


class CustomersQuery(Query):
    """Filters of customers, and the page."""

    limit: PageLimit = 100
    """The number of customers on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    name: Printed | None = None
    """Only the customer of this name."""
    ref: Printed | None = None
    """Only customers with this name, pseudonym, id or external id, on one page. There are two if one customer's name is
    another one's external id.
    """
    tier: Printed | None = None
    """Only customers of this tier."""
    external_id: Printed | None = None
    """Only the customer with this id in another system."""
    plan: Printed | None = None
    """Only customers with the plan of this name, for example `standard`; empty: only customers without a plan."""
    min_spent: Amount | None = None
    """Only customers whose period has cost at least this, in the smallest unit of their currency."""
    min_overdue: Amount | None = None
    """Only customers with overdue invoices of at least this amount, in the smallest unit of their currency."""
    min_cap_percent: Annotated[int, BeforeValidator(Whole(0, 1000)), in_query(0, 1000)] | None = None
    """Only customers that have used at least this share of the day's spending cap, in percent."""
    not_called_days: Annotated[int, BeforeValidator(Whole(1, 3660)), in_query(1, 3660)] | None = None
    """Only customers whose keys were not used on this many days (UTC), today included."""
    sort: Literal[
        "created_at",
        "-created_at",
        "name",
        "-name",
        "tier",
        "-tier",
        "plan",
        "-plan",
        "spent",
        "-spent",
        "overdue",
        "-overdue",
        "cap_percent",
        "-cap_percent",
        "last_call_on",
        "-last_call_on",
    ] = "created_at"
    """The order of customers; `-` reverses it. `created_at` has the oldest first. Amounts are in the order of their
    numbers, whatever the currency. Customers without the value come first, with `-` last.
    """
    search: Printed | None = None
    """A part of a name or external id, the start of a key, an id, an address or its domain. All matches are on one
    page.
    """


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

    @get("/v1/customers", roles=READERS | OWN, own="the handler lists the customer alone")
    async def list_customers(self, call: Call[CustomersQuery, Nothing]) -> CustomerList:
        """List customers: oldest first, unless `sort` says otherwise.

        Plans and amounts are for the roles that may see invoices. Others may not filter or sort by them.
        """
        query, holder = call.query, call.holder
        figures = FigureFilters(*(getattr(query, name) for name in FigureFilters._fields))
        shows_money = bool(holder.roles & MONEY_READERS)
        if not shows_money and (figures.are_of_money or query.sort.removeprefix("-") in customers.MONEY_SORTS):
            raise auth.DeniedError(request_codes.ROLE_DENIED, f"{holder.called} may not see amounts of customers")
        filters = {"tier": query.tier, "external_id": query.external_id, "name": query.name}
        if holder.customer is not None:
            if query.name not in (None, holder.customer):
                raise auth.DeniedError(request_codes.OTHER_CUSTOMER, f"{holder.called} is bound to another customer")
            filters["name"] = holder.customer
        elif query.search:
            async with self._database.reading() as connection:
                matches = await search_customers(
                    connection, self._database, query.search, query.limit, shows_money=shows_money
                )
            return {"customers": matches}
        async with self._database.reading() as connection:
            rows = await customers.list_customers(
                connection,
                query.cursor,
                query.limit,
                sort=query.sort,
                ref=query.ref,
                conditions=list_conditions(connection, figures, time.time()),
                shows_money=shows_money,
                **filters,
            )
        return {"customers": rows, **next_page(rows.next)}

    @post(
        "/v1/customers",
        roles=ADMIN,
        example={"name": "acme", "tier": "standard", "metadata": {"country": "NL"}},
        status=201,
        change=CREATE,
    )
    async def create_customer(
        self, call: Call[ChangeQuery, CreateCustomerRequest], connection: AsyncConnection
    ) -> Result[CustomerResponse]:
        """Create a customer."""
        customer = await customers.create_customer(connection, call.caller, call.body, self._settings)
        return Result(customer, 1)

    @get("/v1/customers/{customer}", roles=READERS | OWN, response_headers=("ETag",))
    async def fetch_customer(self, call: Call[Query, Nothing]) -> Result[CustomerResponse]:
        """Fetch a customer by id or name."""
        async with self._database.reading() as connection:
            row = await customers.get_row(connection, call.path("customer"))
        return Result(customers.to_response(row), row.version)

    @patch("/v1/customers/{customer}", roles=SUPPORT, example={"tier": "enterprise"}, change=UPDATE)
    async def update_customer(self, call: Call[ChangeQuery, UpdateCustomerRequest]) -> Result[CustomerResponse]:
        """Update a customer: null removes a field. The role `support` may update `paused` only."""
        if "admin" not in call.holder.roles and call.body.model_fields_set - SUPPORT_FIELDS:
            raise auth.DeniedError(request_codes.ROLE_DENIED, f"{call.holder.called} may change nothing but paused")

        async def make(connection: AsyncConnection) -> Result[CustomerResponse]:
            ref, match = call.path("customer"), parse_if_match(call.request)
            if "paused" in call.body.model_fields_set:
                paused = customers.to_response(await customers.get_row(connection, ref, lock=True))["paused"]
                if paused is not None and paused["why"] == WHY_PAUSED:
                    auth.require_consent(call.holder, "take back a pause for unusual usage", time.time())
            return Result(
                *await customers.update_customer(connection, call.caller, ref, call.body, self._settings, match=match)
            )

        return await self._change(call, make)

    @delete(
        "/v1/customers/{customer}",
        roles=ADMIN | OWN,
        status=202,
        change=UPDATE,
        errors={409: "The customer is moving to another residency."},
        is_sensitive=True,
    )
    async def delete_customer(self, call: Call[ChangeQuery, Nothing], connection: AsyncConnection) -> CustomerResponse:
        """Start to delete a customer: edges answer its keys with 401, tokens of issuers with 403. Usage stays.

        Owners of the customer may do this, but none of its tokens.
        """
        ref, match = call.path("customer"), parse_if_match(call.request)
        async with across_customers(connection):  # An owner's deletion also ends an operator's raise of limits.
            response = await customers.start_deletion(connection, call.caller, ref, match=match)
            row = await customers.get_row(connection, ref)
            await notify_of_deletion(connection, call.caller, row, self._settings.retention.deleted)
            if call.holder.customer is not None:
                await own_requests.record_deletion(connection, call.caller, row)
            return response

    @post("/v1/customers/{customer}/restore", roles=ADMIN, change=UPDATE, is_sensitive=True)
    async def restore_customer(
        self, call: Call[ChangeQuery, Nothing], connection: AsyncConnection
    ) -> Result[CustomerResponse]:
        """Cancel the deletion of a customer, until `retention.deleted` is over."""
        ref, match = call.path("customer"), parse_if_match(call.request)
        before = await customers.get_row(connection, ref, lock=True)
        restored = await customers.restore_customer(connection, call.caller, ref, match=match)
        await own_requests.withdraw_deletion(connection, call.caller, before)
        return Result(*restored)

    @get(
        "/v1/customers/{customer}/data",
        roles=ADMIN | OWN,
        response_media=(ZIP,),
        errors={409: "The data is too large for a download. The command `edgeproxy privacy export` writes it."},
        is_sensitive=True,
        rate=RequestRate(3, "customer"),
    )
    async def export_customer(self, call: Call[Query, Nothing]) -> web.Response:
        """Download all data of a customer: a ZIP file with JSON and CSV.

        Owners of the customer may do this, but none of its tokens.
        """
        customer = call.path("customer")
        if customer in self._downloading:
            raise ProblemError(
                request_codes.DOWNLOAD_BUSY, "another download of it is under way", headers={"Retry-After": "30"}
            )
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
                    raise ProblemError(
                        account_codes.DOWNLOAD_TOO_LARGE, "it is too large for a download: ask for it to be sent"
                    ) from None
            file.seek(0)
            return row, file.read()

    # ---- contacts

    @get("/v1/customers/{customer}/contacts", roles=READERS | OWN)
    async def list_contacts(self, call: Call[Query, Nothing]) -> ContactList:
        """List the contacts of a customer. Contacts may sign in for it."""
        async with self._database.reading() as connection:
            return contacts.to_response(await contacts.fetch_contacts(connection, call.path("customer")))

    @put("/v1/customers/{customer}/contacts", roles=ADMIN, example={"emails": ["ann@acme.example"]})
    async def put_contacts(self, call: Call[ChangeQuery, Contacts], connection: AsyncConnection) -> ContactList:
        """Replace the contacts of a customer. New contacts are owners; sessions of removed contacts end."""
        ref = call.path("customer")
        at = await self._find_sensitive_from(connection, call, ref)
        return await contacts.put_contacts(connection, call.caller, ref, call.body, at)

    @post(
        "/v1/customers/{customer}/contacts",
        roles=ADMIN | OWN,
        example={"email": "dev@acme.example", "role": "developer"},
        status=201,
        may_be_200=True,
        errors={409: "The customer would have no owner."},
    )
    async def put_contact(
        self, call: Call[ChangeQuery, PutContactRequest], connection: AsyncConnection
    ) -> Result[ContactList]:
        """Add a contact of a customer, or change its role.

        Owners of the customer may do this, but none of its tokens.
        """
        ref = call.path("customer")
        at = await self._find_sensitive_from(connection, call, ref)
        is_new, body = await colleagues.put_contact(connection, call.caller, ref, call.body, at)
        return Result(body, status=201 if is_new else 200)

    async def _find_sensitive_from(self, connection: AsyncConnection, call: AnyCall, ref: str) -> int | None:
        """Return the earliest time of sensitive operations by a contact that the caller adds. None: at once."""
        now, is_trusted = time.time(), True
        try:
            auth.require_consent(call.holder, "vouch for a contact", now)
        except auth.DeniedError:
            is_trusted = False
        return await contacts.find_sensitive_from(connection, ref, call.caller, now, is_trusted=is_trusted)

    @post(
        "/v1/customers/{customer}/contacts/remove",
        roles=ADMIN | OWN,
        example={"email": "dev@acme.example"},
        errors={409: "The customer would have no owner."},
    )
    async def remove_contact(
        self, call: Call[ChangeQuery, RemoveContactRequest], connection: AsyncConnection
    ) -> ContactList:
        """Remove a contact of a customer and end its sessions.

        Owners of the customer may do this, but none of its tokens.
        """
        ref, email = call.path("customer"), call.body.email
        return await colleagues.remove_contact(connection, call.caller, ref, email)

    @get("/v1/customers/{customer}/alert-address", roles=READERS | OWN)
    async def fetch_alert_address(self, call: Call[Query, Nothing]) -> CustomerAlertAddress:
        """Fetch the address for a customer's alerts."""
        async with self._database.reading() as connection:
            email = await contacts.find_alert_address(connection, call.path("customer"))
        return self._build_alert_address(email)

    @put("/v1/customers/{customer}/alert-address", roles=SUPPORT | OWN, example={"email": "ann@acme.example"})
    async def put_alert_address(
        self, call: Call[ChangeQuery, AlertAddress], connection: AsyncConnection
    ) -> CustomerAlertAddress:
        """Set the contact that gets a customer's alerts by mail, or none."""
        email, ref = call.body.email, call.path("customer")
        await contacts.put_alert_address(connection, call.caller, ref, email, self._settings)
        return self._build_alert_address(email)

    @put("/v1/customers/{customer}/preferred-region", roles=SUPPORT | OWN, example={"region": "eu-west"})
    async def put_preferred_region(
        self, call: Call[ChangeQuery, PreferredRegion], connection: AsyncConnection
    ) -> Result[CustomerResponse]:
        """Set the region that a customer prefers, from the regions that may serve it, or none.

        Edges and beacons follow.
        """
        ref = call.path("customer")
        return Result(*await put_preferred_region(connection, call.caller, ref, call.body.region, self._settings))

    # ---- raises of limits

    @get("/v1/customers/{customer}/limits/raise", roles=READERS | OWN)
    async def fetch_limit_raise(self, call: Call[Query, Nothing]) -> CustomerLimitRaise:
        """Fetch the raise of a customer's limits, if there is one."""
        own = call.holder.customer is not None
        async with self._database.reading() as connection:
            return await limit_raises.fetch_raise(connection, call.path("customer"), own=own)

    @post(
        "/v1/customers/{customer}/limits/raise",
        roles=SUPPORT,
        example={"factor": 2, "for": "8h", "why": "A launch tonight, agreed by phone"},
        status=201,
        change=CREATE,
    )
    async def raise_limits(
        self, call: Call[ChangeQuery, RaiseLimitsRequest], connection: AsyncConnection
    ) -> CustomerLimitRaise:
        """Raise a customer's rates and concurrency for a while. This replaces an earlier raise."""
        ref = call.path("customer")
        return await limit_raises.raise_limits(connection, call.caller, ref, call.body)

    @delete("/v1/customers/{customer}/limits/raise", roles=SUPPORT)
    async def end_limit_raise(
        self, call: Call[ChangeQuery, Nothing], connection: AsyncConnection
    ) -> CustomerLimitRaise:
        """End the raise of a customer's limits now."""
        return await limit_raises.end_raise(connection, call.caller, call.path("customer"))

    def _build_alert_address(self, email: str | None) -> CustomerAlertAddress:
        return {"email": email, "is_mailed": self._settings.alerts.customers is not None}


GROUP = Group(
    "customers",
    "Customers, their contacts, the address for their alerts, and temporary raises of their limits.",
    CustomerHandlers,
)
