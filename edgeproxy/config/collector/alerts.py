"""Channels of alerts: `alerts` in collector.yaml."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses, parsers
from edgeproxy.config.collector.languages import DEFAULT, Language
from edgeproxy.config.field_types import Name, Switch
from edgeproxy.config.forms import build_number, build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.references import Fault, is_switched_on
from edgeproxy.config.tree import Items, Table
from edgeproxy.config.units import DAY_SECONDS, PatternText, Time, Whole, read_text, value_error
from edgeproxy.config.url_secrets import read_secret_url

A_WEBHOOK = "https://HOST/PATH; http:// reaches this host alone"
A_FOLDER = "a URL that ends with a slash, such as https://git.example.com/edgeproxy/blob/main/"
A_SECRET = "whsec_ and 24 to 64 bytes in Base64, best from the environment: ${ALERT_SECRET}"
A_ROUTING_KEY = "the 32 letters and digits of a PagerDuty integration, best from the environment: ${PAGERDUTY_KEY}"
AN_SMTP = "smtps://USER:PASSWORD@HOST:465, or smtp:// with STARTTLS; in the clear only on this host"
AN_ADDRESS = "an address such as ops@example.com"
SECRET_PREFIX = "whsec_"
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")
MAIL_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
"""Addresses as people usually have them. Other forms of RFC 5322 could change the header of a message."""
SMTP_PORTS = {"smtp": 587, "smtps": 465}
PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
KINDS = ("webhook", "slack", "pagerduty", "alertmanager", "smtp")
"""Kinds of channels: each channel has one of these fields."""
KIND_BY_FIELD = {"secret": "webhook", "url": "pagerduty", "from": "smtp", "to": "smtp"}
"""The kind of channel that a field belongs to."""
THRESHOLDS_MAX = 10
some_percent = Whole(1, 1000)


@written(build_text("URL", r"https?://.+", "https://hooks.example.com/alerts"))
def read_webhook(value: object) -> str:
    """Read the URL that messages are posted to. Errors do not show it, because its path may be a secret."""
    url = read_alertmanager(value)
    if is_in_clear(url):
        raise value_error("is reached in the clear", "write https://")
    return url


@written(build_text("URL", r"https?://.+", "https://alertmanager.internal:9093/api/v2/alerts"))
def read_alertmanager(value: object) -> str:
    """Read the URL that messages are posted to. HTTP is allowed, because Alertmanager itself may have no TLS."""
    url = read_text(value, A_WEBHOOK)
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        is_whole = False
    if not is_whole or parts.scheme not in ("https", "http") or "@" in parts.netloc or parts.fragment:
        raise value_error("is not a URL to which messages can be sent", A_WEBHOOK)
    return url


def is_in_clear(url: str) -> bool:
    """Return whether others on the network could read messages to a URL: it has no TLS and is on another host."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not addresses.is_loopback(parts.hostname or "")


@written(build_text("`whsec_…`", r"whsec_.+"))
def read_signing_secret(value: object) -> str:
    """Read a secret in the form of Standard Webhooks. Errors do not show it."""
    secret = read_text(value, A_SECRET)
    raw = parsers.decode_base64(secret.removeprefix(SECRET_PREFIX))
    if not secret.startswith(SECRET_PREFIX) or not SECRET_BYTES_MIN <= len(raw) <= SECRET_BYTES_MAX:
        raise value_error("is no such secret", A_SECRET)
    return secret


read_routing_key = PatternText("32 letters and digits", ROUTING_KEY, "is no such key", A_ROUTING_KEY)
"""Reads the key of a PagerDuty integration. Errors do not show it."""


class MailServer(NamedTuple):
    """A mail server."""

    host: str
    port: int
    is_tls: bool
    """True if the connection starts with TLS. Otherwise STARTTLS is required, unless the server is on this host."""
    user: str | None
    password: str | None


