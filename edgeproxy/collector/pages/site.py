"""The pages of a listener and their audiences, and a visit to one of them."""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple, Unpack
from urllib.parse import quote, urlencode, urlsplit

from aiohttp import web

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.accounts import shown_names
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.languages import currencies
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.languages.meter_display import find_worded_display
from edgeproxy.collector.languages.reader import Reader
from edgeproxy.collector.mails.letter import render_links
from edgeproxy.collector.pages import choices, forms, navigation, rendering
from edgeproxy.collector.pages.api import ApiClient, ApiResponse, JsonDocument, RequestOptions
from edgeproxy.collector.pages.api_docs import ApiReference
from edgeproxy.collector.pages.brand_files import NO_BRAND
from edgeproxy.collector.pages.choices import CURRENCY_COOKIE
from edgeproxy.collector.pages.fee_shares import find_fee_share
from edgeproxy.collector.pages.outgoing_mails import OutgoingMails
from edgeproxy.collector.pages.refilled_form import Refusal
from edgeproxy.collector.pages.refusal_words import explain_error, explain_fault
from edgeproxy.collector.pages.sessions import Link, Session, SignedIn
from edgeproxy.collector.problems.coded_error import CodedError, FieldFault, Params
from edgeproxy.collector.problems.table import CODES
from edgeproxy.config.collector.currencies import CHARGED, ExchangeRate
from edgeproxy.config.collector.currency_units import USD
from edgeproxy.config.collector.listeners import PAGE_GROUPS
from edgeproxy.config.collector.operators import is_factor_recent
from edgeproxy.config.collector.pages import Pages
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.field_codes import find_field_code
from edgeproxy.config.tiers import Tier

StepUp = Literal["done", "needed", "impossible"]
"""State of the second factor: shown recently, required, or impossible because operators sign in by a mailed link."""
Audience = Literal["anyone", "someone", "operator", "customer"]
REFRESH_SECONDS = 3
"""Seconds until a page reloads whose figures are being computed."""
CHOICE_SECONDS = 365 * 86400
SIGN_IN = "/sign-in"
CONSOLE, PORTAL = frozenset({"console"}), frozenset({"portal"})
SIGNED_IN = CONSOLE | PORTAL
"""The page groups that need a sign-in."""
HOMES: dict[bool, str] = {True: "/console", False: "/account"}
"""The first page for operators (True) and for customers (False)."""


OF_CUSTOMERS = ("customer", "of")
"""The fields that name a customer: in documents of the API, and in the details of alerts."""
STATED_NAME = re.compile(rb'"(?:%s)":"([^"\\]{1,255})"' % "|".join(OF_CUSTOMERS).encode())


def list_customers(response: ApiResponse) -> set[str]:
    """Return the names of the customers in a document of the API."""
    return set() if response.body is None else {name.decode() for name in STATED_NAME.findall(response.content)}


def find_rates(settings: CollectorSettings) -> Mapping[str, ExchangeRate]:
    """Return the rates for amounts beside US dollars; none if nothing is charged in US dollars."""
    billing, plans = settings.billing, settings.plans.values()
    if billing is None or (billing.credits is None and not any(USD in (plan.currency, *plan.others) for plan in plans)):
        return {}
    return billing.currencies


def shown_name(customer: JsonDocument) -> str:
    """Return the name for people of a customer that the API returns."""
    metadata = customer.get("metadata")
    return shown_names.format_shown_name(metadata if isinstance(metadata, Mapping) else {}, customer["name"])


