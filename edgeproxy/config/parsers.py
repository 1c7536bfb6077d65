"""Words with a form as operators write them: names, addresses, networks, hosts, paths, methods, digests.

Like the readers of `units.py`, each takes the text of the file or the plain value, and raises `value_error`.
"""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from edgeproxy.config import methods
from edgeproxy.config.dimensions import RESERVED
from edgeproxy.config.proxy_fields import has_proxy_field
from edgeproxy.config.units import format_value, read_text, value_error

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
OWN_FIELDS = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "date"),
        *("content-length", "transfer-encoding", "proxy-authenticate", "proxy-authentication-info"),
        *("x-request-id", "ratelimit", "ratelimit-policy", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
    )
)
"""Fields of answers by which upstreams report nothing: of the connection, of framing, and those the edge sets or adds.
"""
REQUEST_FIELDS = frozenset(
    (
        *(
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "upgrade",
            "te",
            "expect",
            "via",
            "max-forwards",
        ),
        *("keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "proxy", "trailer"),
        *("traceparent", "tracestate", "x-request-id", "forwarded"),
        *("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-real-ip"),
        *("x-edge-region", "x-customer-id", "x-customer-tier", "x-edge-signature"),
    )
)
"""Fields of requests that have a meaning of their own to the edge."""
PARAMETER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
KEY_FIELD = re.compile(r"[A-Za-z0-9-]{1,64}")
STRIPPED = re.compile(r"[A-Za-z0-9-]{1,64}\*?")
TIMEZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")
NO_TIMEZONES = re.compile(r"localtime|posixrules|Factory|(?:posix|right)/.*")
"""What hosts have beside the names of IANA: it is not the same on each of them, or counts leap seconds."""
SCOPE = re.compile(r"[!#-\[\]-~]{1,64}")
TOKEN = re.compile(r"[!-~]{1,1000}")
DIGEST = re.compile(r"[0-9a-fA-F]{64}")
NOTHING_DIGEST = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The SHA-256 of no bytes, as `sha256sum` says of a variable that is not set."""
HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")
ENDPOINT = re.compile(r"(?i)(https?://[^/?#]+)(/[^?#]+)")
"""The URL of an endpoint with a path, in its two parts."""
TARGET = re.compile(r"/[!\"$-~]*")
PATH = re.compile(r"/[!#-;=?-~]*")
REFUSED_IN_PATHS = {
    "%": "write the character itself, or let a prefix end before it",
    "?": "routes look at paths, not at queries",
    "#": "a request's path never has one",
    "\\": "write /",
    "*": "only a last /* stands for all that follows",
}
PROTOCOL = re.compile(rf"{methods.TOKEN.pattern}(/{methods.TOKEN.pattern})?")
HTTP_AGAIN = re.compile(r"(?i:h2c?|h3|http|https|tls)(/.*)?")
"""Protocols in which HTTP is spoken on, past every rule of the edge: RFC 7540 section 3.2, RFC 2817."""
PORTS = {"http": 80, "https": 443}
MEMORY = "memory://"
"""The hub of those who share with nobody."""
REDIS = ("redis", "rediss")
CLUSTERS = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
"""How a cluster is written, and one node of it."""
REDIS_PORT = 6379
OFF = ("off", "false", "no")
GIVEN = "[given]"
"""What pydantic has in the path of an error between a field and the part that it may be, beside `off`."""
NO_LOGS = (*OFF, "on", "true", "yes", "none", "-", "stdout", "stderr")
SENTENCE_CHARACTERS_MAX = 500

A_NAME = "1 to 64 letters, digits, - or _, the first a letter or a digit"
AN_ADDRESS = "HOST:PORT such as 127.0.0.1:8080 or [::1]:8080"
A_LISTENER = "HOST:PORT such as 127.0.0.1:8080, or {address: HOST:PORT, tls: {cert: FILE, key: FILE}}"
A_NETWORK = "an address or a network such as 10.0.0.0/8"
MAPPED_BITS = 96
"""Of an IPv4 address in IPv6's clothes (RFC 4291 section 2.5.5.2), those before the address itself."""
A_SCOPE = "1 to 64 characters of ASCII without spaces, quotes and backslashes"
A_HOST = "a name such as api.example.com, or *.example.com"
A_SENT_HOST = "pass (the client's), upstream (that of the endpoint), or a name such as api.internal"
A_METHOD = f"a method such as GET, PROPFIND or QUERY; {', '.join(methods.REFUSED)} are not forwarded"
A_PROTOCOL = "a protocol such as websocket or SPDY/3.1"
A_PATH = "a path such as /v1/orders, or /v1/* for all below it"
AN_ORIGIN = "http://HOST:PORT such as http://10.0.0.5:9001, or https://HOST:PORT"
A_COLLECTOR = "http://HOST:PORT such as http://127.0.0.1:9100, or https://HOST:PORT"
A_HUB = "memory://, redis://HOST:PORT, rediss://USER:PASSWORD@HOST:PORT/DATABASE or redis+cluster://HOST:PORT,HOST:PORT"
A_FILE = "a file such as certs/edge.pem"
A_LOG = "a file such as var/access.log or /dev/stdout"
A_TARGET = "a path such as /healthz or /status?quick=1"
A_SERVER_NAME = "a name such as api.internal, or an IP address"
A_FOLDER = "a directory such as var/edge"
A_FIELD_NAME = "letters, digits and - such as X-Cost"
A_KEY_FIELD = "the name of a field of your own, such as X-API-Key"
A_PARAMETER = "none, or a name of letters, digits, -, _ and . such as api_key"
A_STRIPPED = "the name of a field such as X-Country-Code, or the beginning of some such as X-Internal-*"
AN_EXCEPTION = "the name of a field of docs/proxy-fields.md such as X-HTTP-Method-Override, or the beginning of some"
A_SENTENCE = "one to 500 characters of text"
A_TIMEZONE = "a name of the IANA time zones such as UTC or Europe/Berlin"
A_DIGEST = "64 hex digits, the SHA-256 of a key: `edgeproxy key new` prints it"


@dataclass(frozen=True, slots=True)
class PatternReader:
    """The reader of a text that a pattern describes, and that `hint` does in words."""

    pattern: str
    hint: str

    def __call__(self, value: object) -> str:
        written = read_text(value, self.hint)
        if not re.fullmatch(self.pattern, written):
            raise value_error(f"{format_value(written)} has another form", self.hint)
        return written


def read_name(value: object) -> str:
    """A name: of a customer, tier, meter, route, limit, upstream or region."""
    name = read_text(value, A_NAME)
    if not NAME.fullmatch(name):
        raise value_error(f"{format_value(name)} is not a name", A_NAME)
    return name


def read_scope(value: object) -> str:
    """A scope: what a key may do and a route asks for (RFC 6749 section 3.3)."""
    scope = read_text(value, A_SCOPE)
    if not SCOPE.fullmatch(scope):
        raise value_error(f"{format_value(scope)} is not a scope", A_SCOPE)
    return scope


class Address(NamedTuple):
    """Where to listen: an IP address, or a host name, and a port from 0 (any free one) to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def split_address(written: str) -> Address | None:
    """Split `HOST:PORT` into the host, without brackets, and the port; None where it has another form."""
    host, colon, port = written.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        return None
    if host.startswith("[") and host.endswith("]"):
        try:
            return Address(str(ipaddress.IPv6Address(host[1:-1])), int(port))
        except ValueError:
            return None
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return None
    return Address(host.lower(), int(port)) if HOST.fullmatch(host.lower()) else None


def is_address(host: str) -> bool:
    """Whether a host is an IP address, IPv6 without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def do_addresses_overlap(one: Address, other: Address) -> bool:
    """Whether who connects to one may reach the other: 0.0.0.0 is every IPv4 address, :: every one of IPv6."""
    if one.port != other.port:
        return False
    return one.host == other.host or _is_within(one.host, other.host) or _is_within(other.host, one.host)


def _is_within(host: str, anywhere: str) -> bool:
    if anywhere == "::":
        return ":" in host
    return anywhere == "0.0.0.0" and re.fullmatch(r"[0-9.]+", host) is not None


def read_address(value: object) -> Address:
    """`HOST:PORT`."""
    if isinstance(value, Address):
        return value
    written = read_text(value, AN_ADDRESS)
    address = split_address(written)
    if address is None:
        raise value_error(f"{format_value(written)} is not an address with a port", AN_ADDRESS)
    return address


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def read_network(value: object) -> Network:
    """An address or a network in CIDR form, whose bits below the prefix are zero."""
    written = read_text(value, A_NETWORK)
    try:
        network = ipaddress.ip_network(written, strict=False)
    except ValueError:
        raise value_error(f"{format_value(written)} is not an address or a network", A_NETWORK) from None
    if "/" in written and str(network.network_address) != str(ipaddress.ip_address(written.split("/")[0])):
        raise value_error(f"{format_value(written)} has bits below its prefix", f"the network is {network}")
    first = network.network_address
    if isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped is not None and network.prefixlen >= MAPPED_BITS:
        # As the addresses of clients are taken for what they are, a network in IPv6's clothes would mean nobody.
        return ipaddress.IPv4Network((first.ipv4_mapped, network.prefixlen - MAPPED_BITS))
    return network


def read_host(value: object) -> str:
    """A host as routes name it, in lower case without a trailing dot: exact, or `*.suffix`."""
    written = read_text(value, A_HOST)
    host = written.lower().removesuffix(".")
    if not HOST.fullmatch(host.removeprefix("*.")):
        raise value_error(f"{format_value(written)} is not a host name", f"{A_HOST}, without a port")
    return host


def read_sent_host(value: object) -> str:
    """Read what upstreams get as Host: `pass`, `upstream`, or a name in lower case, which may have a port."""
    written = read_text(value, A_SENT_HOST)
    name, colon, port = written.lower().partition(":")
    if not HOST.fullmatch(name) or (colon and not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16)):
        raise value_error(f"{format_value(written)} is not a host name", A_SENT_HOST)
    return name + colon + port