def parse_mail_server(url: str) -> MailServer:
    """Return the parts of a mail server's URL; raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in SMTP_PORTS or not parts.hostname or parts.port == 0:
        raise ValueError("it is of no server")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("it has a path")
    user, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
    return MailServer(parts.hostname, parts.port or SMTP_PORTS[parts.scheme], parts.scheme == "smtps", user, password)


@written(build_text("mail server URL", r"smtps?://.+", "smtps://USER:PASSWORD@mail.example.com:465"))
def read_smtp(value: object) -> str:
    """Read the URL of a mail server. Errors do not show it, because it has a password."""
    url = read_secret_url(value, AN_SMTP)
    try:
        parse_mail_server(url)
    except ValueError:
        raise value_error("is not the URL of a server that takes mail", AN_SMTP) from None
    return url


@written(build_text("mail address", r".+@.+", "ops@example.com"))
def read_mail_address(value: object) -> str:
    """Read a mail address."""
    address = read_text(value, AN_ADDRESS)
    if not MAIL_ADDRESS.fullmatch(address):
        raise value_error("is no address that mail can be sent to", AN_ADDRESS)
    return address


@written(build_text("URL", r"https?://.+/", "https://git.example.com/edgeproxy/blob/main/"))
def read_runbooks(value: object) -> str:
    """Read the base URL of the runbooks. Paths of pages are appended to it."""
    url = read_text(value, A_FOLDER)
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("https", "http") and bool(parts.hostname) and url.isascii() and url.isprintable()
    except ValueError:
        is_whole = False
    if not is_whole or not url.endswith("/") or parts.fragment or parts.query or " " in url:
        raise value_error("is not the URL of a folder", A_FOLDER)
    return url


@written({"type": "array", "items": build_number(1, 1000), "maxItems": THRESHOLDS_MAX}, list)
def read_thresholds(value: object) -> object:
    """Read increasing percentages."""
    hint = f"at most {THRESHOLDS_MAX} whole percentages that grow, such as [80, 100, 120]"
    if not isinstance(value, list | tuple) or len(value) > THRESHOLDS_MAX:
        raise value_error("is no list of percentages", hint)
    percentages = tuple(some_percent(one) for one in value)
    if any(one >= other for one, other in pairwise(percentages)):
        raise value_error("does not grow", hint)
    return percentages


MailAddress = Annotated[str, BeforeValidator(read_mail_address)]


class Channel(Part):
    """A channel for alerts: one of `webhook`, `slack`, `pagerduty`, `alertmanager` and `smtp`, and its details.

    Take secrets from the environment.
    """

    webhook: Annotated[str, BeforeValidator(read_webhook)] | None = Field(
        default=None, repr=False, description="URL that receives alerts by POST, [signed](alerting.md#webhooks)."
    )
    secret: Annotated[
        tuple[Annotated[str, BeforeValidator(read_signing_secret)], ...], BeforeValidator(parsers.read_list)
    ] = Field(
        default=(),
        repr=False,
        description="Secret of the signature (Standard Webhooks). Write a list while one secret replaces another.",
    )
    slack: Annotated[str, BeforeValidator(read_webhook)] | None = Field(
        default=None, repr=False, description="URL of an incoming webhook of Slack."
    )
    pagerduty: Annotated[str, BeforeValidator(read_routing_key)] | None = Field(
        default=None, repr=False, description="Key of a PagerDuty integration (Events API v2)."
    )
    url: Annotated[str, BeforeValidator(read_webhook)] = Field(
        default=PAGERDUTY_URL,
        description="URL for PagerDuty events; in the EU region `https://events.eu.pagerduty.com/v2/enqueue`.",
    )
    alertmanager: Annotated[str, BeforeValidator(read_alertmanager)] | None = Field(
        default=None,
        repr=False,
        description="URL where an [Alertmanager](alerting.md#alertmanager) receives alerts, such as "
        "`https://alertmanager.internal:9093/api/v2/alerts`. With `private: true` it may be `http://`.",
    )
    smtp: Annotated[str, BeforeValidator(read_smtp)] | None = Field(
        default=None,
        repr=False,
        description="Mail server: `smtps://` or `smtp://` and `[USER:PASSWORD@]HOST[:PORT]`. `smtp://` needs STARTTLS, "
        "unless the server is on this host.",
    )
    from_: MailAddress | None = Field(default=None, alias="from", description="Sender of alert mails.")
    to: Annotated[tuple[MailAddress, ...], BeforeValidator(parsers.read_list)] = Field(
        default=(), description="Recipients of alert mails."
    )
    private: Switch = Field(
        default=False,
        description="Allows an address in a private network: see [what a channel may "
        "reach](alerting.md#what-a-channel-may-reach).",
    )

    @property
    def kind(self) -> str:
        """The kind of channel, of KINDS."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)


