"""Commands that query a running edge by its admin listener, or through the edge: `status`, `limits`, `probe`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast
from urllib.parse import urlsplit

import typer

from edgeproxy.base.admin_socket import NAME
from edgeproxy.base.json_values import JsonObject
from edgeproxy.cli.api import CustomerRef, read_token
from edgeproxy.cli.files import StateFolder, load_collector_file, locate_edge
from edgeproxy.cli.outcome import fail
from edgeproxy.cli.readiness import UnansweredError, wait_until_ready

if TYPE_CHECKING:
    from urllib.request import BaseHandler

    from edgeproxy.collector.api.access import Access
    from edgeproxy.collector.quotas.access import AccessLimit

Rendered = TypeVar("Rendered")

ADMIN = "127.0.0.1:9090"
"""The address of an edge without a socket at the usual place, unless an option names another."""
TOKEN = "EDGEPROXY_ADMIN_TOKEN"
"""The environment variable with the token for an address."""
AT_SOCKET = "unix:"
"""The start of a socket's URL."""
RESPONSE_SECONDS = 10.0
"""Seconds for the admin listener to answer."""
PROBE_SECONDS = 3.0
"""Seconds for it to answer `probe`: less than any health check waits."""

AdminFile = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", help="The configuration of the edge that is asked.")
]
AdminAddress = Annotated[
    str | None,
    typer.Option(
        "--admin",
        metavar="HOST:PORT",
        help=f"The admin listener; by default var/edge/{NAME} if it is there, else {ADMIN}. Its token: ${TOKEN}.",
    ),
]


Wait = Annotated[str | None, typer.Option(metavar="TIME", help="Ask until it is ready, so long at most.")]
ProcessId = Annotated[
    int | None, typer.Option("--pid", metavar="PID", help="With --wait: its process; once that ends, fail.")
]
LogFile = Annotated[Path | None, typer.Option(metavar="FILE", help="With --wait: its log, whose last line says why.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the edge answers, as it is.")]


def status(
    config: AdminFile = None, admin: AdminAddress = None, state: StateFolder = None, as_json: AsJson = False
) -> None:
    """Show the status of a running edge."""
    import json

    answer, text, workers = query(get_admin_url(config, admin, state), "/status", _render_status)
    typer.echo(json.dumps(answer, indent=2) if as_json else text)
    if not workers:
        fail("no worker is running", 1)


def _render_status(status: JsonObject) -> tuple[JsonObject, str, int]:
    """Return the response of `/status`, its rendering for people, and the number of workers."""
    from edgeproxy.edge.supervisor.overview import render_overview

    workers = status["workers"]
    if not isinstance(workers, list):
        raise TypeError("workers")
    return status, render_overview(status), len(workers)


