"""Pages for customers' payments, authentication and invoices. They need no scripts."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlencode

import msgspec
import orjson
from aiohttp import web

from stripe_sandbox.controls import parse_body, respond_json
from stripe_sandbox.documents import Document, describe_credit_note, describe_invoice
from stripe_sandbox.objects import authentications, checkout_amounts, checkout_payments, hosted_invoices
from stripe_sandbox.objects.currencies import format_amount
from stripe_sandbox.page_rendering import STYLE, get_style, render_page
from stripe_sandbox.refusal import ApiError, invalid_request
from stripe_sandbox.state import State
from stripe_sandbox.store import transaction
from stripe_sandbox.transaction import Body, Fields, Transaction

FORM = "application/x-www-form-urlencoded"
FIELDS_MAX = 20
EXPIRY = re.compile(r"\s*(\d{1,2})\s*/\s*(\d{4}|\d{2})\s*", re.ASCII)
LABELS = {"setup": "Save card", "subscription": "Subscribe"}
"""Labels of the button that completes a session, by its mode."""
STATUSES = {
    "draft": "This invoice is a draft.",
    "open": "This invoice is open.",
    "paid": "This invoice is paid.",
    "uncollectible": "This invoice is marked as uncollectible, and can be paid still.",
    "void": "This invoice is void.",
}


class CardChoice(msgspec.Struct, forbid_unknown_fields=True):
    """The customer's payment card and promotion code."""

    card: str = "pm_card_visa"
    promotion_code: str | None = None


