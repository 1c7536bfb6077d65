"""What Stripe does not have, below `/_sandbox/`: time, faults, the journal, and pages on which people pay."""

import html
from typing import TypeVar

import msgspec
import orjson
from aiohttp import web

from edgeproxy.stripe_sandbox.delivery import Deliveries, states
from edgeproxy.stripe_sandbox.faults import Asked
from edgeproxy.stripe_sandbox.objects import checkout
from edgeproxy.stripe_sandbox.refusal import Refusal
from edgeproxy.stripe_sandbox.state import State
from edgeproxy.stripe_sandbox.store import transaction
from edgeproxy.stripe_sandbox.transaction import Body, Transaction

T = TypeVar("T")

LIMIT, LIMIT_MAX = 1000, 10_000
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)


class Passing(msgspec.Struct, forbid_unknown_fields=True):
    """How time is to pass: by so many seconds, or until then."""

    advance: float | None = None
    now: float | None = None


class Card(msgspec.Struct, forbid_unknown_fields=True):
    """Which card a customer pays by."""

    card: str = "pm_card_visa"


class Controls:
    """Answers what is below `/_sandbox/`."""

    def __init__(self, state: State, deliveries: Deliveries) -> None:
        self._state = state
        self._deliveries = deliveries

    def add_to(self, application: web.Application) -> None:
        """Add the paths."""
        router = application.router
        router.add_get("/_sandbox/ready", self.ready)
        router.add_get("/_sandbox/clock", self.clock)
        router.add_post("/_sandbox/clock", self.advance)
        router.add_get("/_sandbox/faults", self.faults)
        router.add_post("/_sandbox/faults", self.ask)
        router.add_get("/_sandbox/journal", self.journal)
        router.add_get("/_sandbox/deliveries", self.deliveries)
        router.add_post("/_sandbox/deliveries", self.deliver)
        router.add_get("/_sandbox/invoices/{id}", self.invoice)
        router.add_get("/_sandbox/invoices/{id}/pdf", self.invoice_pdf)
        router.add_get("/_sandbox/receipts/{id}", self.receipt)
        router.add_get("/_sandbox/credit_notes/{id}/pdf", self.credit_note_pdf)
        router.add_get("/_sandbox/checkout/{id}", self.checkout)
        router.add_post("/_sandbox/checkout/{id}/pay", self.pay)
        router.add_get("/_sandbox/portal/{id}", self.portal)

    async def ready(self, _: web.Request) -> web.Response:
        """It answers."""
        return said({"ready": True})

    async def clock(self, _: web.Request) -> web.Response:
        """What time it is."""
        return said({"now": self._state.clock()})

    async def advance(self, request: web.Request) -> web.Response:
        """Let time pass; it never goes back."""
        passing = await read(request, Passing)
        seconds = passing.advance if passing.now is None else passing.now - self._state.clock()
        if seconds is None or seconds < 0:
            raise web.HTTPBadRequest(text="say advance: SECONDS or now: a time that is to come")
        return said({"now": self._state.advance(seconds)})

    async def faults(self, _: web.Request) -> web.Response:
        """The faults that are asked for, and how many calls each has met."""
        return said(msgspec.to_builtins(self._state.faults.asked))

    async def ask(self, request: web.Request) -> web.Response:
        """Have these faults happen, and no others."""
        asked = await read(request, Asked)
        self._state.ask(asked)
        return said(msgspec.to_builtins(asked))

    async def journal(self, request: web.Request) -> web.Response:
        """Every effect, once."""
        after, limit = window(request)
        entries = self._state.journal(after, limit, request.query.get("what", ""))
        return said({"entries": entries, "last": entries[-1]["seq"] if entries else after})

    async def deliveries(self, request: web.Request) -> web.Response:
        """What became of each delivery of an event."""
        after, limit = window(request)
        return said({"deliveries": states(self._state.connection, after, limit)})

    async def deliver(self, _: web.Request) -> web.Response:
        """Try all deliveries that wait, whenever they would be due."""
        return said({"tried": await self._deliveries.step(all=True)})

    # ---- pages

    def _object(self, kind: str, id: str) -> tuple[Transaction, Body]:
        for live in (False, True):
            tx = Transaction(self._state.account, live, int(self._state.clock()))
            found = tx.find(kind, id)
            if found is not None:
                return tx, found
        raise web.HTTPNotFound(text=f"there is no {kind} {id}")

    async def invoice(self, request: web.Request) -> web.Response:
        """An invoice as a page."""
        tx, found = self._object("invoice", request.match_info["id"])
        lines = "".join(
            f"<tr><td>{html.escape(str(line.get('description') or ''))}<td>{line['amount']}"
            for line in tx.shown(found)["lines"]["data"]
        )
        title = f"Invoice {found.get('number') or found['id']}"
        return page(title, f"<table>{lines}<tr><td>Total<td>{found['total']}</table><p>{found['status']}")

    async def invoice_pdf(self, request: web.Request) -> web.Response:
        """An invoice as a PDF, without anything on it."""
        self._object("invoice", request.match_info["id"])
        return web.Response(body=PDF, content_type="application/pdf")

    async def credit_note_pdf(self, request: web.Request) -> web.Response:
        """A credit note as a PDF, without anything on it."""
        self._object("credit_note", request.match_info["id"])
        return web.Response(body=PDF, content_type="application/pdf")

    async def checkout(self, request: web.Request) -> web.Response:
        """A session as a page with a button."""
        _, found = self._object("checkout.session", request.match_info["id"])
        if found["status"] != "open":
            return page("Checkout", f"<p>This session is {found['status']}.")
        amount = f"{found.get('amount_total', 0)} {found.get('currency') or ''}"
        form = f"<form method=post action='/_sandbox/checkout/{found['id']}/pay'><button>Pay</button></form>"
        return page("Checkout", f"<p>{html.escape(amount)}{form}")

    async def pay(self, request: web.Request) -> web.Response:
        """The customer pays a session, by `{"card": TOKEN}` or by the button of its page."""
        tx, found = self._object("checkout.session", request.match_info["id"])
        sent = request.content_type == "application/json"
        card = (await read(request, Card)).card if sent else Card().card
        try:
            with transaction(self._state.connection):
                made = tx.shown(checkout.pay(tx, found["id"], card))
        except Refusal as no:
            return web.Response(status=no.status, body=orjson.dumps(no.body), content_type="application/json")
        self._state.wake()
        if sent:
            return said(made)
        where = (made["success_url"] or "/").replace("{CHECKOUT_SESSION_ID}", found["id"])
        return web.Response(status=303, headers={"Location": where})

    async def portal(self, request: web.Request) -> web.Response:
        """A customer's invoices as a page."""
        tx, found = self._object("billing_portal.session", request.match_info["id"])
        rows = "".join(
            f"<tr><td>{html.escape(one.get('number') or one['id'])}<td>{one['total']}<td>{one['status']}"
            for one in tx.all("invoice", customer=found["customer"])
        )
        return page("Invoices", f"<table>{rows}</table>")

    async def receipt(self, request: web.Request) -> web.Response:
        """A receipt as a page."""
        _, found = self._object("charge", request.match_info["id"])
        return page(f"Receipt {found['id']}", f"<p>{found['amount']} {found['currency']}")


def window(request: web.Request) -> tuple[int, int]:
    """From where on, and how many."""
    try:
        after, limit = (int(request.query.get(name, default)) for name, default in (("after", 0), ("limit", LIMIT)))
    except ValueError:
        raise web.HTTPBadRequest(text="after and limit are whole numbers") from None
    return after, max(1, min(limit, LIMIT_MAX))


async def read(request: web.Request, kind: type[T]) -> T:
    """What is sent, as JSON."""
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError as bad:
        raise web.HTTPBadRequest(text=str(bad)) from None


def said(body: object) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def page(title: str, content: str) -> web.Response:
    """Answer with a page."""
    head = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><h1>{html.escape(title)}</h1>"
    headers = {
        "Content-Security-Policy": "default-src 'none'; form-action 'self' http: https:",
        "Cache-Control": "no-store",
    }
    return web.Response(text=head + content, content_type="text/html", headers=headers)