def read_path(value: object) -> str:
    """A path as routes name it: exact, or with `/*` at its end for all that begin so."""
    path = read_text(value, A_PATH)
    if not path.startswith("/"):
        raise value_error(f"{format_value(path)} does not begin with /", A_PATH)
    if not PATH.fullmatch(path):
        raise value_error(f"{format_value(path)} has a space, or another character that no request's path has", A_PATH)
    stem = path.removesuffix("/*")
    for character, hint in REFUSED_IN_PATHS.items():
        if character in stem:
            raise value_error(f"{format_value(path)} has {character}", hint)
    if {".", ".."} & {segment.partition(";")[0] for segment in stem.split("/")}:
        raise value_error(f"{format_value(path)} has a dot segment", "write the path that it leads to")
    return path


def read_method(value: object) -> str:
    """A method that is forwarded, be it registered or not (RFC 9110 section 9.1)."""
    method = read_text(value, A_METHOD)
    if not methods.TOKEN.fullmatch(method) or not methods.is_forwarded(method):
        hint = f"write {method.upper()}" if method.upper() in methods.FORWARDED else A_METHOD
        raise value_error(f"{format_value(method)} is not a method that the edge forwards", hint)
    return method


def read_protocol(value: object) -> str:
    """A protocol of Upgrade: a name, and perhaps a version behind a slash (RFC 9110 section 7.8)."""
    protocol = read_text(value, A_PROTOCOL)
    if not PROTOCOL.fullmatch(protocol):
        raise value_error(f"{format_value(protocol)} is not a protocol", A_PROTOCOL)
    if HTTP_AGAIN.fullmatch(protocol):
        hint = "leave it out"
        raise value_error(f"{format_value(protocol)} is HTTP again, in which requests would pass unseen", hint)
    return protocol


