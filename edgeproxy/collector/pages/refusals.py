"""Refused forms are shown again with their values, or held until the sender has signed in again."""

import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from yarl import URL

from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.pages import held_forms, rendering, sessions
from edgeproxy.collector.pages.forms import InvalidFormError
from edgeproxy.collector.pages.held_forms import HeldForm
from edgeproxy.collector.pages.refilled_form import ONCE, FieldRefusal, Refusal, refill_form
from edgeproxy.collector.pages.refusal_words import explain_error, explain_fault
from edgeproxy.collector.pages.sessions import SignedIn
from edgeproxy.collector.pages.site import Page, PageError, Visit
from edgeproxy.collector.problems.coded_error import CodedError
from edgeproxy.collector.problems.page_codes import FORM_OF_ANOTHER_SESSION

Serve = Callable[[Page, Visit], Awaitable[web.StreamResponse]]
"""Serves a page (serving.py)."""

UNAVAILABLE = 503
SHOWN_AGAIN = frozenset({400, 404, 409, 412, 422, 429, UNAVAILABLE})
"""Statuses of refusals that the sender can correct or retry."""


async def respond_refusal(visit: Visit, error: PageError | InvalidFormError, serve: Serve) -> web.StreamResponse:
    """Return the response to a refused request. A form is not lost: `serve` shows its page again."""
    is_held = ""
    answer: web.StreamResponse | None = None
    if visit.form and error.status == 401:
        is_held = await _hold(visit)
    elif error.code is FORM_OF_ANOTHER_SESSION and visit.referring_page:
        # The sender has signed in again in another tab. The page has the form of the new session.
        if is_held := await _hold(visit, visit.signed_in.who):
            answer = visit.redirect(visit.referring_page)
    elif visit.form and error.status in SHOWN_AGAIN and visit.session is not None:
        answer = await _show_again(visit, serve, error)
    if answer is None:
        answer = visit.render_error(error, is_held=bool(is_held))
    if is_held:
        visit.site.remember(answer, visit.site.held_cookie, is_held, held_forms.HELD_SECONDS)
    if not isinstance(error, InvalidFormError) and error.retry_after is not None:
        answer.headers["Retry-After"] = error.retry_after
    return answer


async def _hold(visit: Visit, reader: SignedIn | None = None) -> str:
    """Hold the form for its sender and return the secret. It is empty if the sender is unknown, or not this reader."""
    sender = await _find_sender(visit)
    if sender is None or (reader is not None and (sender.label, sender.customer) != (reader.label, reader.customer)):
        return ""
    form = HeldForm(visit.referring_page or visit.request.path, visit.request.path, visit.form)
    async with visit.site.database.writing() as connection:
        return await held_forms.hold_form(connection, sender, form, time.time())


async def _find_sender(visit: Visit) -> SignedIn | None:
    """Return the person whose session the form is of. A form of no session needs no write transaction."""
    token = visit.read_field("form")
    if not token:
        return None
    async with visit.site.database.reading() as connection:
        return await sessions.find_sender(connection, visit.session_secret, token)


async def _show_again(visit: Visit, serve: Serve, error: CodedError) -> web.StreamResponse | None:
    """Return the page of a refused form with its values, or None if that page cannot be shown."""
    path = visit.referring_page or visit.request.path
    request = visit.request.clone(method="GET", rel_url=URL(path, encoded=True))
    match = await visit.request.app.router.resolve(request)
    resource = match.route.resource
    page = None if resource is None else visit.site.shown_pages.get(resource.canonical)
    if page is None or page.who == "anyone":
        return None
    say = load_catalog(visit.reader.language).gettext
    errors = [explain_fault(fault, say) for fault in error.faults]
    refusal = Refusal(*explain_error(error, say), errors)
    again = Visit(visit.site, request, visit.reader, parameters=dict(match), refusal=refusal)
    try:
        answer = await serve(page, again)
    except PageError:
        return None
    if answer.status != 200:
        return None
    values = held_forms.select_fields(visit.form)
    if (
        error.status == UNAVAILABLE and ONCE in visit.form
    ):  # The request may have been applied, so a repetition needs its key.
        values[ONCE] = visit.form[ONCE]
    return _refill(answer, visit.request.path, values, errors, error.status)


async def restore_form(page: Page, visit: Visit, secret: str) -> web.StreamResponse:
    """Show a page with the form held for its reader. The form of another person is deleted."""
    site, now = visit.site, time.time()
    if visit.session is None or page.who == "anyone":
        return await page.handler(visit)
    async with site.database.reading() as connection:
        form = await held_forms.find_form(connection, secret, visit.session.who, now)
    if form is not None and URL(form.page, encoded=True).path != visit.request.path:
        return await page.handler(visit)
    async with site.database.writing() as connection:
        await held_forms.drop_form(connection, secret)
    visit.is_restored = form is not None
    answer = await page.handler(visit)
    site.forget(answer, site.held_cookie)
    return answer if form is None else _refill(answer, form.action, form.fields, [], answer.status)


def _refill(
    answer: web.StreamResponse, action: str, values: Mapping[str, str], errors: list[FieldRefusal], status: int
) -> web.StreamResponse:
    """Return a response with the page whose form has these values."""
    if not isinstance(answer, web.Response) or answer.content_type != "text/html" or answer.text is None:
        return answer
    refilled = rendering.respond_html(refill_form(answer.text, action, values, errors), status)
    for morsel in answer.cookies.values():
        refilled.cookies[morsel.key] = morsel
    return refilled