class PageError(CodedError):
    """A page is not shown. `retry_after` has seconds."""

    def __init__(
        self,
        code: ProblemCode,
        why: str,
        faults: Sequence[FieldFault] = (),
        *,
        params: Params | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(code, why, faults, params=params)
        self.retry_after = retry_after


class ApiRefusedError(PageError):
    """The API refuses a request of a page. The page shows its problem."""

    def __init__(self, response: ApiResponse) -> None:
        body = response.body or {}
        name = str(body.get("code", ""))
        # A code of another version has no words here. Its sentence is shown.
        code = CODES.get(name) or ProblemCode(name, response.status, "", "")
        super().__init__(
            code._replace(status=response.status),
            str(body.get("detail", "")),
            [
                FieldFault(one["field"], one["detail"], find_field_code(one["code"]), one.get("params", {}))
                for one in body.get("errors", ())
            ],
            params=body.get("params"),
            retry_after=response.fields.get("Retry-After"),
        )


@dataclass
class Visit:
    """A request for a page by a visitor who may see it."""

    site: "Site"
    request: web.Request
    reader: Reader
    session: Session | None = None
    form: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] | None = None
    """The path parameters, if they differ from the request's."""
    refusal: Refusal | None = None
    """Why the form of this page was refused. Its sender sees the form again."""
    customer_names: dict[str, str] = field(default_factory=dict)
    """The names of customers for people, by their names in the ledger."""
    is_restored: bool = False
    """True if the form was restored after its sender had to sign in again."""

    @property
    def client(self) -> str:
        """The IP address of the client."""
        return self.site.api.client(self.request)

    @property
    def session_secret(self) -> str:
        """Return the secret of the browser's session, which may have ended; empty if there is none."""
        return self.request.cookies.get(self.site.cookie, "")

    @property
    def signed_in(self) -> Session:
        """Return the session. Only for pages that need one."""
        assert self.session is not None
        return self.session

    @property
    def customer(self) -> str:
        """Return the customer of the session. Only for pages of the portal."""
        assert self.signed_in.who.customer is not None
        return self.signed_in.who.customer

    @property
    def step_up(self) -> StepUp:
        """Return whether the operator has shown a second factor, which sensitive actions need."""
        if self.session is None or self.site.settings_now().operators is None:
            return "impossible"
        return "done" if is_factor_recent(self.session.who.factor_at, time.time()) else "needed"

    @property
    def referring_page(self) -> str:
        """Return the path of our page that sent a form; empty if the browser does not tell it."""
        try:
            referrer = urlsplit(self.request.headers.get("Referer", ""))
        except ValueError:
            return ""
        is_ours = forms.normalize_origin(f"{referrer.scheme}://{referrer.netloc}") in self.site.origins(self.request)
        return referrer._replace(scheme="", netloc="", fragment="").geturl() if is_ours else ""

    @property
    def currency(self) -> str | None:
        """Return the currency that the reader has chosen for amounts, or None."""
        return self.request.query.get("currency") or self.request.cookies.get(CURRENCY_COOKIE)

    def path_parameter(self, parameter: str) -> str:
        """Return a parameter of the path."""
        return (self.parameters or self.request.match_info)[parameter]

    def read_field(self, name: str) -> str:
        """Return a field of the form, empty if the form lacks it."""
        return self.form.get(name, "")

    async def call(self, method: str, path: str, **options: Unpack[RequestOptions]) -> ApiResponse:
        """Call the API and return its response with any status.

        Parameters of its path that `names` lacks are those of the page's path, and the customer of the session.
        """
        customer = self.signed_in.who.customer
        own = {**({} if customer is None else {"customer": customer}), **(self.parameters or self.request.match_info)}
        own = {name: value for name, value in own.items() if f"{{{name}}}" in path}
        names = options["names"] = {**own, **options.get("names", {})}
        response = await self.site.api.ask(self.request, self.signed_in, method, path, **options)
        await self.learn_names({*names.get("customer", "").split(), *list_customers(response)})
        return response

    async def learn_names(self, customers: Collection[str]) -> None:
        """Fetch the names for people of customers by their names in the ledger."""
        if unknown := [name for name in customers if name not in self.customer_names]:
            async with self.site.database.reading() as connection:
                names = await shown_names.fetch_all_names(connection, unknown)
            self.customer_names |= {name: both.shown for name, both in names.items()}

    def name_customer(self, name: str) -> str:
        """Return the name of a customer for people, by the name that the API states."""
        return self.customer_names.get(name, name)

    def name_in_details(self, details: JsonDocument) -> JsonDocument:
        """Return the details of an alert with the name for people of its customer, of a length for a sentence."""
        names = {
            field: rendering.show_text(self.name_customer(details[field]), shown_names.READ_CHARACTERS)
            for field in OF_CUSTOMERS
            if details.get(field)
        }
        return {**details, **names}

    async def require(self, method: str, path: str, **options: Unpack[RequestOptions]) -> ApiResponse:
        """Call the API. Raises PageError if the API refuses."""
        response = await self.call(method, path, **options)
        if not response.is_success:
            raise ApiRefusedError(response)
        return response

    async def fetch(self, method: str, path: str, **options: Unpack[RequestOptions]) -> JsonDocument:
        """Call the API and return its JSON document. Raises PageError if the API refuses."""
        return (await self.require(method, path, **options)).body

    def render(self, template: str, **values: object) -> web.Response:
        """Return a response with a page."""
        return rendering.respond_html(self.render_text(template, **values))

    def render_report(self, template: str, response: ApiResponse, **values: object) -> web.Response:
        """Return a response with a page of figures. While the API computes them, the page reloads."""
        if response.status == 429:
            answer = self.render("waiting.html")
            answer.headers["Refresh"] = str(REFRESH_SECONDS)
            return answer
        if not response.is_success:
            raise ApiRefusedError(response)
        return self.render(template, result=response.body, **values)

    def render_error(self, error: CodedError, *, is_held: bool = False) -> web.Response:
        """Return a response with an error page. `is_held` says that the form is kept until its sender has signed in."""
        say = load_catalog(self.reader.language).gettext
        reason = explain_error(error, say) if error.why else None
        errors = [explain_fault(fault, say) for fault in error.faults]
        text = self.render_text(
            "error.html", code=error.status, reason=reason, errors=errors, back=self.referring_page, is_held=is_held
        )
        return rendering.respond_html(text, error.status)

    def render_text(self, template: str, **values: object) -> str:
        """Return the HTML of a page."""
        who = None if self.session is None else self.session.who
        settings, say = self.site.settings_now(), load_catalog(self.reader.language).gettext
        services, billing = navigation.find_services(settings, self.site.groups), settings.billing
        rates = {} if who is None or who.customer is None else find_rates(settings)
        return rendering.render_template(
            template,
            self.reader,
            name=self.site.settings.status.name,
            brand=self.site.brand,
            who=who,
            shows_invoices=who is not None and navigation.may_see_invoices(services, who.roles),
            form_token="" if self.session is None else self.session.form,
            once=secrets.token_hex(16),
            path=self.request.path,
            done=self.request.query.get("done", ""),
            notice=None if who is None or who.customer is None else self.site.notice(),
            navigation=[] if who is None else navigation.list_groups(who, services, self.request.path, say),
            theme=choices.find_theme(self.request),
            refusal=self.refusal,
            is_restored=self.is_restored,
            build_link=self.build_link,
            step_up=self.step_up,
            has_status="status" in self.site.groups,
            name_customer=self.name_customer,
            name_in_details=self.name_in_details,
            shown_name=shown_name,
            find_display=partial(find_worded_display, settings.meters, say=say),
            credit_meters={}
            if billing is None or billing.credits is None
            else {meter: currency for currency, meter in billing.credits.meters.items()},
            find_fee_share=partial(find_fee_share, settings.plans),
            currencies=[CHARGED, *rates] if rates else [],
            beside=currencies.choose_currency(rates, self.currency, self.reader.locale),
            approximations=[],  # Those that are on the page.
            **values,
        )

    def render_mail(self, subject: str, body: str, links: Sequence[str], button: str) -> str:
        """Return the HTML of a mail with the text `body`. A paragraph that is one of the links becomes a button."""
        return render_links(self.site.settings.status.name, subject, body, links, button, self.reader)

    def build_link(self, **changes: str | None) -> str:
        """Return a link to this page with changed query parameters. A parameter that is None is removed.

        After a form, the link leads to the form's page.
        """
        is_form = self.request.method == "POST"
        query: dict[str, str | None] = {**({} if is_form else self.request.query), **changes}
        query.pop("done", None)
        path = urlsplit(self.referring_page).path or "/" if is_form else ""
        return f"{path}?{urlencode({name: value for name, value in query.items() if value is not None})}"

    def send_file(self, response: ApiResponse) -> web.Response:
        """Return a response with a file of the API for download."""
        fields = {name: response.fields[name] for name in ("Content-Type", "Content-Disposition")}
        return web.Response(body=response.content, headers={**fields, **rendering.SECURITY, **rendering.PRIVATE})

    def redirect(self, path: str, **query: str) -> web.Response:
        """Return a redirect to another page after a form was applied."""
        where = f"{path}?{urlencode(query)}" if query else path
        return web.Response(status=303, headers={"Location": where, **rendering.SECURITY, **rendering.PRIVATE})