def read_origin(value: object) -> str:
    """Read the URL of an endpoint, `http://HOST:PORT` or `https://HOST:PORT`."""
    return _read_origin(value, AN_ORIGIN, "that is the endpoint's path")


def read_collector(value: object) -> str:
    """Read the URL of a collector, in the form of an endpoint's."""
    return _read_origin(value, A_COLLECTOR, "the edge knows where batches go")


def _read_origin(value: object, hint: str, why_no_path: str) -> str:
    written = read_text(value, hint)
    try:
        parts = urlsplit(written)
        port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        raise value_error(f"{format_value(written)} is not a URL", hint) from None
    if parts.scheme not in PORTS or not parts.netloc:
        raise value_error(f"{format_value(written)} is not an http or https URL", hint)
    if "@" in parts.netloc:
        raise value_error("has a user or a password", hint)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise value_error(f"{format_value(written)} has a path", f"{hint}: {why_no_path}")
    host = parts.hostname or ""
    address = split_address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    if address is None or address.port == 0:
        raise value_error(f"{format_value(written)} has no host, or a port that cannot be", hint)
    return f"{parts.scheme}://{address}"


def read_hub_url(value: object) -> str:
    """Read the URL of a hub: `memory://`, or `redis[s]://[USER[:PASSWORD]@]HOST:PORT/DATABASE` with parts left out.

    Or `redis[s]+cluster://[USER[:PASSWORD]@]HOST:PORT,HOST:PORT…`. Errors show nothing of it: where it has another
    form, a password may be anywhere.
    """
    written = read_text(value, A_HUB)
    hint = f"{A_HUB}: in a password %2F for /, %3F for ?, %23 for #" if "@" in written else A_HUB
    if written.lower() == MEMORY:
        return MEMORY
    scheme, _, rest = written.partition("://")
    scheme = scheme.lower()
    if scheme not in (*REDIS, *CLUSTERS) or not rest:
        raise value_error("is not the URL of a hub", hint)
    if "?" in rest or "#" in rest:
        raise value_error("has a ? or a #", hint)
    netloc, _, path = rest.partition("/")
    who, _, where = netloc.rpartition("@")
    at = f"{who}@" if who else ""
    try:
        urlsplit(f"redis://{at}")
    except ValueError:
        raise value_error("is not a URL", hint) from None
    if scheme in CLUSTERS:
        if path:
            raise value_error("has a path, and a cluster has no databases", hint)
        hosts = [_read_redis_address(host, hint) for host in where.split(",")]
        if len(set(hosts)) < len(hosts):
            raise value_error("names a node twice", "leave one of them out")
        return f"{scheme}://{at}{','.join(map(str, hosts))}"
    if not re.fullmatch("[0-9]{0,5}", path):
        raise value_error("has a path that is not the number of a database", hint)
    return f"{scheme}://{at}{_read_redis_address(where, hint)}/{int(path or 0)}"