class Pages:
    """Handlers of the pages, below `/_sandbox/`."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add_routes(self, application: web.Application) -> None:
        """Add the routes to an application."""
        router = application.router
        router.add_get(STYLE, get_style)
        router.add_get("/_sandbox/authenticate/{id}", self.get_authentication)
        router.add_post("/_sandbox/authenticate/{id}", self.authenticate)
        router.add_get("/_sandbox/checkout/{id}", self.get_checkout)
        router.add_post("/_sandbox/checkout/{id}/pay", self.pay_checkout)
        router.add_post("/_sandbox/checkout/{id}/promotion_code", self.enter_code)
        router.add_get("/_sandbox/credit_notes/{id}/pdf", self.get_credit_note_pdf)
        router.add_get("/_sandbox/invoices/{id}", self.get_invoice)
        router.add_get("/_sandbox/invoices/{id}/pdf", self.get_invoice_pdf)
        router.add_post("/_sandbox/invoices/{id}/pay", self.pay_invoice)
        router.add_get("/_sandbox/portal/{id}", self.get_portal)
        router.add_get("/_sandbox/receipts/{id}", self.get_receipt)

    def _find(self, kind: str, request: web.Request) -> tuple[Transaction, Body]:
        """Find the object of a path, of either mode; raises HTTPNotFound."""
        id = request.match_info["id"]
        for live in (False, True):
            tx = Transaction(self._state.account, live, int(self._state.clock()))
            body = tx.find(kind, id)
            if body is not None:
                return tx, body
        raise web.HTTPNotFound(text=f"there is no {kind} {id}")

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Commit the changes made within, and deliver their events. Raises ApiError."""
        try:
            with transaction(self._state.connection):
                yield
        finally:
            self._state.wake()

    # ---- Checkout

    async def get_checkout(self, request: web.Request) -> web.Response:
        """Return the page of a session of Checkout. The page of a complete session redirects to its shop."""
        return self._render_checkout(request)

    def _render_checkout(self, request: web.Request, error: ApiError | None = None) -> web.Response:
        tx, session = self._find("checkout.session", request)
        if session["status"] != "open":
            url = build_success_url(session) if session["status"] == "complete" else session.get("cancel_url")
            return render_page(
                "message.html", title="Checkout", message=f"This session is {session['status']}.", url=url
            )
        intent = checkout_payments.get_intent(tx, session["_intent"]) if session.get("_intent") else {}
        total = session.get("amount_total")
        paid = "Pay" if total is None else f"Pay {format_amount(total, session['currency'])}"
        return render_page(
            "checkout.html",
            200 if error is None else error.status,
            title="Checkout",
            session=tx.render(session),
            lines=checkout_amounts.fetch_lines(tx, session["id"]),
            label=LABELS.get(session["mode"], paid),
            with_email=not (session["customer"] or session.get("customer_email")),
            email=session.get("_email", ""),
            error=describe_error(intent, error),
            challenge=build_challenge(intent),
        )

    async def pay_checkout(self, request: web.Request) -> web.Response:
        """Pay a session: by the form of its page, by `{"card": TOKEN}`, or by an empty request, as a tool would."""
        if request.content_type == FORM:
            return await self._pay_checkout_on_page(request)
        choice = await parse_body(request, CardChoice) if request.body_exists else CardChoice()
        tx, session = self._find("checkout.session", request)
        try:
            with self._change():
                session = checkout_payments.pay(tx, session["id"], choice.card, choice.promotion_code)
        except ApiError as error:
            return web.Response(status=error.status, body=orjson.dumps(error.body), content_type="application/json")
        if not request.body_exists:
            return redirect(build_success_url(session))
        body = tx.render(session)
        if session["status"] == "open":
            body["next_action"] = checkout_payments.get_intent(tx, session["_intent"])["next_action"]
        return respond_json(body)

    async def _pay_checkout_on_page(self, request: web.Request) -> web.Response:
        form = await parse_form(request)
        tx, session = self._find("checkout.session", request)
        try:
            with self._change():
                session = checkout_payments.pay(tx, session["id"], parse_card(form), email=form.get("email", ""))
        except ApiError as error:
            return self._render_checkout(request, error)
        if session["status"] == "open":
            return redirect(build_challenge(checkout_payments.get_intent(tx, session["_intent"])))
        return redirect(f"/_sandbox/checkout/{session['id']}")

    async def enter_code(self, request: web.Request) -> web.Response:
        """Apply a promotion code to a session."""
        form = await parse_form(request)
        tx, session = self._find("checkout.session", request)
        try:
            with self._change():
                session = checkout_payments.get_open_session(tx, session["id"])
                checkout_payments.enter_code(tx, session, form.get("promotion_code", ""))
        except ApiError as error:
            return self._render_checkout(request, error)
        return redirect(f"/_sandbox/checkout/{session['id']}")

    # ---- authentication of a card's owner

    def _find_intent(self, request: web.Request, client_secret: str) -> tuple[Transaction, Body]:
        """Find the intent of a path by its client secret; raises HTTPNotFound."""
        for live in (False, True):
            tx = Transaction(self._state.account, live, int(self._state.clock()))
            try:
                return tx, authentications.get_intent(tx, request.match_info["id"], client_secret)
            except ApiError as error:
                message = str(error)
        raise web.HTTPNotFound(text=message)

    async def get_authentication(self, request: web.Request) -> web.Response:
        """Return the page of a challenge. The page of a finished challenge redirects to the `return_url` of its
        intent.
        """
        client_secret = request.query.get("client_secret", "")
        tx, intent = self._find_intent(request, client_secret)
        if intent["status"] == "requires_action":
            paid = "A card is saved for payments to come."
            if intent["object"] == "payment_intent":
                paid = f"Payment of {format_amount(intent['amount'], intent['currency'])}"
            title = "Confirm with the bank"
            return render_page(
                "authentication.html", title=title, intent=intent, purpose=paid, client_secret=client_secret
            )
        url = authentications.build_return_url(tx, intent)
        message = describe_error(intent, None) or f"Nothing is to be confirmed: the status is {intent['status']}."
        return render_page("message.html", title="Confirm with the bank", message=message, url=url)

    async def authenticate(self, request: web.Request) -> web.Response:
        """Complete a challenge, or fail it: `outcome` is `complete` or `fail`."""
        form = await parse_form(request)
        client_secret, outcome = form.get("client_secret", ""), form.get("outcome")
        if outcome not in ("complete", "fail"):
            raise web.HTTPBadRequest(text="outcome is complete or fail")
        tx, intent = self._find_intent(request, client_secret)
        try:
            with self._change():
                authentications.authenticate(tx, intent, succeeded=outcome == "complete")
        except ApiError as error:
            if not error.commits:
                return render_page("message.html", error.status, title="Not confirmed", message=str(error), url=None)
        return redirect(f"/_sandbox/authenticate/{intent['id']}?{urlencode({'client_secret': client_secret})}")

    # ---- invoices

    async def get_invoice(self, request: web.Request) -> web.Response:
        """Return the page of an invoice, with a form to pay it."""
        return self._render_invoice(request)

    def _render_invoice(self, request: web.Request, error: ApiError | None = None) -> web.Response:
        tx, invoice = self._find("invoice", request)
        document = describe_invoice(tx, invoice)
        intent = tx.get("payment_intent", invoice["_intent"]) if invoice.get("_intent") else {}
        charge = tx.find("charge", intent.get("latest_charge") or "") or {}
        is_payable = invoice["status"] in hosted_invoices.PAYABLE
        return render_page(
            "invoice.html",
            200 if error is None else error.status,
            title=document.title,
            status=STATUSES[invoice["status"]],
            invoice=tx.render(invoice),
            document=document,
            is_payable=is_payable,
            error=describe_error(intent, error) if is_payable else None,
            challenge=build_challenge(intent) if is_payable else None,
            credit_notes=[tx.render(note) for note in tx.all("credit_note", invoice=invoice["id"])],
            receipt=charge.get("receipt_url"),
        )

    async def pay_invoice(self, request: web.Request) -> web.Response:
        """Pay an invoice by the form of its page."""
        form = await parse_form(request)
        tx, invoice = self._find("invoice", request)
        try:
            with self._change():
                intent = hosted_invoices.pay(tx, invoice["id"], parse_card(form))
        except ApiError as error:
            return self._render_invoice(request, error)
        return redirect(build_challenge(intent) or f"/_sandbox/invoices/{invoice['id']}")

    async def get_invoice_pdf(self, request: web.Request) -> web.Response:
        """Return an invoice as PDF."""
        return await respond_pdf(describe_invoice(*self._find("invoice", request)))

    async def get_credit_note_pdf(self, request: web.Request) -> web.Response:
        """Return a credit note as PDF."""
        return await respond_pdf(describe_credit_note(*self._find("credit_note", request)))

    # ---- others

    async def get_portal(self, request: web.Request) -> web.Response:
        """Return a customer's invoices, the newest first, with links to their pages."""
        tx, session = self._find("billing_portal.session", request)
        invoices = [tx.render(invoice) for invoice in reversed(tx.all("invoice", customer=session["customer"]))]
        return render_page("portal.html", title="Invoices", invoices=invoices, url=session["return_url"])

    async def get_receipt(self, request: web.Request) -> web.Response:
        """Return the receipt of a charge."""
        tx, charge = self._find("charge", request)
        card = charge["payment_method_details"].get("card")
        return render_page("receipt.html", title=f"Receipt {charge['id']}", charge=tx.render(charge), card=card)