class Routes(Part):
    """Channels by severity. A severity without channels uses those of the next lower severity."""

    page: tuple[Name, ...] = Field(default=(), description="Channels for alerts that need a person now.")
    warn: tuple[Name, ...] = Field(default=(), description="Channels for alerts that need a person today.")
    info: tuple[Name, ...] = Field(default=(), description="Channels for alerts that need no action.")


class Alerts(Part):
    """[Alerts](alerting.md). The log has each alert too. A reload applies all of it."""

    channels: dict[Name, Channel] = Field(default_factory=dict, description="Channels, by name.")
    routes: Routes = Field(default=Routes(), description="Channels for each severity.")
    customers: Name | None = Field(
        default=None,
        description="Channel, of `smtp`, that sends customers their own alerts, to the `alert_email` of their "
        "metadata. By default they get none.",
    )
    runbooks: Annotated[str, BeforeValidator(read_runbooks)] = Field(
        default="",
        description="URL of the folder that contains `docs/`, such as `https://git.example.com/edgeproxy/blob/main/`: "
        "messages link to the instructions there. By default they name the file.",
    )
    language: Language = Field(
        default=DEFAULT,
        description="Language of mails to operators, and to customers whose contacts have not signed in to the pages.",
    )
    thresholds: Annotated[tuple[int, ...], BeforeValidator(read_thresholds)] = Field(
        default=(80, 100, 120), description="Percentages of a quota that raise an alert, in ascending order."
    )
    escalate: Annotated[float, BeforeValidator(Time(60.0, DAY_SECONDS))] = Field(
        default=900.0,
        description="Time until an undelivered alert goes to the channels of the next higher severity too.",
    )
    denials: Annotated[int, BeforeValidator(Whole(1, 1_000_000))] = Field(
        default=100, description="Number of denied requests in a minute that raises an alert."
    )
    rotation: Annotated[float, BeforeValidator(Time(3600.0, 90 * DAY_SECONDS))] = Field(
        default=7 * DAY_SECONDS,
        description="Time of the alert before a [key is due](accounts.md#keys-that-are-due).",
    )


def find_alert_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions in `alerts` of a collector.yaml."""
    alerts = tree.get("alerts")
    if not isinstance(alerts, Table):
        return
    channels = alerts.get("channels")
    known = channels if isinstance(channels, Table) else Table()
    for channel_name, channel_table in known.items():
        if isinstance(channel_table, Table):
            yield from _find_channel_faults(("alerts", "channels", channel_name), channel_table)
    names = ", ".join(known) or "there is none yet"
    routes = alerts.get("routes")
    for severity, listed in routes.items() if isinstance(routes, Table) else ():
        for number, name in enumerate(listed if isinstance(listed, Items) else ()):
            if isinstance(name, str) and name not in known:
                yield Fault(
                    ("alerts", "routes", severity, number), f"there is no channel {name}", f"known here: {names}"
                )
    customers = alerts.get("customers")
    if isinstance(customers, str):
        channel = known.get(customers)
        if channel is None:
            yield Fault(("alerts", "customers"), f"there is no channel {customers}", f"known here: {names}")
        elif isinstance(channel, Table) and "smtp" not in channel:
            yield Fault(("alerts", "customers"), f"{customers} sends no mail", "name a channel with smtp")


def _find_channel_faults(path: tuple[str, ...], channel: Table) -> Iterator[Fault]:
    kinds = [kind for kind in KINDS if kind in channel]
    if len(kinds) != 1:
        what = f"has {' and '.join(kinds)}" if kinds else "has no way out"
        yield Fault(path, what, "write one of webhook, slack, pagerduty, alertmanager and smtp")
        return
    for field, kind in KIND_BY_FIELD.items():
        if field in channel and kind not in kinds:
            yield Fault((*path, field), f"belongs to {kind}", "leave it out")
    url, private = channel.get("alertmanager"), channel.get("private")
    if isinstance(url, str) and is_in_clear(url) and not (isinstance(private, str) and is_switched_on(private)):
        hint = "write https://, or private: true beside it where it is in a network of your own"
        yield Fault((*path, "alertmanager"), "is reached in the clear", hint)
    needed = {"webhook": ("secret",), "smtp": ("from", "to")}.get(kinds[0], ())
    for field in needed:
        if field not in channel:
            yield Fault((*path, kinds[0]), f"lacks {field}", f"write {field} beside it")