def _read_redis_address(written: str, hint: str) -> Address:
    """A host and a port, which is Redis' own where there is none."""
    address = split_address(written) or split_address(f"{written}:{REDIS_PORT}")
    if address is None or address.port == 0:
        raise value_error("has no host, or a port that cannot be", hint)
    return address


class HubUrl(NamedTuple):
    """The URL of a hub in parts: `who` is the user and the password, `where` is HOST:PORT, in a cluster several."""

    scheme: str
    who: str
    where: tuple[str, ...]
    path: str

    @classmethod
    def parse(cls, url: str) -> "HubUrl":
        """Of one that was read."""
        scheme, _, rest = url.partition("://")
        netloc, _, path = rest.partition("/")
        who, _, where = netloc.rpartition("@")
        return cls(scheme, who, tuple(where.split(",")), path)


def has_password(url: str) -> bool:
    """Whether there is a password in the URL of a hub that was read."""
    return bool(HubUrl.parse(url).who.partition(":")[2])


def remove_password(url: str) -> str:
    """Return the URL of a hub for all to see: with the user's name, without the password."""
    who = HubUrl.parse(url).who
    user = who.partition(":")[0]
    return url.replace(f"://{who}@", f"://{user}@" if user else "://", 1) if who else url


def is_local_url(origin: str) -> bool:
    """Whether a URL that was read is of this host alone: a loopback address, or the name of one (RFC 6761)."""
    return is_loopback(urlsplit(origin).hostname or "")