async def parse_form(request: web.Request) -> dict[str, str]:
    """Parse the form of a page; raises HTTPException."""
    if request.content_type != FORM:
        raise web.HTTPUnsupportedMediaType(text=f"send the content type {FORM}")
    try:
        return dict(parse_qsl((await request.read()).decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError:  # Of UTF-8 too.
        raise web.HTTPBadRequest(text="the form cannot be read") from None


def parse_card(form: Fields) -> Body:
    """Parse the card of a form into the data of a payment method; raises ApiError."""
    expiry = EXPIRY.fullmatch(form.get("expiry", ""))
    if not form.get("number", "").strip():
        raise invalid_request("Your card number is incomplete.", "number")
    if expiry is None:
        raise invalid_request("Your card's expiration date is incomplete.", "exp_month")
    card = {"number": form["number"].strip(), "exp_month": int(expiry[1]), "exp_year": int(expiry[2])}
    billing_details = {name: form[name] for name in ("email", "name") if form.get(name)}
    return {"type": "card", "card": {**card, "cvc": form.get("cvc", "").strip()}, "billing_details": billing_details}


def build_success_url(session: Fields) -> str:
    """Build the address to redirect to after a complete session."""
    url: str = session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"])
    return url


def build_challenge(intent: Fields) -> str | None:
    """Build the path of the page for a card owner's authentication; None if none is required."""
    if intent.get("status") != "requires_action":
        return None
    return f"/_sandbox/authenticate/{intent['id']}?{urlencode({'client_secret': intent['client_secret']})}"


def describe_error(intent: Fields, error: ApiError | None) -> str | None:
    """Describe why a payment failed: in this call, or in the one before. None if none failed."""
    if error is not None:
        return str(error)
    failure: Fields = intent.get("last_payment_error") or intent.get("last_setup_error") or {}
    return failure.get("message")


def redirect(location: str | None) -> web.Response:
    """Build the response that redirects to another page."""
    return web.Response(status=303, headers={"Location": location or "/"})


async def respond_pdf(document: Document) -> web.Response:
    """Build the response with a document as PDF, to be saved under its name."""
    from stripe_sandbox.document_pdf import render_pdf  # Few need it, and it takes long to import.

    name = re.sub(r"[^A-Za-z0-9-]+", "-", document.title)
    headers = {"Content-Disposition": f'attachment; filename="{name}.pdf"', "Cache-Control": "no-store"}
    body = await asyncio.to_thread(render_pdf, document)
    return web.Response(body=body, content_type="application/pdf", headers=headers)
