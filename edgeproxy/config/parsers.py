"""Words with a form as operators write them: names, scopes, digests, files, sentences, and parts that can be `off`.

Like the readers in `units.py`, each accepts the text of the file or the plain value, and raises `value_error`.
"""

import base64
import re
from pathlib import PurePath
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from edgeproxy.config.addresses import ADDRESS, Address
from edgeproxy.config.dimensions import A_VALUE, COUNTED_VALUE, RESERVED, VALUES_MAX
from edgeproxy.config.field_codes import EMPTY, MISSING, NOT_A_NAME, NOT_OFFERED, TOO_LONG
from edgeproxy.config.forms import OFF as OFF_FORM
from edgeproxy.config.forms import build_any_of, build_number, build_one_or_more, build_text, written
from edgeproxy.config.secret_text import InvalidSecretError, parse_secret
from edgeproxy.config.units import PatternText, format_value, read_text, value_error

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
RESIDENCY = re.compile(r"[a-z][a-z0-9]{0,15}")
"""The name of a residency. It is short, because it precedes customers' names in keys of the usage table."""
FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
OWN_FIELDS = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "date"),
        *("content-length", "transfer-encoding", "proxy-authenticate", "proxy-authentication-info"),
        *("x-request-id", "ratelimit", "ratelimit-policy", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
    )
)
"""Fields of answers that cannot be reports of upstreams: of connections and framing, and the edge's own."""
TIMEZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")
NO_TIMEZONES = re.compile(r"localtime|posixrules|Factory|(?:posix|right)/.*")
"""Names of zones on hosts that are not IANA's. They differ between hosts, or count leap seconds."""
JSON_PATH = re.compile(r"[A-Za-z0-9_$@-]{1,64}(?:\.[A-Za-z0-9_$@-]{1,64}){0,7}")
ESTIMATE = re.compile(r"(text|bytes)/([1-9][0-9]{0,3}|10000)")
ROUTE_PATTERN = re.compile(r"[!-~]{1,100}")
SCOPE = re.compile(r"[!#-\[\]-~]{1,64}")
TOKEN = re.compile(r"[!-~]{1,8000}")
DIGEST = re.compile(r"[0-9a-fA-F]{64}")
DIGEST_FORM = build_text("64 hex digits", DIGEST.pattern)
NOTHING_DIGEST = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The SHA-256 of no bytes, which `sha256sum` prints for an unset variable."""
TARGET = re.compile(r"/[!\"$-~]*")
OFF = ("off", "false", "no")
GIVEN = "[given]"
"""Step in pydantic's path of an error, between a field and a part that may be `off`."""
SENTENCE_CHARACTERS_MAX = 500
LABEL_CHARACTERS_MAX = 60
A_RESIDENCY = "a lower-case letter, then such letters and digits, 16 at most"
A_NAME = "1 to 64 letters, digits, - or _, the first a letter or a digit"
A_LISTENER = "HOST:PORT such as 127.0.0.1:8080, or {address: HOST:PORT, tls: {cert: FILE, key: FILE}}"
A_ROUTE = "the name of a route such as chat, or a pattern such as chat-*"
A_SCOPE = "1 to 64 characters of ASCII without spaces, quotes and backslashes"
A_FILE = "a file such as certs/edge.pem"
A_TARGET = "a path such as /healthz or /status?quick=1"
A_JSON_PATH = "one to eight keys with dots between them, such as usage.total_tokens"
AN_ESTIMATE = "0, or text/4 with a number up to 10000"
A_FOLDER = "a directory such as var/edge"
A_FIELD_NAME = "letters, digits and - such as X-Cost"
A_SENTENCE = "one to 500 characters of text"
A_LABEL = "one to 60 characters of text"
A_TIMEZONE = "a name of the IANA time zones such as UTC or Europe/Berlin"
A_SECRET = "one text without spaces and quotes around it, from a variable or a file: ${NAME}, ${file:/PATH}"
A_DIGEST = "64 hex digits, the SHA-256 of a key: `edgeproxy key add` prints it"


@written(build_text("name", NAME.pattern))
def read_name(value: object) -> str:
    """Read the name of a customer, tier, meter, route, limit, upstream or region."""
    name = read_text(value, A_NAME)
    if not NAME.fullmatch(name):
        raise value_error(f"{format_value(name)} is not a name", A_NAME, NOT_A_NAME, most=64)
    return name


read_residency = PatternText("residency", RESIDENCY, "{} is not a residency", A_RESIDENCY)
"""Reads the name of a residency."""


