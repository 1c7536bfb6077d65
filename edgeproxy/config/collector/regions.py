"""Settings of routing by latency: `regions` in collector.yaml, and regions.yaml, the beacon's file."""

from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses, parsers, references
from edgeproxy.config.check import Kind
from edgeproxy.config.field_types import Address, File, Name, Network
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.outgoing import PROXY_DESCRIPTION, TRUST, ProxyField, Trust
from edgeproxy.config.part import Part
from edgeproxy.config.references import Fault
from edgeproxy.config.tls import UpstreamTls
from edgeproxy.config.tree import Items, Table
from edgeproxy.config.units import Time, format_value, read_text, value_error

REGIONS_MAX = 16
ONE = ("has one region", "there is nothing to choose: name two or more")
A_PLACE = "a URL such as https://eu.api.example.com/beacon"


@written(build_text("URL", r"https?://[^?#@\s]+", "https://eu.api.example.com/healthz"))
def read_region_url(value: object) -> str:
    """Read the URL of a region's beacon for clients: with a path and without a trailing slash."""
    written = read_text(value, A_PLACE)
    try:
        url = urlsplit(written)
        port = url.port
    except ValueError:
        raise value_error(f"{format_value(written)} is not a URL", A_PLACE) from None
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        raise value_error(f"{format_value(written)} is not a URL of http:// or https://", A_PLACE)
    if url.query or url.fragment or "@" in url.netloc or not written.isprintable() or " " in written:
        raise value_error(f"{format_value(written)} has more than a host and a path", A_PLACE)
    return written.rstrip("/")


class Measured(Part):
    """Regions for sending clients to the nearest one."""

    names: Annotated[tuple[Name, ...], Field(min_length=1, max_length=REGIONS_MAX)] = Field(
        description="Regions in beacons' reports, at least two."
    )
    default: Name | None = Field(
        default=None, description="Region for clients without measurements. By default the first."
    )

    @property
    def fallback(self) -> str:
        """The default region, configured or not."""
        return self.default or self.names[0]


class Country(Part):
    """The source of a client's country. Without it none is known."""

    header: Name | None = Field(default=None, description="Field that trusted proxies set, such as `CF-IPCountry`.")
    set_by: tuple[Network, ...] | None = Field(
        default=None,
        description="Networks of the proxies that set the header. It counts if the client has connected to one of "
        "them. By default all of `trusted_proxies`.",
    )
    file: File | None = Field(
        default=None, description="Database: lines of FIRST,LAST,COUNTRY, both addresses included."
    )


class RegionsFile(Part):
    """Settings of regions.yaml, the file of a beacon."""

    listen: Address = Field(
        default=addresses.Address("127.0.0.1", 8090), description="Address where clients connect, best through an edge."
    )
    path: Annotated[str, BeforeValidator(parsers.read_target)] = Field(
        default="/beacon", description="Start of the paths of requests."
    )
    regions: Annotated[
        dict[Name, Annotated[str, BeforeValidator(read_region_url)]], Field(min_length=1, max_length=REGIONS_MAX)
    ] = Field(description="URL of the beacon in each region, for clients.")
    collector: Annotated[str, BeforeValidator(addresses.read_collector)] = Field(
        description="URL of the collector. It gets the reports and computes the best region."
    )
    token: Annotated[str | None, BeforeValidator(parsers.read_token)] = Field(
        default=None, repr=False, description="Token of the collector with the role `beacon`. By default none."
    )
    tls: UpstreamTls = Field(default=UpstreamTls(), description="TLS towards a collector with `https://`.")
    trust: Trust = Field(default=Trust(), description=TRUST)
    proxy: ProxyField | None = Field(default=None, repr=False, description=PROXY_DESCRIPTION)
    secret: Annotated[str | None, BeforeValidator(parsers.read_secret)] = Field(
        default=None,
        repr=False,
        description="Secret that signs tickets and hides addresses; the same for all beacons. By default a random one.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(), description="Networks that may name the client: the edge in front, a CDN."
    )
    country: Country | None = Field(default=None, description="Source of a client's country.")
    every: Annotated[float, BeforeValidator(Time(0.1, 60.0))] = Field(
        default=5.0, description="Time after which reports are sent on."
    )


class BeaconSettings(RegionsFile):
    """Settings of a beacon that passed every check."""

    sha256: str = Field(description="Hash over the bytes of all files in the order of reading, in hex.")


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions between the parts of a regions.yaml."""
    yield from references.find_faults(tree)
    given = tree.get("regions")
    if isinstance(given, Table) and len(given) == 1:
        yield Fault(("regions",), *ONE)
    country = tree.get("country")
    if isinstance(country, Table):
        if ("header" in country) == ("file" in country):
            what = "has a header and a file" if "header" in country else "has neither a header nor a file"
            yield Fault(("country",), what, "write one of them")
        if "set_by" in country and "header" not in country:
            yield Fault(("country", "set_by"), "is about a header, and there is none", "leave it out")
        if "header" in country and not tree.get("trusted_proxies"):
            where = ("country", "header")
            yield Fault(where, "can be sent by anybody", "name who sets it under trusted_proxies")


def find_measured_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions in `regions` of a collector.yaml."""
    given = tree.get("regions")
    names = given.get("names") if isinstance(given, Table) else None
    if not isinstance(given, Table) or not isinstance(names, Items):
        return
    if len(names) == 1:
        yield Fault(("regions", "names"), *ONE)
    for number, name in enumerate(names):
        if name in names[:number]:
            yield Fault(
                ("regions", "names", number), f"{format_value(str(name))} is there twice", "name each region once"
            )
    default = given.get("default")
    if isinstance(default, str) and default not in names:
        yield Fault(("regions", "default"), f"{format_value(default)} is not in names", "name it there too")


KIND = Kind(RegionsFile, find_faults)


def is_regions_file(tree: Table) -> bool:
    """Return whether a file with these sections is a regions.yaml."""
    return bool("regions" in tree and not tree.keys() & {"database", "tokens", "upstreams", "routes", "tiers"})
