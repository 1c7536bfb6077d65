"""The pages of a listener: who may see which, and a request on its way to one."""

import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from aiohttp import web

from edgeproxy.base import log
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, format_reason
from edgeproxy.collector.pages import currencies, forms, languages, rendering, sessions
from edgeproxy.collector.pages.api import ApiClient, ApiResponse
from edgeproxy.collector.pages.forms import InvalidFormError
from edgeproxy.collector.pages.languages import Reader
from edgeproxy.collector.pages.sessions import Link, Session, SignedIn
from edgeproxy.config.collector.currencies import CHARGED, CODE
from edgeproxy.config.collector.listeners import PAGE_GROUPS
from edgeproxy.config.collector.operators import is_factor_recent
from edgeproxy.config.collector.pages import Pages
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.tiers import Tier

StepUp = Literal["done", "needed", "impossible"]
"""Whether a second factor was shown a moment ago, can be shown now, or cannot, as operators sign in by a link."""
Audience = Literal["anyone", "someone", "operator", "customer"]
REFRESH_SECONDS = 3
"""After which a page looks again for figures that are worked out."""
LANGUAGE_COOKIE = "edgeproxy-language"
CURRENCY_COOKIE = "edgeproxy-currency"
CHOICE_SECONDS = 365 * 86400
SIGN_IN = "/sign-in"
CONSOLE, PORTAL = frozenset({"console"}), frozenset({"portal"})
SIGNED_IN = CONSOLE | PORTAL
"""The groups of pages behind a sign-in."""
HOMES: dict[bool, str] = {True: "/console", False: "/account"}
"""Where a session begins: an operator's, a customer's."""


class PageError(Exception):
    """A page that says what is wrong: the status, a sentence, what is wrong with each field of a form, and the
    seconds after which to try again.
    """

    def __init__(
        self, status: int, why: str, errors: list[dict[str, str]] | None = None, retry_after: str | None = None
    ) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why
        self.errors = errors or []
        self.retry_after = retry_after


@dataclass
class Visit:
    """A request for a page that may be seen by who asks for it."""

    site: "Site"
    request: web.Request
    reader: Reader
    session: Session | None = None
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def signed_in(self) -> Session:
        """The session, of a page that is not for anyone."""
        assert self.session is not None
        return self.session

    @property
    def customer(self) -> str:
        """The customer who looks at a page of the portal."""
        assert self.signed_in.who.customer is not None
        return self.signed_in.who.customer

    def paginate(self, whole: Sequence[dict[str, Any]], name: str, most: int) -> tuple[Sequence[dict[str, Any]], str]:
        """Return so many of a list as a page has: those behind the one whose `name` is the query's `cursor`; and the
        cursor of the next page, which is empty where there is none.
        """
        names, after = [one[name] for one in whole], self.request.query.get("cursor")
        first = names.index(after) + 1 if after in names else 0
        end = first + most
        return whole[first:end], names[end - 1] if end < len(names) else ""

    @property
    def step_up(self) -> StepUp:
        """What an operator lacks for what is sensitive."""
        if self.session is None or self.site.settings_now().operators is None:
            return "impossible"
        return "done" if is_factor_recent(self.session.who.factor_at, time.time()) else "needed"

    @property
    def referring_page(self) -> str:
        """The page of ours from which a form was sent; empty where the browser does not say."""
        try:
            referrer = urlsplit(self.request.headers.get("Referer", ""))
        except ValueError:
            return ""
        is_ours = forms.normalize_origin(f"{referrer.scheme}://{referrer.netloc}") in self.site.origins(self.request)
        return referrer._replace(scheme="", netloc="", fragment="").geturl() if is_ours else ""

    @property
    def currency(self) -> str | None:
        """The currency that was chosen to read amounts in; None where none was."""
        return self.request.query.get("currency") or self.request.cookies.get(CURRENCY_COOKIE)

    def path_parameter(self, parameter: str) -> str:
        """Return a parameter of the path."""
        return self.request.match_info[parameter]

    async def call(self, method: str, path: str, **request: Any) -> ApiResponse:
        """Ask the API; the answer, whatever it is."""
        return await self.site.api.ask(self.request, self.signed_in, method, path, **request)

    async def require(self, method: str, path: str, **request: Any) -> ApiResponse:
        """Ask the API; raises Fault where it refuses."""
        response = await self.call(method, path, **request)
        if not response.is_success:
            body = response.body or {}
            raise PageError(
                response.status, str(body.get("detail", "")), body.get("errors"), response.fields.get("Retry-After")
            )
        return response

    async def fetch(self, method: str, path: str, **request: Any) -> Any:
        """Ask the API for JSON; raises Fault where it refuses."""
        return (await self.require(method, path, **request)).body

    def render(self, template: str, *, status: int = 200, **values: Any) -> web.Response:
        """Answer with a page."""
        return rendering.respond_html(self.render_text(template, **values), status)

    def render_report(self, template: str, response: ApiResponse, **values: Any) -> web.Response:
        """Answer with a page of figures that take long; while they are worked out, with one that looks again."""
        if response.status == 429:
            answer = self.render("waiting.html")
            answer.headers["Refresh"] = str(REFRESH_SECONDS)
            return answer
        if not response.is_success:
            raise PageError(response.status, str(response.body.get("detail", "")))
        return self.render(template, result=response.body, **values)

    def render_error(self, status: int, why: str = "", errors: Sequence[dict[str, str]] = ()) -> web.Response:
        """Answer with a page that says what is wrong."""
        return self.render("error.html", status=status, code=status, why=why, errors=errors, back=self.referring_page)

    def render_text(self, template: str, **values: Any) -> str:
        """Return the HTML of a page."""
        who = None if self.session is None else self.session.who
        billing = self.site.settings_now().billing
        rates = {} if billing is None or who is None or who.customer is None else billing.currencies
        return rendering.render_template(
            template,
            self.reader,
            name=self.site.settings.status.name,
            who=who,
            form_token="" if self.session is None else self.session.form,
            once=secrets.token_hex(16),
            path=self.request.path,
            done=self.request.query.get("done", ""),
            notice=None if who is None or who.customer is None else self.site.notice(),
            sells=self.site.settings_now().plans,
            bills=self.site.settings_now().billing is not None,
            step_up=self.step_up,
            has_status="status" in self.site.groups,
            sells_credits=billing is not None and billing.credits is not None,
            currencies=[CHARGED, *rates] if rates else [],
            beside=currencies.choose_currency(rates, self.currency, self.reader.locale),
            **values,
        )

    def send_file(self, response: ApiResponse) -> web.Response:
        """Answer with a file that the API gave, for the browser to keep."""
        fields = {name: response.fields[name] for name in ("Content-Type", "Content-Disposition")}
        return web.Response(body=response.content, headers={**fields, **rendering.SECURITY, **rendering.PRIVATE})

    def redirect(self, path: str, **query: str) -> web.Response:
        """Send the browser to another page, after what it asked for was done."""
        where = f"{path}?{urlencode(query)}" if query else path
        return web.Response(status=303, headers={"Location": where, **rendering.SECURITY, **rendering.PRIVATE})


