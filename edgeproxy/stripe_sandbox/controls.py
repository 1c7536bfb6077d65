"""Controls that Stripe does not have, below `/_sandbox/`: time, faults, the journal, and payment pages."""

import asyncio
import html
from time import monotonic
from typing import TypeVar

import msgspec
import orjson
from aiohttp import web

from edgeproxy.stripe_sandbox.delivery import Deliveries, list_states
from edgeproxy.stripe_sandbox.due import DueWork
from edgeproxy.stripe_sandbox.faults import FaultPlan
from edgeproxy.stripe_sandbox.objects import checkout
from edgeproxy.stripe_sandbox.refusal import ApiError
from edgeproxy.stripe_sandbox.state import State
from edgeproxy.stripe_sandbox.store import transaction
from edgeproxy.stripe_sandbox.transaction import Body, Fields, Transaction

T = TypeVar("T")

FORM = "application/x-www-form-urlencoded"
LIMIT, LIMIT_MAX = 1000, 10_000
DUE_SECONDS = 5.0
"""Seconds that the answer to a jump of the clock waits for what came due by it; the rest is done after that."""
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)


class ClockAdvance(msgspec.Struct, forbid_unknown_fields=True):
    """A request to advance the clock: by some seconds, or until a time."""

    advance: float | None = None
    now: float | None = None


class CardChoice(msgspec.Struct, forbid_unknown_fields=True):
    """The card by which a customer pays, and the promotion code that they enter."""

    card: str = "pm_card_visa"
    promotion_code: str | None = None


