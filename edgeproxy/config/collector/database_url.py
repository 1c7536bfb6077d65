"""The URL of the collector's database, with its parameters."""

from urllib.parse import parse_qs, unquote, urlsplit

from edgeproxy.config.forms import build_text, written
from edgeproxy.config.units import format_value, read_text, value_error
from edgeproxy.config.url_secrets import read_secret_url

A_DATABASE = "sqlite:///var/collector/ledger.db, or postgresql://USER:PASSWORD@HOST:PORT/NAME"
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
POOLERS = ("auto", "transaction", "none")
CONNECTIONS_DEFAULT, CONNECTIONS_MIN, CONNECTIONS_MAX = 26, 10, 1000
"""Default, minimum and maximum of a collector's connections to PostgreSQL."""
FILES = ("sslrootcert", "sslcert", "sslkey")
CHOICES = {"sslmode": SSL_MODES, "pooler": POOLERS}
OPTIONS = ", ".join(
    (
        *(f"{name}={'|'.join(values)}" for name, values in CHOICES.items()),
        *(f"{name}=FILE" for name in FILES),
        f"connections={CONNECTIONS_MIN}..{CONNECTIONS_MAX}",
    )
)


@written(
    build_text(
        "database URL",
        r"sqlite:///.*[^/]|postgresql://.+",
        "sqlite:///var/collector/ledger.db",
        "postgresql://USER:PASSWORD@HOST/NAME",
    )
)
def read_database(value: object) -> str:
    """Read the URL of a database: PostgreSQL, or an SQLite file relative to the working directory of the collector.

    Errors never show a URL that may have a password.
    """
    url = read_text(value, A_DATABASE)
    if not url.startswith("sqlite:"):  # The name of a file may have spaces.
        url = read_secret_url(url, A_DATABASE)
    shown = format_value(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise value_error(f"{shown} is not a URL", A_DATABASE) from None
    if parts.scheme == "sqlite" and not parts.netloc:
        if len(parts.path) < 2 or parts.path.endswith("/") or parts.query or not unquote(parts.path).isprintable():
            raise value_error(f"{shown} names no file", A_DATABASE)
        return url
    if parts.scheme != "postgresql":
        raise value_error(f"{shown} is not a database", A_DATABASE)
    if len(parts.path) < 2 or not parts.hostname or port == 0:
        raise value_error(f"{shown} has no host, or no name of a database", A_DATABASE)
    if parts.fragment:
        raise value_error("has a #", A_DATABASE)
    _check_options(parse_qs(parts.query, keep_blank_values=True))
    return url


def _check_options(options: dict[str, list[str]]) -> None:
    """Raise ValueError if a parameter is unknown, occurs twice or has an invalid value."""
    for name, values in options.items():
        value = values[0]
        if name == "connections":
            is_right = value.isdecimal() and CONNECTIONS_MIN <= int(value) <= CONNECTIONS_MAX
        else:
            is_right = value in CHOICES.get(name, ()) or (name in FILES and value.isprintable() and value != "")
        if not is_right or len(values) > 1:
            raise value_error(f"has {format_value(name)}", f"after a ? there may be {OPTIONS}")
    mode = options.get("sslmode", ["prefer"])[0]
    for name in FILES:
        if name in options and mode not in ("require", "verify-ca", "verify-full"):
            raise value_error(f"has {name} without sslmode=require or more", "write sslmode=verify-full")
    if ("sslcert" in options) != ("sslkey" in options):
        raise value_error("has one of sslcert and sslkey", "write both, or none")