def limits(
    customer: CustomerRef,
    config: AdminFile = None,
    admin: AdminAddress = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show the usage of a customer's limits at a running edge, and when each is free again.

    An edge knows a customer by its name or its pseudonym alone. Where EDGEPROXY_TOKEN is set, the collector says which
    that is of any other name or id, and whether the customer may call now: pauses, keys, credits and budgets too.
    """
    import json

    from edgeproxy.cli import api

    url, path = get_admin_url(config, admin, state), _limits_path(customer)
    has_token = bool(api.read_token(api.TOKEN))
    if has_token and fetch(url, path, RESPONSE_SECONDS, may_be_missing=True) is None:
        path = _limits_path(_fetch_edge_name(customer))
    answer, page = query(url, path, _render_limits)
    access = None
    if has_token:
        collector = api.Api(None)
        access = collector.call("GET", collector.customer_path(customer, "access"), may_be_missing=True)
    if as_json:
        typer.echo(json.dumps(answer if access is None else {**answer, "access": access}, indent=2))
        return
    if access is not None:
        typer.echo(_render_access(cast("Access", access)))
    without = f"{customer} has no limits" if access is None else "this edge knows no further limits"
    typer.echo(page or without)


def _render_access(access: "Access") -> str:
    """Return, for people, whether a customer may call now, with the limits that refuse or soon will."""
    lines = [f"may call now: {access['may_call']}"]
    for limit in access["limits"]:
        if limit["state"] in ("reached", "near"):
            used = "" if limit["allowed"] is None else f" {_format_use(limit)}"
            used += f" on {', '.join(limit['routes'])}" if limit["routes"] else ""
            end = "" if limit["ends_at"] is None else f" until {limit['ends_at']}"
            ends = f", {limit['status']}{end}: {limit['remedy']}" if limit["state"] == "reached" else ""
            lines.append(f"  {limit['kind']} {limit['name']}: {limit['state']}{used}{ends}")
    return "\n".join(lines)


def _format_use(limit: "AccessLimit") -> str:
    """Return the use of a limit, with a unit unless the kind of the limit says it: `1.20 of 5 USD`, `7 of 10 calls`."""
    used, allowed = str(limit["used"]), str(limit["allowed"])
    currency, unit = limit["currency"], limit["meter"]
    if currency is not None:
        from edgeproxy.config.collector.currency_units import MILLICREDITS, format_millicredits

        unit, scale = currency.upper(), 1 if limit["kind"] == "credits" else MILLICREDITS
        used, allowed = (format_millicredits((limit[name] or 0) * scale, currency) for name in ("used", "allowed"))
    return f"{used} of {allowed}{f' {unit}' if unit else ''}"


def _limits_path(customer: str) -> str:
    from urllib.parse import quote

    return f"/limits/{quote(customer, safe='')}"


def _fetch_edge_name(customer: str) -> str:
    """Return the edges' name for the customer that a person means, or `customer` if the collector has none."""
    from edgeproxy.cli.api import Api
    from edgeproxy.collector.accounts.ids import build_pseudonym

    api = Api(None)
    if (answer := api.call("GET", api.customer_path(customer), may_be_missing=True)) is None:
        return customer
    pseudonym = build_pseudonym(answer["id"])  # A customer from before pseudonyms has none.
    is_known = api.call("GET", f"/v1/customers/{pseudonym}", may_be_missing=True) is not None
    return pseudonym if is_known else str(answer["name"])


def _render_limits(answer: JsonObject) -> tuple[JsonObject, str]:
    """Return the response of `/limits/CUSTOMER`, and its rendering for people; empty without limits."""
    from edgeproxy.edge.supervisor.overview import render_limits

    policies = answer["policies"]
    if not isinstance(policies, list):
        raise TypeError("policies")
    return answer, render_limits(policies) if policies else ""


def probe(
    config: AdminFile = None,
    admin: AdminAddress = None,
    state: StateFolder = None,
    live: Annotated[bool, typer.Option("--live", help="Ask whether it is alive, be it ready or not.")] = False,
    tls: Annotated[bool, typer.Option("--tls", help="Ask over TLS, whoever answers: a collector that has it.")] = False,
    through: Annotated[str | None, typer.Option(metavar="URL", help="Instead, what a customer asks the edge.")] = None,
    collector: Annotated[str | None, typer.Option(metavar="URL", help="Where that request's usage arrives.")] = None,
    charge: Annotated[bool, typer.Option("--charge", help="See that it costs credits, and look at the books.")] = False,
    checkout: Annotated[bool, typer.Option("--checkout", help="Buy credits too, at a Stripe that tests.")] = False,
    within: Annotated[str, typer.Option(metavar="TIME", help="How soon all that is seen there.")] = "60s",
    every: Annotated[str | None, typer.Option(metavar="TIME", help="Again and again, until it is ended.")] = None,
    textfile: Annotated[str | None, typer.Option(metavar="FILE", help="Write metrics for node_exporter.")] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="With --every: serve metrics there.")] = None,
    ca: Annotated[str | None, typer.Option(metavar="FILE", help="Who else vouches for https:// URLs.")] = None,
    wait: Wait = None,
    process: ProcessId = None,
    log: LogFile = None,
) -> None:
    """Check whether a running edge or collector is ready: exit code 0 if it serves, 1 if not.

    For health checks. The file of an edge, or --state, asks the one that runs with that state directory.

    With --through, check as a customer: a request with the key in EDGEPROXY_PROBE_KEY is answered, its RateLimit fields
    make sense, and its usage arrives in the collector, which is asked with the token in EDGEPROXY_PROBE_TOKEN. Without
    --every there is one round, and exit code 0 if every check passed, 1 if not.
    """
    if through is not None:
        from edgeproxy.cli import probing

        target = probing.parse_target(through, collector, within, ca, charge=charge, checkout=checkout)
        probing.run(target, every, textfile, listen)
        return
    if charge or checkout or any(option is not None for option in (collector, every, textfile, listen, ca)):
        fail("--collector, --charge, --checkout, --every, --textfile, --listen and --ca go with --through", 2)
    url = _get_probed_url(config, admin, state)
    _ask(url.replace("http:", "https:", 1) if tls else url, live, wait, process, log)