Handler = Callable[[Visit], Awaitable[web.StreamResponse]]


class Page(NamedTuple):
    """A page, or a form of one."""

    method: str
    path: str
    who: Audience
    """Who may: anyone, someone who has signed in, operators as their roles let them, customers what is theirs."""
    handler: Handler
    of: frozenset[str] = SIGNED_IN
    """Of a page for anyone or someone: the groups of which one must be served where it is."""

    @property
    def groups(self) -> frozenset[str]:
        """The groups of listeners of which one must be served where it is."""
        return {"operator": CONSOLE, "customer": PORTAL}.get(self.who, self.of)


class Site:
    """What brings a request to a page if it passes."""

    def __init__(
        self,
        database: Database,
        settings: Pages,
        url: str,
        api: ApiClient,
        now: Callable[[], CollectorSettings],
        notice: Callable[[], str | None],
        groups: frozenset[str] = PAGE_GROUPS,
    ) -> None:
        self.database = database
        self.settings = settings
        self.url = url
        """How browsers reach it, without a slash at its end."""
        self.api = api
        self.settings_now = now
        """Returns the settings of the collector as they are now."""
        self.notice = notice
        """Returns what customers are told while nobody is charged; None while they are, and where nothing is said."""
        self.groups = groups
        """The groups of pages that are here: console, portal, status."""
        self.is_secure = url.startswith("https://")
        self.prefix = "__Host-" if self.is_secure else ""
        """How names of cookies begin that no other host of the same domain can set."""
        self.cookie = f"{self.prefix}edgeproxy-session"
        self.has_issuer = False
        """Whether operators sign in at an issuer, which says now and then what roles they have."""
        self._log = log.get_logger()

    def add_to(self, application: web.Application, pages: list[Page]) -> None:
        """Serve these pages, and what they refer to."""
        for page in pages:
            if not page.groups & self.groups:
                continue
            application.router.add_route(page.method, page.path, self._through(page))
            if page.method == "GET":
                application.router.add_route("HEAD", page.path, self._through(page))
        for name, media in rendering.STATIC.items():
            application.router.add_get(
                rendering.find_static_path(name), create_file_handler(rendering.read_static(name), media)
            )

    def _through(self, page: Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            chosen = request.query.get("lang") or request.cookies.get(LANGUAGE_COOKIE)
            visit = Visit(self, request, languages.choose_reader(chosen, request.headers.get("Accept-Language")))
            try:
                answer = await self._serve(page, visit)
            except (PageError, InvalidFormError) as page_error:
                errors = page_error.errors if isinstance(page_error, PageError) else []
                answer = visit.render_error(page_error.status, page_error.why, errors)
                if isinstance(page_error, PageError) and page_error.retry_after is not None:
                    answer.headers["Retry-After"] = page_error.retry_after
            except CONNECTION_ERRORS as error:
                self._log.error("the database cannot be used", path=request.path, why=format_reason(error))
                answer = visit.render_error(503)
            except Exception as error:
                self._log.error("a page failed", path=request.path, exc_info=error)
                answer = visit.render_error(500)
            if self.is_secure:
                answer.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            if request.query.get("lang") in languages.LANGUAGES:
                self.remember(answer, LANGUAGE_COOKIE, request.query["lang"], CHOICE_SECONDS)
            if CODE.fullmatch(request.query.get("currency", "")):
                self.remember(answer, CURRENCY_COOKIE, request.query["currency"], CHOICE_SECONDS)
            return answer

        return serve

    async def _serve(self, page: Page, visit: Visit) -> web.StreamResponse:
        request, is_form = visit.request, page.method == "POST"
        if is_form and not forms.is_same_origin(request.headers, self.origins(request)):
            raise self._denied(request, "the form was not sent by a page of this site")
        visit.session = await self._session(request)
        if page.who != "anyone":
            if visit.session is None:
                if is_form:
                    raise PageError(401, "the session has ended: sign in, and send the form again")
                return visit.redirect(SIGN_IN, next=request.path_qs)
            who = visit.session.who
            if page.who not in ("operator" if who.customer is None else "customer", "someone"):
                raise self._denied(request, "this page is not for you", who)
            if page.who != "someone" and (way := self._confirmed_at(visit.session)):
                if is_form:
                    raise PageError(
                        401, "the session has to be confirmed: open the page again, and send the form again"
                    )
                return visit.redirect(way, next=request.path_qs)
        if is_form:
            visit.form = await forms.parse_form(request)
            if page.who != "anyone" and not hmac.compare_digest(
                visit.form.get("form", "").encode(), visit.signed_in.form.encode()
            ):
                raise self._denied(request, "the form is of another session: open the page again", visit.signed_in.who)
        return await page.handler(visit)

    def _confirmed_at(self, session: Session) -> str | None:
        """Return where a session is confirmed of whose owner an issuer may by now say something else; else None."""
        if time.time() - session.created_at < sessions.CONFIRM_SECONDS:
            return None
        if session.who.customer is None:
            return f"{SIGN_IN}/operator" if self.has_issuer else None
        return f"{SIGN_IN}/customer" if session.who.by_issuer else None

    def _denied(self, request: web.Request, why: str, who: SignedIn | None = None) -> PageError:
        """Put a denial on record; the page that says it."""
        self.api.deny(request, None if who is None else who.label, 403, why)
        return PageError(403, why)

    def origins(self, request: web.Request) -> frozenset[str]:
        """Return the origins of our pages, as this request reached us and as they are configured."""
        here = f"{self.url.partition('://')[0]}://{request.host}"
        return frozenset({forms.normalize_origin(here), forms.normalize_origin(self.url)})

    async def _session(self, request: web.Request) -> Session | None:
        secret = request.cookies.get(self.cookie)
        if not secret:
            return None
        now = time.time()
        async with self.database.reading() as connection:
            session = await sessions.find_session(connection, secret, now)
        if session is not None and now - session.seen_at >= sessions.RECORD_USE_SECONDS:
            async with self.database.writing() as connection:
                await sessions.record_use(connection, session, now)
        return session

    @property
    def tiers(self) -> Mapping[str, Tier]:
        """The tiers that there are now, by name."""
        return self.settings_now().tiers

    # ---- cookies

    def remember(self, answer: web.StreamResponse, name: str, value: str, seconds: int | None = None) -> None:
        """Have the browser keep something that scripts cannot read."""
        answer.set_cookie(name, value, max_age=seconds, path="/", secure=self.is_secure, httponly=True, samesite="Lax")

    def forget(self, answer: web.StreamResponse, name: str) -> None:
        """Have the browser keep it no longer."""
        self.remember(answer, name, "", 0)

    def home(self, who: SignedIn) -> str:
        """Return the path of the first page of a session."""
        return HOMES[who.customer is None]

    def is_home(self, who: SignedIn | Link) -> bool:
        """Whether the pages of an operator, or of a customer, are here."""
        return bool((CONSOLE if who.customer is None else PORTAL) & self.groups)


def create_file_handler(content: bytes, media: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return what answers with a file."""

    async def answer(_: web.Request) -> web.Response:
        fields = {**rendering.SECURITY, **rendering.LASTING}
        return web.Response(body=content, content_type=media, charset="utf-8", headers=fields)

    return answer


def format_path(path: str, **names: str) -> str:
    """Return a path with its parameters."""
    return path.format(**{name: quote(value, safe="") for name, value in names.items()})