class Controls:
    """Handlers of the paths below `/_sandbox/`."""

    def __init__(self, state: State, deliveries: Deliveries, due: DueWork) -> None:
        self._state = state
        self._deliveries = deliveries
        self._due = due

    def add_routes(self, application: web.Application) -> None:
        """Add the routes to an application."""
        router = application.router
        router.add_get("/_sandbox/ready", self.get_ready)
        router.add_get("/_sandbox/clock", self.get_clock)
        router.add_post("/_sandbox/clock", self.advance_clock)
        router.add_get("/_sandbox/faults", self.get_faults)
        router.add_post("/_sandbox/faults", self.set_faults)
        router.add_get("/_sandbox/journal", self.list_effects)
        router.add_get("/_sandbox/deliveries", self.list_deliveries)
        router.add_post("/_sandbox/deliveries", self.attempt_deliveries)
        router.add_get("/_sandbox/invoices/{id}", self.get_invoice)
        router.add_get("/_sandbox/invoices/{id}/pdf", self.get_invoice_pdf)
        router.add_get("/_sandbox/receipts/{id}", self.get_receipt)
        router.add_get("/_sandbox/credit_notes/{id}/pdf", self.get_credit_note_pdf)
        router.add_get("/_sandbox/checkout/{id}", self.get_checkout)
        router.add_post("/_sandbox/checkout/{id}/pay", self.pay_checkout)
        router.add_get("/_sandbox/portal/{id}", self.get_portal)

    async def get_ready(self, _: web.Request) -> web.Response:
        """Answer that the sandbox serves."""
        return respond_json({"ready": True})

    async def get_clock(self, _: web.Request) -> web.Response:
        """Return the sandbox's time."""
        return respond_json({"now": self._state.clock()})

    async def advance_clock(self, request: web.Request) -> web.Response:
        """Advance the clock, which never goes back, and answer once what came due by it is done, or after a while."""
        passing = await parse_body(request, ClockAdvance)
        seconds = passing.advance if passing.now is None else passing.now - self._state.clock()
        if seconds is None or seconds < 0:
            raise web.HTTPBadRequest(text="say advance: SECONDS or now: a time that is to come")
        now = self._state.advance(seconds)
        until = monotonic() + DUE_SECONDS
        while self._due.run_due(now) and monotonic() < until:  # noqa: ASYNC110  # It is no wait: others have their turn.
            await asyncio.sleep(0)
        return respond_json({"now": now})

    async def get_faults(self, _: web.Request) -> web.Response:
        """Return the fault plan, and how many calls each fault has met."""
        return respond_json(msgspec.to_builtins(self._state.faults.plan))

    async def set_faults(self, request: web.Request) -> web.Response:
        """Replace the fault plan."""
        plan = await parse_body(request, FaultPlan)
        self._state.apply_fault_plan(plan)
        return respond_json(msgspec.to_builtins(plan))

    async def list_effects(self, request: web.Request) -> web.Response:
        """Return the recorded effects."""
        after, limit = parse_window(request)
        entries = self._state.list_effects(after, limit, request.query.get("what", ""))
        return respond_json({"entries": entries, "last": entries[-1]["seq"] if entries else after})

    async def list_deliveries(self, request: web.Request) -> web.Response:
        """Return the deliveries of events and their states."""
        after, limit = parse_window(request)
        return respond_json({"deliveries": list_states(self._state.connection, after, limit)})

    async def attempt_deliveries(self, _: web.Request) -> web.Response:
        """Attempt all pending deliveries now, whenever they are due."""
        return respond_json({"tried": await self._deliveries.attempt_due(all=True)})

    # ---- pages

    def _object(self, kind: str, id: str) -> tuple[Transaction, Body]:
        for live in (False, True):
            tx = Transaction(self._state.account, live, int(self._state.clock()))
            body = tx.find(kind, id)
            if body is not None:
                return tx, body
        raise web.HTTPNotFound(text=f"there is no {kind} {id}")

    async def get_invoice(self, request: web.Request) -> web.Response:
        """Return an invoice as a page."""
        tx, invoice = self._object("invoice", request.match_info["id"])
        lines = "".join(
            f"<tr><td>{html.escape(str(line.get('description') or ''))}<td>{line['amount']}"
            for line in tx.render(invoice)["lines"]["data"]
        )
        title = f"Invoice {invoice.get('number') or invoice['id']}"
        return respond_page(title, f"<table>{lines}<tr><td>Total<td>{invoice['total']}</table><p>{invoice['status']}")

    async def get_invoice_pdf(self, request: web.Request) -> web.Response:
        """Return an invoice as an empty PDF."""
        self._object("invoice", request.match_info["id"])
        return web.Response(body=PDF, content_type="application/pdf")

    async def get_credit_note_pdf(self, request: web.Request) -> web.Response:
        """Return a credit note as an empty PDF."""
        self._object("credit_note", request.match_info["id"])
        return web.Response(body=PDF, content_type="application/pdf")

    async def get_checkout(self, request: web.Request) -> web.Response:
        """Return a session of Checkout as a page with a button."""
        _, session = self._object("checkout.session", request.match_info["id"])
        if session["status"] != "open":
            back = build_success_url(session) if session["status"] == "complete" else None
            return respond_page("Checkout", f"<p>This session is {session['status']}.", back)
        amount = f"{session.get('amount_total', 0)} {session.get('currency') or ''}"
        form = f"<form method=post action='/_sandbox/checkout/{session['id']}/pay'><button>Pay</button></form>"
        return respond_page("Checkout", f"<p>{html.escape(amount)}{form}")

    async def pay_checkout(self, request: web.Request) -> web.Response:
        """Pay a session, by `{"card": TOKEN}`, by the button of its page, or by an empty request, as a tool would."""
        tx, session = self._object("checkout.session", request.match_info["id"])
        sent = request.content_type == "application/json"
        if not sent and request.body_exists and request.content_type != FORM:
            raise web.HTTPUnsupportedMediaType(text=f"send application/json or {FORM}")
        choice = await parse_body(request, CardChoice) if sent else CardChoice()
        try:
            with transaction(self._state.connection):
                paid = tx.render(checkout.pay(tx, session["id"], choice.card, choice.promotion_code))
        except ApiError as error:
            return web.Response(status=error.status, body=orjson.dumps(error.body), content_type="application/json")
        self._state.wake()
        if sent:
            return respond_json(paid)
        page = f"/_sandbox/checkout/{session['id']}"  # It leads on, as forms of pages lead nowhere else.
        location = page if request.content_type == FORM else build_success_url(paid)
        return web.Response(status=303, headers={"Location": location})

    async def get_portal(self, request: web.Request) -> web.Response:
        """Return a customer's invoices as a page."""
        tx, session = self._object("billing_portal.session", request.match_info["id"])
        rows = "".join(
            f"<tr><td>{html.escape(body.get('number') or body['id'])}<td>{body['total']}<td>{body['status']}"
            for body in tx.all("invoice", customer=session["customer"])
        )
        return respond_page("Invoices", f"<table>{rows}</table>")

    async def get_receipt(self, request: web.Request) -> web.Response:
        """Return a receipt as a page."""
        _, charge = self._object("charge", request.match_info["id"])
        return respond_page(f"Receipt {charge['id']}", f"<p>{charge['amount']} {charge['currency']}")


def build_success_url(session: Fields) -> str:
    """Build the address to which a complete session leads."""
    url: str = session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"])
    return url


def parse_window(request: web.Request) -> tuple[int, int]:
    """Parse the cursor and the limit of a query."""
    try:
        after, limit = (int(request.query.get(name, default)) for name, default in (("after", 0), ("limit", LIMIT)))
    except ValueError:
        raise web.HTTPBadRequest(text="after and limit are whole numbers") from None
    return after, max(1, min(limit, LIMIT_MAX))


async def parse_body(request: web.Request, kind: type[T]) -> T:
    """Parse a JSON body; raises a refusal, also of another content type, which a form of any page can have."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send the content type application/json")
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError as error:
        raise web.HTTPBadRequest(text=str(error)) from None


def respond_json(body: object) -> web.Response:
    """Create a response with JSON."""
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def respond_page(title: str, content: str, refresh: str | None = None) -> web.Response:
    """Create a response with a page, which leads to the address `refresh`, if any.

    It leads there by itself: `form-action` forbids the redirect of a form to another site.
    """
    head = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><h1>{html.escape(title)}</h1>"
    if refresh is not None:
        head += f'<meta http-equiv=refresh content="0;url={html.escape(refresh)}">'
    headers = {
        "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",
    }
    return web.Response(text=head + content, content_type="text/html", headers=headers)