def is_local_hub(url: str) -> bool:
    """Whether the URL of a hub names this host alone."""
    addresses = map(split_address, HubUrl.parse(url).where)
    return all(address is not None and is_loopback(address.host) for address in addresses)


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address, or the name of one (RFC 6761)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_target(value: object) -> str:
    """Read the target of a probe: a path, with a query where one is wanted."""
    target = read_text(value, A_TARGET)
    if not TARGET.fullmatch(target):
        raise value_error(f"{format_value(target)} is not a path that can be asked for", A_TARGET)
    return target


def read_server_name(value: object) -> str:
    """Read the name of a TLS server, or its IP address, as its certificate has it."""
    written = read_text(value, A_SERVER_NAME)
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        name = written.lower().removesuffix(".")
    if not HOST.fullmatch(name):
        raise value_error(f"{format_value(written)} is not a host name", A_SERVER_NAME)
    return name


def read_digest(value: object, hint: str = A_DIGEST) -> str:
    """Read the SHA-256 of a secret, 64 hex digits. Errors do not show it: it may be the secret itself."""
    digest = read_text(value, hint)
    if not DIGEST.fullmatch(digest):
        raise value_error(f"has {len(digest)} characters that are not a SHA-256", hint)
    lower = digest.lower()
    if lower == NOTHING_DIGEST:
        raise value_error("is the SHA-256 of nothing: whoever sends an empty one would be let in", hint)
    return digest if lower == digest else lower  # Nobody needs a million of them twice.


def read_folder(value: object) -> str:
    """A directory; a relative one is relative to where the edge is started."""
    return _read_path(value, A_FOLDER)


def read_file(value: object) -> str:
    """A file; a relative one is relative to where the edge is started."""
    return _read_path(value, A_FILE)


def read_log(value: object) -> str:
    """A file that lines are added to; not a word that only looks like one."""
    file = _read_path(value, A_LOG)
    if file.lower() in NO_LOGS or file.endswith("/"):
        raise value_error(f"{format_value(file)} is not a file to write to", A_LOG)
    return file


def _read_path(value: object, hint: str) -> str:
    """Read the path of a file or a directory."""
    path = str(value) if isinstance(value, PurePath) else read_text(value, hint)
    if not path or not path.isprintable():
        raise value_error(f"{format_value(path)} is not a path", hint)
    return path


def read_secret(value: object) -> str | None:
    """A secret; an empty one, as an unset variable leaves it, is none."""
    return None if value is None else read_text(value, "one text, best from the environment: ${STAMP_SECRET}") or None


def read_token(value: object) -> str | None:
    """A bearer token; an empty one is none. Errors do not show it."""
    hint = "one text without spaces, best from the environment: ${COLLECTOR_TOKEN}"
    token = None if value is None else read_text(value, hint)
    if token and not TOKEN.fullmatch(token):
        raise value_error("has characters that no token has", hint)
    return token or None


def read_field_name(value: object) -> str:
    """Read the name of a field of HTTP (RFC 9110 section 5.1)."""
    name = read_text(value, A_FIELD_NAME)
    if not FIELD_NAME.fullmatch(name):
        raise value_error(f"{format_value(name)} is not the name of a field", A_FIELD_NAME)
    return name


def read_key_field(value: object) -> str:
    """Read the name of a field in which keys come."""
    name = read_text(value, A_KEY_FIELD)
    if not KEY_FIELD.fullmatch(name):
        raise value_error(f"{format_value(name)} is not the name of a field", A_KEY_FIELD)
    if name.lower() in (*REQUEST_FIELDS, "cookie"):
        raise value_error(f"{name} has another meaning", A_KEY_FIELD)
    return name


def read_key_fields(value: object) -> object:
    """A list of fields, each there once."""
    names = read_one_or_more(value)
    assert isinstance(names, list | tuple)
    lower = [name.lower() for name in names if isinstance(name, str)]
    if len(set(lower)) < len(lower):
        raise value_error("names a field twice", "leave one of them out")
    return names


def read_parameter(value: object) -> str | None:
    """Read the name of a query's parameter or of a cookie; `none`: there is to be none."""
    if value is None or value == "none":
        return None
    name = read_text(value, A_PARAMETER)
    if not PARAMETER.fullmatch(name):
        raise value_error(f"{format_value(name)} is not such a name", A_PARAMETER)
    return name