read_dimension_value = PatternText(
    "value of a dimension", COUNTED_VALUE, "{} is not a value of a dimension", A_VALUE, ("gpt-4.1",)
)
"""Reads a value of a dimension (a model, for example): any value that the ledger may contain except `~other`."""


read_route_pattern = PatternText(
    "name of a route, or pattern", ROUTE_PATTERN, "{} is not the name of a route", A_ROUTE, ("chat", "chat-*")
)
"""Reads the name of a route, or a pattern with `*` for any characters."""


read_scope = PatternText("scope", SCOPE, "{} is not a scope", A_SCOPE, ("read",))
"""Reads a scope, which permits a key to use routes that require it (RFC 6749 section 3.3)."""


read_target = PatternText("path", TARGET, "{} is not a path that can be asked for", A_TARGET, ("/healthz",))
"""Reads the target of a probe: a path with an optional query."""


@written(DIGEST_FORM)
def read_digest(value: object, hint: str = A_DIGEST) -> str:
    """Read the SHA-256 of a secret, 64 hex digits. Errors do not show it, because it may be the secret itself."""
    digest = read_text(value, hint)
    if not DIGEST.fullmatch(digest):
        raise value_error(f"has {len(digest)} characters that are not a SHA-256", hint)
    lower = digest.lower()
    if lower == NOTHING_DIGEST:
        raise value_error("is the SHA-256 of nothing: whoever sends an empty one would be let in", hint)
    return digest if lower == digest else lower  # A second copy of a million digests would waste memory.


def decode_base64(text: str) -> bytes:
    """Decode Base64. Any other text has no bytes."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


@written(build_text("directory", ".+", "var/edge"))
def read_folder(value: object) -> str:
    """Read the path of a directory. A relative one starts at the working directory of the edge."""
    return read_file_path(value, A_FOLDER)


@written(build_text("file", ".+", "certs/edge.pem"))
def read_file(value: object) -> str:
    """Read the path of a file. A relative one starts at the working directory of the edge."""
    return read_file_path(value, A_FILE)


def read_file_path(value: object, hint: str) -> str:
    """Read the path of a file or a directory."""
    path = str(value) if isinstance(value, PurePath) else read_text(value, hint)
    if not path or not path.isprintable():
        raise value_error(f"{format_value(path)} is not a path", hint)
    return path


@written({"type": "string", "title": "text"}, lambda _: None)
def read_secret(value: object) -> str | None:
    """Read a secret. An empty one, as from an unset variable, is None. Errors do not show it."""
    return None if value is None else read_secret_text(value, A_SECRET) or None


def read_secret_text(value: object, hint: str) -> str:
    """Read the text of a secret. Errors do not show it."""
    text = read_text(value, hint)
    try:
        return parse_secret(text)
    except InvalidSecretError as error:
        raise value_error(str(error), hint) from None


@written(build_text("text without spaces", f"|{TOKEN.pattern}"), lambda _: None)
def read_token(value: object) -> str | None:
    """Read a bearer token. An empty one is None. Errors do not show it."""
    hint = "one text without spaces, best from the environment: ${COLLECTOR_TOKEN}"
    token = None if value is None else read_secret_text(value, hint)
    if token and not TOKEN.fullmatch(token):
        raise value_error("has characters that no token has, or too many", hint)
    return token or None


read_claim_name = PatternText("name of a claim", SCOPE, "{} names no claim or parameter", A_SCOPE, ("sub",))
"""Reads the name of a token's claim or of a query parameter."""


read_field_name = PatternText("field name", FIELD_NAME, "{} is not the name of a field", A_FIELD_NAME, ("X-Cost",))
"""Reads the name of an HTTP field (RFC 9110 section 5.1)."""


@written(build_text(f"text, up to {SENTENCE_CHARACTERS_MAX} characters", r"[\s\S]*\S[\s\S]*"))
def read_sentence(value: object) -> str:
    """Read a sentence for people. Its words are joined into one line, with single spaces."""
    words = " ".join(read_text(value, A_SENTENCE).split())
    if not 1 <= len(words) <= SENTENCE_CHARACTERS_MAX:
        code = TOO_LONG if words else MISSING
        raise value_error(f"has {len(words)} characters", A_SENTENCE, code, most=SENTENCE_CHARACTERS_MAX)
    if not words.isprintable():
        raise value_error(f"{format_value(words)} has characters that cannot be printed", A_SENTENCE)
    return words


