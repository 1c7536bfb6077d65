"""`edgeproxy init`: the files of a first edge and its collector, which work unchanged."""

import errno
import hashlib
import json
import os
import secrets
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from edgeproxy.cli.outcome import fail

EDGE, COLLECTOR, TIERS, PLANS = "edge.yaml", "collector.yaml", "tiers.yaml", "plans.yaml"
KEY, OPERATOR = "directory.key", "operator.env"
"""Names of the files; none of them may exist yet."""

USUAL_PORTS = frozenset({8080, 9001, 9090, 9100})
REFUSED = frozenset("$?#%")
"""Characters that have a meaning in configuration files, or in the URL of a database."""

EDGE_TEXT = """\
# An edge in front of one API; customers and keys come from the collector.
# docs/edge/configuration.md has every setting. `edgeproxy check` checks this file, SIGHUP makes a running edge read it.

region: {region}
region_fields: [X-Edge-Region]            # answers name the region that executed the request
listen: {listen}                    # where clients connect; 0.0.0.0:8080 for those of other hosts
admin: {admin}                     # health, metrics, status, usage and limits; not for the public
state: {state}  # the tables with all counts: keep it between restarts
include: [tiers.yaml]
per_ip: {{rate: 200/s}}                     # a coarse first layer, before any key is looked at
security_headers: true                    # on answers of the API, as far as it sets none itself
access_log: {log}  # a line of JSON for each request; rotate it by moving it away
usage: {{collector: {collector}, token: "{token}"}}
directory: {{from: collector, trust: "{trust}"}}
upstreams:
  api: {{endpoints: [{upstream}]}}
routes:                                   # limits in tiers.yaml and plans.yaml name `api`
  - {{name: api, path: /v1/*, upstream: api}}
  - {{name: public, path: /public/*, upstream: api, auth: none}}
"""

TIERS_TEXT = """\
# What is counted, and the limits of each tier of customers: edge.yaml and collector.yaml both include this file. Each
# plan of plans.yaml gives its customers the tier with its name. A limit with `routes` holds these routes alone.

meters:
  requests: {count: requests}             # answers below 500
  api_calls: {count: requests, when: success, routes: [api]}  # what plans price
  refusals: {count: refusals}             # requests that limits refused, by limit: for the pages
tiers:
  anonymous: {limits: [{rate: 60/min}]}   # requests without a key on open routes, by address
  free:
    limits: [{rate: 60/min}]              # in any minute
    concurrency: {max: 2, routes: [api]}  # requests at once
    analytics: 7day                       # how far back customers see their usage in detail
  pro:
    limits: [{rate: 600/min}]
    concurrency: {max: 10, routes: [api]}
    analytics: 30day
  enterprise:                             # no limit of requests
    priority: 1                           # under overload the others are turned away first
    analytics: 365day
"""

PLANS_TEXT = """\
# What is sold, for a month, in US dollars. A version is never edited: a change is a new version, pro@2.
# docs/billing/billing.md has every setting.

plans:
  free@1:
    name: Free
    fee: "0"
    meters: {api_calls: {included: 1000, cap: soft}}  # soft: refuses once the grace is over
    grace: {percent: 20%, for: 3day}
    entitlements: {support: Community}
  pro@1:
    name: Pro
    fee: "99"
    annual: {discount: 20%}
    meters: {api_calls: {included: 100000, price: "0.001"}}
    entitlements: {support: Priority}
  enterprise@1:
    name: Enterprise
    fee: "499"
    annual: {discount: 20%}
    meters: {api_calls: {included: 1000000, price: "0.0005"}}
    entitlements: {support: 24/7 Dedicated}
"""

COLLECTOR_TEXT = """\
# The collector: customers and keys, what edges have counted, invoices. docs/operations/collector-configuration.md has
# every setting.

listen: {listen}
database: {database}
directory: {{key: {key}}}  # signs customers and keys for edges
include: [tiers.yaml]
# What edges and usage say of customers is a pseudonym, X-Customer-Id too, and people whom services name are stored
# hashed. Both can be false, before the first customer is there: docs/privacy/privacy.md.
privacy: {{pseudonyms: true, hash_end_users: true}}
billing:                                  # nothing is invoiced until `mode` is live: docs/operations/going-live.md
  plans: {plans}
  mode: off
pages:                                    # for operators and customers: `edgeproxy sign-in`; for everybody at /status
  status: {{regions: {{{region}: {{url: {readiness}}}}}}}
rotation: {{deliver: portal, grace: 7d, remind: [7d, 30d]}}  # of keys whose customer has `rotate_every`
tokens:                                   # the hashes of tokens; `edgeproxy tokens add` makes more
  - {{name: me, role: admin, sha256: {admin}}}   # of the token in operator.env
  - {{name: edges, role: edge, sha256: {edge}}}  # of the token in edge.yaml
"""


