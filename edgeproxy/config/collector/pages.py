"""Pages that people look at: `pages` in collector.yaml."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses, parsers
from edgeproxy.config.collector.listeners import find_url_faults
from edgeproxy.config.collector.operators import Algorithm, Word, read_issuer
from edgeproxy.config.collector.regions import REGIONS_MAX, read_region_url
from edgeproxy.config.field_types import Address, Name, Sample, Sentence
from edgeproxy.config.part import Part
from edgeproxy.config.references import Fault
from edgeproxy.config.tree import Table
from edgeproxy.config.units import Time, format_value, read_text, value_error

AN_ADDRESS = "one address such as edge@example.com"
MAILBOX = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,255}")


def read_mailbox(value: object) -> str:
    """Read the address of somebody who gets mail, or sends it."""
    written = read_text(value, AN_ADDRESS)
    if not MAILBOX.fullmatch(written):
        raise value_error(f"{format_value(written)} is not an e-mail address", AN_ADDRESS)
    return written


class SignInMail(Part):
    """How customers are sent the links by which they sign in."""

    server: Address
    """The server that takes mail (SMTP): HOST:PORT."""
    sender: Annotated[str, BeforeValidator(read_mailbox)]
    """From whom it is."""
    tls: Literal["starttls", "tls", "none"] = "starttls"
    """How the server is reached: starttls asks for TLS and sends nothing without it, tls begins with it."""
    user: Word | None = None
    """Who sends, where the server wants to know."""
    password: Annotated[str | None, BeforeValidator(parsers.read_secret)] = Field(default=None, repr=False)
    """The password of the user."""


class CustomerSignIn(Part):
    """An issuer of OpenID Connect at which customers sign in, beside the links that they are mailed."""

    issuer: Annotated[str, BeforeValidator(read_issuer)]
    """Who vouches for their e-mail addresses: with `email_verified`, without which nobody is let in."""
    client: Word
    """The client id by which they sign in."""
    client_secret: Annotated[str | None, BeforeValidator(parsers.read_secret)] = Field(default=None, repr=False)
    """The secret of this client; by default it has none."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    """How tokens may be signed."""


class WatchedRegion(Part):
    """A region whose availability and latency the status page shows."""

    url: Annotated[str, BeforeValidator(read_region_url)]
    """What is asked for, with GET: an address that is open to all. A status from 200 to 399 is well."""
    latency: Annotated[float, BeforeValidator(Time(0.001, 10.0))] = 1.0
    """Within which time an answer is fast."""


class StatusPage(Part):
    """The status page, which everybody may see."""

    name: Sentence = "edgeproxy"
    """Whose status it is."""
    every: Annotated[float, BeforeValidator(Time(1.0, 3600.0))] = 30.0
    """After which time each region is asked again."""
    availability: Sample = 0.999
    """The share of answers that are to be well."""
    fast: Sample = 0.95
    """The share of answers that are to be fast."""
    regions: Annotated[dict[Name, WatchedRegion], Field(max_length=REGIONS_MAX)] = Field(default_factory=dict)
    """Where each region is asked; by default no region is."""


class Pages(Part):
    """Pages that people look at, where the collector listens."""

    url: Annotated[str, BeforeValidator(addresses.read_collector)] | None = None
    """How browsers reach them; by default where the collector listens. Links in mails begin with it."""
    client: Word | None = None
    """The client id by which operators sign in at their issuer."""
    client_secret: Annotated[str | None, BeforeValidator(parsers.read_secret)] = Field(default=None, repr=False)
    """The secret of this client; by default it has none."""
    mail: SignInMail | None = None
    """How customers are sent their links; by default they are not."""
    customers: CustomerSignIn | None = None
    """The issuer at which customers sign in too; by default they sign in by mailed links alone."""
    status: StatusPage = StatusPage()
    """The status page."""


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions in `pages` of a collector.yaml."""
    pages = tree.get("pages")
    if not isinstance(pages, Table):
        return
    yield from find_url_faults(("pages", "url"), pages.get("url"))
    if "client" in pages and "operators" not in tree:
        yield Fault(("pages", "client"), "belongs to no issuer", "write operators, or leave it out")
    if "operators" in tree and "client" not in pages:
        yield Fault(("pages",), "says not how operators sign in", "write client: the id of a client at their issuer")
    mail = pages.get("mail")
    if not isinstance(mail, Table):
        return
    if ("user" in mail) != ("password" in mail):
        yield Fault(("pages", "mail"), "has one of user and password", "write both, or none")
    server = mail.get("server")
    address = addresses.split_address(server) if isinstance(server, str) else None
    is_away = address is not None and not addresses.is_loopback(address.host)
    if is_away and "password" in mail and mail.get("tls") == "none":
        yield Fault(("pages", "mail", "tls"), "sends the password in the clear", "write starttls or tls")
