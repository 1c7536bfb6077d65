"""Pages that people look at: `pages` in collector.yaml."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses, parsers
from edgeproxy.config.collector.brand import Brand, find_brand_faults
from edgeproxy.config.collector.customer_api import CustomerApi
from edgeproxy.config.collector.listeners import find_url_faults
from edgeproxy.config.collector.operators import Algorithm, Word, read_issuer
from edgeproxy.config.collector.regions import REGIONS_MAX, read_region_url
from edgeproxy.config.field_codes import NOT_AN_EMAIL
from edgeproxy.config.field_types import Address, Count, Name, Sample, Sentence, Switch
from edgeproxy.config.part import Part
from edgeproxy.config.references import Fault, is_switched_on
from edgeproxy.config.tree import Table
from edgeproxy.config.units import PatternText, Time

AN_ADDRESS = "one address such as edge@example.com"
MAILBOX = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,255}")


read_mailbox = PatternText(
    "mail address", MAILBOX, "{} is not an e-mail address", AN_ADDRESS, ("edge@example.com",), code=NOT_AN_EMAIL
)
"""Reads the mail address of a sender or receiver."""


USAGE_METERS_MAX = 8
COMPONENTS_MAX = 16


class SignInMail(Part):
    """Mail with sign-in links."""

    server: Address = Field(description="Mail server (SMTP).")
    sender: Annotated[str, BeforeValidator(read_mailbox)] = Field(description="Sender.")
    tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls",
        description="`starttls` sends nothing before TLS; `tls` starts with it; `none` is for a server on this host.",
    )
    user: Word | None = Field(default=None, description="User to log in as, if the server needs one.")
    password: Annotated[str | None, BeforeValidator(parsers.read_secret)] = Field(
        default=None, repr=False, description="Password of the user, from the environment."
    )


class CustomerSignIn(Part):
    """An OpenID Connect issuer where contacts of customers [sign in](pages.md#signing-in)."""

    issuer: Annotated[str, BeforeValidator(read_issuer)] = Field(
        description="Issuer that has verified the e-mail address (`email_verified`), exactly as in the `iss` of its "
        "tokens."
    )
    client: Word = Field(description="Client id for customers' sign-in.")
    client_secret: Annotated[str | None, BeforeValidator(parsers.read_secret)] = Field(
        default=None, repr=False, description="Secret of this client, from the environment. By default none."
    )
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = Field(
        default=("RS256", "ES256"), description="Signature algorithms of tokens."
    )


class SignUp(Part):
    """[Sign-up](pages.md#signing-up): people create their own customer after proving their e-mail address."""

    tier: Name = Field(description="Tier of new customers.")
    plan: Name | None = Field(
        default=None, description="Plan without a fee that new customers are subscribed to. By default they choose one."
    )
    per_hour: Count = Field(
        default=100,
        description="Addresses that may sign up in an hour, in total. Each network and each domain has a "
        "[share](scarce-goods.md).",
    )


class WatchedRegion(Part):
    """The check of a region, or of another part of the service."""

    url: Annotated[str, BeforeValidator(read_region_url)] = Field(
        description="URL that is requested with GET and without a key. A status from 200 to 399 within 10 s is a "
        "success. Choose a route through the edge to an upstream. These requests are usage of the customer `-`."
    )
    latency: Annotated[float, BeforeValidator(Time(0.001, 10.0))] = Field(
        default=1.0, description="Time within which an answer counts as fast."
    )


class StatusPage(Part):
    """The [status page](pages.md#the-public-status), which is open to all."""

    name: Sentence = Field(default="edgeproxy", description="Name at the top of all pages.")
    subscribe: Switch = Field(
        default=False,
        description="Anybody may subscribe to [updates of incidents by mail](pages.md#updates-by-mail). Needs `mail`.",
    )
    usage: Annotated[tuple[Name, ...], Field(max_length=USAGE_METERS_MAX)] = Field(
        default=(),
        description="Meters whose sum over all customers is public. The sum covers the last 7 whole days, rounded down "
        "to two digits. By default none.",
    )
    every: Annotated[float, BeforeValidator(Time(1.0, 3600.0))] = Field(
        default=30.0, description="Time between two checks of a region."
    )
    availability: Sample = Field(
        default=0.999, description="Objective: the share of checks that succeed, over 90 days."
    )
    fast: Sample = Field(default=0.95, description="Objective: the share of successful checks that are fast.")
    regions: Annotated[dict[Name, WatchedRegion], Field(max_length=REGIONS_MAX)] = Field(
        default_factory=dict, description="Check of each region."
    )
    components: Annotated[dict[Name, WatchedRegion], Field(max_length=COMPONENTS_MAX)] = Field(
        default_factory=dict,
        description="Check of each further part of the service, such as the portal. By default there are none.",
    )

    @property
    def watched(self) -> dict[str, WatchedRegion]:
        """The check of each part of the service: first the regions by name, then the components."""
        return {**dict(sorted(self.regions.items())), **self.components}


class Pages(Part):
    """[Pages](pages.md), at the collector's address, or at the listeners whose [`serve`](#listen) names them.

    `pages: {}` serves all of them, without sign-in at an issuer, mail and measured regions.
    """

    url: Annotated[str, BeforeValidator(addresses.read_collector)] | None = Field(
        default=None,
        description="URL of the pages for browsers, such as the URL of a proxy; `https://` unless it is on this host. "
        "Links in mails start with it. By default the address of the listener.",
    )
    client: Word | None = Field(
        default=None,
        description="Client id for operators' sign-in at their issuer. By default they sign in with a printed link.",
    )
    client_secret: Annotated[str | None, BeforeValidator(parsers.read_secret)] = Field(
        default=None, repr=False, description="Secret of this client, from the environment. By default none."
    )
    mail: SignInMail | None = Field(
        default=None, description="Mail with sign-in links for customers. By default none is sent."
    )
    customers: CustomerSignIn | None = Field(
        default=None,
        description="OpenID Connect issuer where customers can also sign in. By default they use mailed links.",
    )
    sign_up: SignUp | None = Field(
        default=None,
        description="Sign-up by customers themselves. Needs `mail` or `customers`. By default operators create "
        "customers.",
    )
    api: CustomerApi | None = Field(
        default=None,
        description="API that customers' keys are for. With it, new keys come with commands to try, and the portal has "
        "a reference. By default neither.",
    )
    brand: Brand = Field(default=Brand(), description="Logo and colour. By default edgeproxy's.")
    status: StatusPage = Field(default=StatusPage(), description="Status page.")


def find_component_faults(status: Table) -> Iterator[Fault]:
    """Find components with the name of a region."""
    regions, components = status.get("regions"), status.get("components")
    if isinstance(regions, Table) and isinstance(components, Table):
        for name in components:
            if name in regions:
                yield Fault(("pages", "status", "components", name), "is a region too", "choose another name")


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions in `pages` of a collector.yaml."""
    pages = tree.get("pages")
    if not isinstance(pages, Table):
        return
    yield from find_url_faults(("pages", "url"), pages.get("url"))
    if isinstance(brand := pages.get("brand"), Table):
        yield from find_brand_faults(brand)
    if "client" in pages and "operators" not in tree:
        yield Fault(("pages", "client"), "belongs to no issuer", "write operators, or leave it out")
    if "operators" in tree and "client" not in pages:
        yield Fault(("pages",), "says not how operators sign in", "write client: the id of a client at their issuer")
    mail, status = pages.get("mail"), pages.get("status")
    if isinstance(status, Table):
        yield from find_component_faults(status)
    subscribe = status.get("subscribe") if isinstance(status, Table) else None
    if isinstance(subscribe, str) and is_switched_on(subscribe) and mail is None:
        yield Fault(("pages", "status", "subscribe"), "has no mail to send by", "write pages.mail")
    if "sign_up" in pages and mail is None and "customers" not in pages:
        yield Fault(("pages", "sign_up"), "has nothing that proves an address", "write pages.mail or pages.customers")
    if not isinstance(mail, Table):
        return
    if ("user" in mail) != ("password" in mail):
        yield Fault(("pages", "mail"), "has one of user and password", "write both, or none")
    server = mail.get("server")
    address = addresses.split_address(server) if isinstance(server, str) else None
    is_away = address is not None and not addresses.is_loopback(address.host)
    if is_away and "password" in mail and mail.get("tls") == "none":
        yield Fault(("pages", "mail", "tls"), "sends the password in the clear", "write starttls or tls")