@written(build_text(f"text, up to {LABEL_CHARACTERS_MAX} characters", r"[\s\S]*\S[\s\S]*"))
def read_label(value: object) -> str:
    """Read a label for people: a sentence of at most LABEL_CHARACTERS_MAX."""
    label = read_sentence(value)
    if len(label) > LABEL_CHARACTERS_MAX:
        raise value_error(f"has {len(label)} characters", A_LABEL, TOO_LONG, most=LABEL_CHARACTERS_MAX)
    return label


@written(build_text("IANA time zone", rf"(?!({NO_TIMEZONES.pattern})$){TIMEZONE.pattern}", "UTC", "Europe/Berlin"))
def read_timezone(value: object) -> str:
    """Read the name of a time zone that `zoneinfo` knows."""
    name = read_text(value, A_TIMEZONE)
    if TIMEZONE.fullmatch(name) and not NO_TIMEZONES.fullmatch(name):
        try:
            return ZoneInfo(name).key
        except (ZoneInfoNotFoundError, OSError, ValueError):
            pass  # No such file, a directory of zones like Europe, or no zone.
    from edgeproxy.config.nearest import format_suggestion  # Late: only errors need it, and workers have none.

    known = [zone for zone in available_timezones() if not NO_TIMEZONES.fullmatch(zone)]
    raise value_error(
        f"{format_value(name)} is not a time zone", format_suggestion(name, known, A_TIMEZONE), NOT_OFFERED
    )


@written(build_one_or_more, lambda members: str(members[0].address))
def read_one_or_more(value: object) -> object:
    """Read a non-empty list. A single member may be written without a list."""
    if value == []:
        raise value_error("is empty", "write at least one", EMPTY)
    return value if isinstance(value, list | tuple) else (value,)


@written(build_one_or_more, list)
def read_list(value: object) -> object:
    """Read a list of texts. A single text may be written without a list."""
    return (value,) if isinstance(value, str) else value


@written(lambda inner: build_any_of(ADDRESS, inner))
def read_listener(value: object) -> object:
    """Read a listener: its address, or a mapping with the address."""
    if isinstance(value, str) and "://" in value:
        raise value_error(f"{format_value(value)} is a URL", A_LISTENER)
    return {"address": value} if isinstance(value, str | Address) else value


@written(
    lambda inner: build_any_of({"type": "string", "title": "text with spaces between them"}, inner), lambda _: None
)
def read_words(value: object) -> object:
    """Read a list, or one text with spaces between the members, as in a variable of the environment."""
    return value.split() if isinstance(value, str) else value


read_json_path = PatternText(
    "path of keys", JSON_PATH, "{} is not a path of keys", A_JSON_PATH, ("usage.total_tokens",)
)
"""Reads a path in JSON: keys with dots between them."""


@written(build_text("`0`, `text/4` or `bytes/4`", f"0|{ESTIMATE.pattern}", "text/4"))
def read_estimate(value: object) -> str:
    """Read the number of bytes, of text or in total, per estimated unit. `0`: nothing is estimated."""
    text = str(value) if value == 0 else read_text(value, AN_ESTIMATE)
    if ESTIMATE.fullmatch(text) is None and text != "0":
        raise value_error(f"{format_value(text)} is no estimate", AN_ESTIMATE)
    return text


@written(build_text("name", NAME.pattern))
def read_dimension_name(value: object) -> str:
    """Read the name of a dimension, which must not be a field of usage."""
    name = read_name(value)
    if name in RESERVED:
        raise value_error(f"{name} is a field that all usage has", "give it another name, such as model")
    return name


@written(lambda inner: build_any_of(build_number(1, VALUES_MAX), inner))
def read_dimension(value: object) -> object:
    """Read a dimension: its number of values, or a mapping with that number."""
    return {"values": value} if isinstance(value, str | int) else value


@written(lambda inner: build_any_of(OFF_FORM, inner), lambda part: "off" if part is None else None)
def read_unless_off(value: object) -> object:
    """Read a part that YAML's words for `off` can switch off. None: it is off."""
    return None if isinstance(value, str) and value.lower() in OFF else value


@written(lambda inner: inner)
def read_or_off(value: object) -> object:
    """Read a part that can be switched off in place of another default. Then the word stays, as `off`."""
    return OFF[0] if read_unless_off(value) is None else value


def get_union_tag(value: object) -> str:
    """Return which of the two forms of `read_or_off` a value has."""
    return OFF[0] if value == OFF[0] else GIVEN
