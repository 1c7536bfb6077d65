"""Who may sign in for a customer."""

from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import contacts
from edgeproxy.collector.accounts.contacts import AlertAddress, Contacts, CustomerAlertAddress
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.handlers.accounts import AccountHandlers
from edgeproxy.collector.api.ledger_models import ChangeQuery
from edgeproxy.collector.api.responses import answer


class ContactHandlers(AccountHandlers):
    """Makes changes of contacts as those of other accounts are made."""

    async def contacts(self, call: Call[Query, Nothing]) -> web.Response:
        """List the contacts of a customer."""
        async with self._database.reading() as connection:
            return answer(200, {"emails": await contacts.list_contacts(connection, call.path("customer"))})

    async def alert_address(self, call: Call[Query, Nothing]) -> web.Response:
        """Tell where a customer's own alerts are mailed."""
        async with self._database.reading() as connection:
            return answer(200, self._to_response(await contacts.find_alert_address(connection, call.path("customer"))))

    async def put_alert_address(self, call: Call[ChangeQuery, AlertAddress]) -> web.Response:
        """Have a customer's own alerts mailed to a contact, or nowhere."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            email, ref = call.body.email, call.path("customer")
            await contacts.put_alert_address(connection, call.caller, ref, email, self._settings)
            return 200, self._to_response(email), None

        return await self._change(call, make)

    def _to_response(self, email: str | None) -> CustomerAlertAddress:
        return {"email": email, "is_mailed": self._settings.alerts.customers is not None}

    async def put_contacts(self, call: Call[ChangeQuery, Contacts]) -> web.Response:
        """Have these be all contacts of a customer."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            return 200, await contacts.put_contacts(connection, call.caller, call.path("customer"), call.body), None

        return await self._change(call, make)