Handler = Callable[[Visit], Awaitable[web.StreamResponse]]


class Page(NamedTuple):
    """A page or the target of a form."""

    method: str
    path: str
    who: Audience
    """The audience: anyone, someone who has signed in, operators by their roles, or customers."""
    handler: Handler
    of: frozenset[str] = SIGNED_IN
    """For audiences `anyone` and `someone`: the listener must serve one of these groups."""

    @property
    def groups(self) -> frozenset[str]:
        """Return the groups. The listener must serve one of them."""
        return {"operator": CONSOLE, "customer": PORTAL}.get(self.who, self.of)


class Site:
    """The site of a listener: what its pages share."""

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
        """The URL for browsers, without a trailing slash."""
        self.api = api
        self.settings_now = now
        """Returns the collector's current settings."""
        self.notice = notice
        """Returns the notice to customers while charging is stopped; None while charging, or without a notice."""
        self.groups = groups
        """The groups of pages that the listener serves: console, portal, status."""
        self.mails = OutgoingMails()
        """Limits mails that anyone can request. All sites of a collector share it."""
        self.is_secure = url.startswith("https://")
        self.prefix = "__Host-" if self.is_secure else ""
        """The cookie prefix. No other host of the domain can set cookies with it."""
        self.cookie = f"{self.prefix}edgeproxy-session"
        self.held_cookie = f"{self.prefix}edgeproxy-held-form"
        self.shown_pages: dict[str, Page] = {}  # By path template.
        self.reference: ApiReference | None = None  # The reference of the owner's API.
        self.brand = NO_BRAND
        self.has_issuer = False  # True if operators sign in at an issuer. It is asked for their roles again regularly.

    def origins(self, request: web.Request) -> frozenset[str]:
        """Return the origins of our pages: the request's and the configured one."""
        here = f"{self.url.partition('://')[0]}://{request.host}"
        return frozenset({forms.normalize_origin(here), forms.normalize_origin(self.url)})

    @property
    def tiers(self) -> Mapping[str, Tier]:
        """Return the current tiers, by name."""
        return self.settings_now().tiers

    # ---- cookies

    def remember(self, answer: web.StreamResponse, name: str, value: str, seconds: int | None = None) -> None:
        """Set a cookie that scripts cannot read."""
        answer.set_cookie(name, value, max_age=seconds, path="/", secure=self.is_secure, httponly=True, samesite="Lax")

    def forget(self, answer: web.StreamResponse, name: str) -> None:
        """Delete a cookie."""
        self.remember(answer, name, "", 0)

    def home(self, who: SignedIn) -> str:
        """Return the path of a session's first page."""
        return HOMES[who.customer is None]

    def is_home(self, who: SignedIn | Link) -> bool:
        """Return True if the listener serves the console or, for a customer, the portal."""
        return bool((CONSOLE if who.customer is None else PORTAL) & self.groups)


def format_path(path: str, **names: str) -> str:
    """Return a path template with its parameters filled in."""
    return path.format(**{name: quote(value, safe="") for name, value in names.items()})