Upstream = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The API behind the edge: http:// or https://HOST:PORT; by default port 9001."),
]
Listen = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where clients connect; by default port 8080.")]
AdminListen = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="The edge's admin listener; by default port 9090.")
]
CollectorListen = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Where the collector listens; by default port 9100.")
]


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The directory; it is made if it is not there.")],
    upstream: Upstream = None,
    region: Annotated[str, typer.Option(metavar="NAME", help="The region of the edge.")] = "local",
    listen: Listen = None,
    admin: AdminListen = None,
    collector: CollectorListen = None,
) -> None:
    """Write the configuration of a first edge and its collector to DIR, with tokens and a signing key. Nothing is
    overwritten.

    Of an address without an option, the next free port is taken where somebody listens at the usual one.
    """
    from edgeproxy.config import file_kinds
    from edgeproxy.config.problems import ConfigError
    from edgeproxy.wire.directory_signatures import create_key_file

    folder = folder.resolve()
    if not str(folder).isprintable() or REFUSED.intersection(str(folder)):
        fail(f"{str(folder)!r}: configuration files cannot name this directory", 2)
    addresses = _choose_addresses(upstream, listen, admin, collector)
    edge_token, admin_token = secrets.token_hex(32), secrets.token_hex(32)
    try:
        with _new_files(folder) as write:
            write(TIERS, TIERS_TEXT)
            write(PLANS, PLANS_TEXT)
            trust = create_key_file(write(KEY, None))
            write(COLLECTOR, _format_collector(folder, addresses, region, admin_token, edge_token))
            edge = write(EDGE, _format_edge(folder, addresses, region, edge_token, trust))
            for path in (edge, folder / COLLECTOR):
                file_kinds.check_file(path, os.environ)
            write(OPERATOR, _format_operator(addresses, admin_token))
    except ConfigError as error:
        fail(f"nothing was written, as these settings cannot be used:\n{error}", 2)
    except FileExistsError as error:
        again = f"to begin again, end what runs with it and remove it: rm -r {shlex.quote(str(folder))}"
        fail(f"nothing was written: {error.filename}: {error.strerror}\n{again}", 1)
    except OSError as error:
        fail(f"nothing was written: {error.filename}: {error.strerror}", 1)
    _print_next_steps(folder)


class Addresses(NamedTuple):
    """The addresses of a first edge and its collector, and the URL of its API."""

    upstream: str
    listen: str
    admin: str
    collector: str


def _choose_addresses(upstream: str | None, listen: str | None, admin: str | None, collector: str | None) -> Addresses:
    """Return these addresses, with free ports of this host in place of None; exits with 2 if one is invalid."""
    from edgeproxy.base.free_ports import HOST, NoFreePortError, find_free_port
    from edgeproxy.config.addresses import AN_ADDRESS, split_address

    options = {"--listen": listen, "--admin": admin, "--collector": collector}
    for name, written in options.items():
        if written is not None and split_address(written) is None:
            fail(f"{name}: {written!r} is not an address with a port, {AN_ADDRESS}", 2)
    ports = {address.port for written in options.values() if written and (address := split_address(written))}

    def choose(usual: int) -> str:
        ports.add(port := find_free_port(usual, ports | USUAL_PORTS - {usual}))
        return f"{HOST}:{port}"

    try:
        return Addresses(
            upstream or f"http://{choose(9001)}",
            listen or choose(8080),
            admin or choose(9090),
            collector or choose(9100),
        )
    except NoFreePortError as error:
        fail(str(error), 1)


def _format_operator(addresses: Addresses, admin_token: str) -> str:
    """Format the file of variables: for commands of the collector, and for requests."""
    variables = {
        "EDGEPROXY_COLLECTOR": f"http://{addresses.collector}",
        "EDGEPROXY_TOKEN": admin_token,
        "EDGEPROXY_EDGE": f"http://{addresses.listen}",
        "EDGEPROXY_UPSTREAM": addresses.upstream,
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _format_edge(folder: Path, addresses: Addresses, region: str, token: str, trust: str) -> str:
    """Format the file of the edge."""
    quoted = {"region": region, "state": str(folder / "state"), "log": str(folder / "access.log")}
    quoted |= {"upstream": addresses.upstream, "listen": addresses.listen, "admin": addresses.admin}
    quoted["collector"] = f"http://{addresses.collector}"
    return EDGE_TEXT.format(token=token, trust=trust, **{name: json.dumps(value) for name, value in quoted.items()})


def _format_collector(folder: Path, addresses: Addresses, region: str, admin_token: str, edge_token: str) -> str:
    """Format the file of the collector, with the hashes of its tokens."""
    return COLLECTOR_TEXT.format(
        listen=json.dumps(addresses.collector),
        readiness=json.dumps(f"http://{addresses.admin}/readyz"),
        database=json.dumps(f"sqlite:///{folder / 'ledger.db'}"),
        key=json.dumps(str(folder / KEY)),
        plans=json.dumps(str(folder / PLANS)),
        region=json.dumps(region),
        admin=hashlib.sha256(admin_token.encode()).hexdigest(),
        edge=hashlib.sha256(edge_token.encode()).hexdigest(),
    )


def _print_next_steps(folder: Path) -> None:
    typer.echo(f"written to {folder}, for you alone: {', '.join((EDGE, COLLECTOR, TIERS, PLANS, KEY, OPERATOR))}")
    typer.echo(f"  edgeproxy collector -c {shlex.quote(str(folder / COLLECTOR))}")
    typer.echo(f"  edgeproxy edge -c {shlex.quote(str(folder / EDGE))}")
    typer.echo(f"  . {shlex.quote(str(folder / OPERATOR))}   # then: edgeproxy customers add NAME --tier pro")


@contextmanager
def _new_files(folder: Path) -> Iterator[Callable[[str, str | None], Path]]:
    """Yield a function that writes a new file of this name for its owner alone, and returns its path.

    Without a text, its caller creates the file. If one of the files exists already, or anything else fails, none is
    left. Raises OSError.
    """
    created: list[Path] = []
    is_new = not folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(name: str, text: str | None) -> Path:
        path = folder / name
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "it is there already, and nothing is overwritten", str(path))
        if text is not None:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as target:
                created.append(path)
                target.write(text)
        else:
            created.append(path)
        return path

    try:
        yield write
    except BaseException:
        for path in created:
            path.unlink(missing_ok=True)
        if is_new:
            folder.rmdir()
        raise