def read_stripped(value: object) -> str:
    """Read the name of a field that only trusted proxies may send, or with `*` the beginning of several."""
    name = read_text(value, A_STRIPPED)
    if not STRIPPED.fullmatch(name):
        raise value_error(f"{format_value(name)} is not the name of a field", A_STRIPPED)
    if name.lower() in REQUEST_FIELDS:
        raise value_error(f"{name} has a rule of its own", "leave it out")
    return name


def read_strip_exception(value: object) -> str:
    """Read the name, or with `*` the beginning of names, of fields that not only trusted proxies may send."""
    name = read_stripped(value)
    if not has_proxy_field(name.lower()):
        raise value_error(f"{name} passes in any case", AN_EXCEPTION)
    return name


def read_sentence(value: object) -> str:
    """Read a sentence for people: its words in one line, whatever white space it was written with."""
    words = " ".join(read_text(value, A_SENTENCE).split())
    if not 1 <= len(words) <= SENTENCE_CHARACTERS_MAX:
        raise value_error(f"has {len(words)} characters", A_SENTENCE)
    if not words.isprintable():
        raise value_error(f"{format_value(words)} has characters that cannot be printed", A_SENTENCE)
    return words


def read_timezone(value: object) -> str:
    """Read the name of a time zone that `zoneinfo` knows."""
    name = read_text(value, A_TIMEZONE)
    if TIMEZONE.fullmatch(name) and not NO_TIMEZONES.fullmatch(name):
        try:
            return ZoneInfo(name).key
        except (ZoneInfoNotFoundError, OSError, ValueError):
            pass  # Not there, a directory of zones such as Europe, or another file beside them.
    from edgeproxy.config.nearest import format_suggestion  # Not at the top: what workers read is right already.

    known = [zone for zone in available_timezones() if not NO_TIMEZONES.fullmatch(zone)]
    raise value_error(f"{format_value(name)} is not a time zone", format_suggestion(name, known, A_TIMEZONE))


def read_one_or_more(value: object) -> object:
    """A list that is not empty, of which a single member may stand alone."""
    if value == []:
        raise value_error("is empty", "write at least one")
    return value if isinstance(value, list | tuple) else (value,)


def read_listener(value: object) -> object:
    """A listener is its address, or a mapping with it."""
    if isinstance(value, str) and "://" in value:
        raise value_error(f"{format_value(value)} is a URL", A_LISTENER)
    return {"address": value} if isinstance(value, str | Address) else value


def read_words(value: object) -> object:
    """A list, or its members as one text with spaces between them, as a variable of the environment has it."""
    return value.split() if isinstance(value, str) else value


def read_endpoint(value: object) -> object:
    """An endpoint is its URL, which may end in a path, or a mapping with it."""
    if not isinstance(value, str):
        return value
    match = ENDPOINT.fullmatch(value)
    return {"url": value} if match is None else {"url": match[1], "path": match[2]}


def read_dimension_name(value: object) -> str:
    """Read the name of a dimension: one that usage has no field for yet."""
    name = read_name(value)
    if name in RESERVED:
        raise value_error(f"{name} is a field that all usage has", "give it another name, such as model")
    return name


def read_dimension(value: object) -> object:
    """A dimension is its number of values, or a mapping with it."""
    return {"values": value} if isinstance(value, str | int) else value


def read_hub(value: object) -> object:
    """A hub is its URL, or a mapping with it."""
    return {"url": value} if isinstance(value, str) else value


def read_unless_off(value: object) -> object:
    """A part that can be switched off, in YAML's words for it: None where it is."""
    return None if isinstance(value, str) and value.lower() in OFF else value


def read_or_off(value: object) -> object:
    """A part that can be switched off where another one would hold instead: then the word stays, as `off`."""
    return OFF[0] if read_unless_off(value) is None else value


def get_union_tag(value: object) -> str:
    """Which of the two a value is that `read_or_off` has read."""
    return OFF[0] if value == OFF[0] else GIVEN


def read_access_log(value: object) -> object:
    """`off`, a file, or a mapping with it."""
    value = read_unless_off(value)
    return {"file": value} if isinstance(value, str) else value
