"""The way of a request to its page: the checks before the page, and a page for every error."""

import hmac
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web

from edgeproxy.base import log
from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.database.database import CONNECTION_ERRORS, format_reason
from edgeproxy.collector.languages.reader import choose_reader
from edgeproxy.collector.pages import choices, forms, navigation, refusals, rendering, sessions
from edgeproxy.collector.pages.choices import LANGUAGE_COOKIE
from edgeproxy.collector.pages.forms import InvalidFormError
from edgeproxy.collector.pages.sessions import Session, SignedIn
from edgeproxy.collector.pages.site import CHOICE_SECONDS, SIGN_IN, Page, PageError, Site, Visit
from edgeproxy.collector.problems import page_codes, request_codes


def add_pages(site: Site, application: web.Application, pages: list[Page]) -> None:
    """Add routes for these pages and the static files."""
    for page in pages:
        if not page.groups & site.groups:
            continue
        application.router.add_route(page.method, page.path, build_handler(site, page))
        if page.method == "GET":
            site.shown_pages[page.path] = page
            application.router.add_route("HEAD", page.path, build_handler(site, page))
    for path, content, media in (*rendering.list_static_files(), *site.brand.list_files()):
        application.router.add_get(path, rendering.create_file_handler(content, media))


def build_handler(site: Site, page: Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Build the handler that serves a page. It answers every error with a page."""

    async def serve(request: web.Request) -> web.StreamResponse:
        chosen = request.query.get("lang") or request.cookies.get(LANGUAGE_COOKIE)
        visit = Visit(site, request, choose_reader(chosen, request.headers.get("Accept-Language")))
        try:
            answer = await serve_page(page, visit)
        except (PageError, InvalidFormError) as page_error:
            answer = await refusals.respond_refusal(visit, page_error, serve_page)
        except CONNECTION_ERRORS as error:
            log.get_logger().error("the database cannot be used", path=request.path, why=format_reason(error))
            answer = visit.render_error(PageError(request_codes.DATABASE_UNAVAILABLE, ""))
        except Exception as error:
            log.get_logger().error("a page failed", path=request.path, exc_info=error)
            answer = visit.render_error(PageError(request_codes.INTERNAL_ERROR, ""))
        if site.is_secure:
            answer.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        for cookie, value in choices.list_choices(request):
            site.remember(answer, cookie, value, CHOICE_SECONDS)
        return answer

    return serve


async def _keep_form(visit: Visit) -> None:
    """Read the form of a refused request, so that its answer can show it again."""
    with suppress(InvalidFormError):  # It is refused anyway.
        visit.form = await forms.parse_form(visit.request)


async def serve_page(page: Page, visit: Visit) -> web.StreamResponse:
    """Check a request, and return the response of its page. Raises PageError and InvalidFormError."""
    site, request, is_form = visit.site, visit.request, page.method == "POST"
    if is_form and not forms.is_same_origin(request.headers, site.origins(request)):
        raise _deny(site, request, page_codes.FORM_OF_ANOTHER_SITE, "the form was not sent by a page of this site")
    visit.session = await _find_session(site, request)
    if visit.session is not None and visit.session.who.customer is not None:
        await visit.learn_names([visit.session.who.customer])
    if page.who != "anyone":
        if visit.session is None:
            if is_form:
                await _keep_form(visit)
                raise PageError(page_codes.SESSION_ENDED, "the session has ended: sign in, and send the form again")
            return visit.redirect(SIGN_IN, next=request.path_qs)
        who = visit.session.who
        is_audience = page.who in ("operator" if who.customer is None else "customer", "someone")
        if not is_audience or not navigation.is_for(request.path, who):
            raise _deny(site, request, page_codes.PAGE_DENIED, "this page is not for you", who)
        if page.who != "someone" and (way := _confirmed_at(site, visit.session)):
            if is_form:
                await _keep_form(visit)
                why = "the session has to be confirmed: open the page again, and send the form again"
                raise PageError(page_codes.SESSION_UNCONFIRMED, why)
            return visit.redirect(way, next=request.path_qs)
        # A visitor with a spent budget can still sign out.
        if page.who != "someone" and (seconds := site.api.count_page(visit.session)):
            why = "you have opened too many pages in a minute"
            raise PageError(page_codes.PAGES_EXCEEDED, why, retry_after=str(seconds))
    if is_form:
        visit.form = await forms.parse_form(request)
        if page.who != "anyone" and not hmac.compare_digest(
            visit.read_field("form").encode(), visit.signed_in.form.encode()
        ):
            why = "the form is of another session: open the page again"
            raise _deny(site, request, page_codes.FORM_OF_ANOTHER_SESSION, why, visit.signed_in.who)
    elif held := request.cookies.get(site.held_cookie):
        return await refusals.restore_form(page, visit, held)
    return await page.handler(visit)


def _confirmed_at(site: Site, session: Session) -> str | None:
    """Return the path for confirming a session at the issuer, or None if no confirmation is due."""
    if time.time() - session.created_at < sessions.CONFIRM_SECONDS:
        return None
    if session.who.customer is None:
        return f"{SIGN_IN}/operator" if site.has_issuer else None
    return f"{SIGN_IN}/customer" if session.who.by_issuer else None


def _deny(site: Site, request: web.Request, code: ProblemCode, why: str, who: SignedIn | None = None) -> PageError:
    """Record a denial in the audit log and return its page."""
    site.api.deny(request, None if who is None else who.label, code.status, why)
    return PageError(code, why)


async def _find_session(site: Site, request: web.Request) -> Session | None:
    secret = request.cookies.get(site.cookie)
    if not secret:
        return None
    async with site.database.reading() as connection:
        session = await sessions.find_session(connection, secret, now := time.time())
    # A script that refreshes parts of a page must not keep the session alive (Fetch Metadata: cors, not navigate).
    is_use = request.headers.get("Sec-Fetch-Mode") != "cors"
    if session is not None and is_use and now - session.seen_at >= sessions.RECORD_USE_SECONDS:
        async with site.database.writing() as connection:
            await sessions.record_use(connection, session, now)
    site.api.show_names(request, session)
    return session