def _ask(url: str, live: bool, wait: str | None, process: int | None, log: Path | None) -> None:
    """Ask whether a server is alive or ready, repeatedly with `wait`; exits with 1 if it is not."""
    if wait is None and (process is not None or log is not None):
        fail("--pid and --log go with --wait", 2)
    path = "/healthz" if live else "/readyz"
    if wait is None:
        fetch(url, path, PROBE_SECONDS)
    else:
        port = None if url.startswith(AT_SOCKET) else urlsplit(url).port
        wait_until_ready(lambda: _fetch_body(url, path, PROBE_SECONDS), wait, process, log, port)
    typer.echo("alive" if live else "ready")


def _get_probed_url(config: Path | None, admin: str | None, state: Path | None) -> str:
    """Return the URL of an edge's admin listener, or of the first listener of a collector whose file is given."""
    import os

    from edgeproxy.config.file_kinds import detect_file_kind

    if config is None or admin or state or detect_file_kind(config, os.environ) != "collector":
        return get_admin_url(config, admin, state)
    settings = load_collector_file(config)
    listener = settings.listen[0]
    scheme = "http" if listener.resolve_tls(settings.tls) is None else "https"
    return f"{scheme}://{listener.address.reachable}"


def get_admin_url(config: Path | None, admin: str | None, state: Path | None = None) -> str:
    """Return the URL of the admin listener.

    This is the option's URL, or else the socket in the state directory, because an address may belong to another
    edge. If no edge is named and there is no socket, it is the usual address.
    """
    from edgeproxy.config.addresses import AN_ADDRESS, split_address

    if admin is None:
        path = locate_edge(config, state).state / NAME
        if config is not None or state is not None or path.exists():
            return f"{AT_SOCKET}{path}"
    address = split_address(admin or ADMIN)
    if address is None:
        fail(f"--admin: {admin!r} is not an address with a port, {AN_ADDRESS}", 2)
    return f"http://{address.reachable}"


def query(url: str, path: str, render: Callable[[JsonObject], Rendered]) -> Rendered:
    """Render the response of the admin listener; exits with 1 and the reason if there is no response."""
    import json

    body = fetch(url, path, RESPONSE_SECONDS)
    try:
        return render(json.loads(body or b""))
    except (ValueError, LookupError, TypeError):
        fail(f"{url}{path} does not answer as an edge does", 1)


def fetch(url: str, path: str, seconds: float, *, may_be_missing: bool = False) -> bytes | None:
    """Fetch a body of the admin listener within `seconds`; exits with 1 and the reason unless the status is 200.

    Returns None if the path `may_be_missing`, and is.
    """
    try:
        return _fetch_body(url, path, seconds, may_be_missing=may_be_missing)
    except UnansweredError as error:
        fail(str(error), 1)


def _fetch_body(url: str, path: str, seconds: float, *, may_be_missing: bool = False) -> bytes | None:
    """Fetch as `fetch` does; raises UnansweredError.

    Over https:// certificates are not verified: the question is whether the server is healthy.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, build_opener

    where = "http://localhost" if url.startswith(AT_SOCKET) else url
    request = Request(where + path)
    if url.startswith("http://") and (token := read_token(TOKEN)):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with build_opener(*_build_handlers(url)).open(request, timeout=seconds) as answer:
            body: bytes = answer.read()
            return body
    except HTTPError as error:
        with error:
            if may_be_missing and error.code == 404:
                return None
            why = _find_detail(error.read()) or f"{url}{path} answered {error.code} {error.reason}"
            raise UnansweredError(why) from error
    except OSError as error:
        raise UnansweredError(f"nobody answers at {url}: {getattr(error, 'reason', error)}") from error
    except HTTPException as error:
        raise UnansweredError(f"{url}{path} does not answer as an edge does") from error


def _build_handlers(url: str) -> "list[BaseHandler]":
    """Build the handlers of a URL: without proxies, and for a socket or TLS according to the URL."""
    from urllib.request import HTTPSHandler, ProxyHandler

    handlers: list[BaseHandler] = [ProxyHandler({})]
    if url.startswith(AT_SOCKET):
        from edgeproxy.cli.unix_http import UnixHandler

        handlers.append(UnixHandler(Path(url.removeprefix(AT_SOCKET))))
    if url.startswith("https:"):
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        handlers.append(HTTPSHandler(context=context))
    return handlers


def _find_detail(body: bytes) -> str | None:
    """Return the detail of a problem (RFC 9457), or why an edge is not ready; None if the body is not from an edge."""
    import json

    try:
        problem = json.loads(body)
    except ValueError:
        return None
    return problem.get("detail") or problem.get("reason") if isinstance(problem, dict) else None
