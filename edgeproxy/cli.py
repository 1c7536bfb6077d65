"""The commands. Each imports what it needs itself, so that `check` does not wait for the whole edge to load.

Exit codes: 0 well; 1 the answer is no (`check` found problems, nobody answers at the admin listener); 2 arguments
or a configuration that cannot be used, with nothing started.
"""

import os
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from edgeproxy.plural import counted

if TYPE_CHECKING:
    from edgeproxy.config.collector import Settings as CollectorSettings
    from edgeproxy.config.models import Settings
    from edgeproxy.usage.audit import Verdict
    from edgeproxy.usage.identity import Identity

app = typer.Typer(
    name="edgeproxy",
    help="An HTTP edge proxy that knows customers by API key, limits them by tier and counts every request.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
key = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(key, name="key")
spool = typer.Typer(help="What was sealed for the collector, and is kept until it has it.", no_args_is_help=True)
app.add_typer(spool, name="spool")
quarantine = typer.Typer(help="Batches that a collector could not read, and keeps as they came.", no_args_is_help=True)
app.add_typer(quarantine, name="quarantine")
directory = typer.Typer(
    help="Customers and keys in the hub, for edges with `directory: {from: hub}`.", no_args_is_help=True
)
app.add_typer(directory, name="directory")

Said = TypeVar("Said")

ADMIN = "127.0.0.1:9090"
"""Where `status` and `limits` ask unless they are told."""
KEY_PREFIX = "ek_live_"
KEY_LENGTH = 40
"""Random letters and digits of a key, 238 bits."""
ANSWER_TIMEOUT = 10.0
"""Seconds for the admin listener to answer."""
PROBE_TIMEOUT = 3.0
"""The same for `probe`: less than what any health check waits."""

SHOWN_MOST = 20
"""Names of each kind that `directory push` prints."""

ConfigFile = Annotated[Path, typer.Option("-c", "--config", metavar="FILE", help="The configuration: edge.yaml.")]
CollectorFile = Annotated[
    Path, typer.Option("-c", "--config", metavar="FILE", help="The collector's configuration: collector.yaml.")
]
AdminFile = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", help="The configuration that names the admin listener.")
]
AdminAddress = Annotated[
    str | None, typer.Option("--admin", metavar="HOST:PORT", help=f"The admin listener; by default {ADMIN}.")
]


@app.command()
def edge(
    config: ConfigFile,
    watch: Annotated[bool, typer.Option("--watch", help="Reload whenever FILE, or what it includes, changes.")] = False,
) -> None:
    """Serve what FILE says, until SIGTERM or SIGINT. SIGHUP reloads it."""
    import signal

    from edgeproxy.config.load import attempt

    # Until the supervisor heeds it: what changes in FILE from here on is not missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    loaded = attempt(config, os.environ)
    if loaded.settings is None:
        _fail("\n".join(map(str, loaded.problems)), 2)
    from edgeproxy.supervisor.main import run

    raise typer.Exit(run(loaded.settings, config, watched=loaded.signs if watch else None))


@app.command()
def quick(
    to: Annotated[str, typer.Option(metavar="URL", help="The upstream: http://HOST:PORT, or https://.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where clients connect.")] = "127.0.0.1:8080",
    admin: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The admin listener; none unless set.")] = None,
    rate: Annotated[str | None, typer.Option(metavar="RATE", help="A limit for each address, such as 100/s.")] = None,
) -> None:
    """Serve one upstream without a configuration, open to all, until SIGTERM or SIGINT. Counts end with it."""
    from tempfile import TemporaryDirectory

    from edgeproxy.config.problems import ConfigErrors
    from edgeproxy.config.quick import load_quick

    with TemporaryDirectory(prefix="edgeproxy-quick-", ignore_cleanup_errors=True) as state:
        try:
            settings = load_quick(to, listen=listen, admin=admin, rate=rate, state=Path(state))
        except ConfigErrors as errors:
            _fail(str(errors), 2)
        from edgeproxy.supervisor.main import run

        code = run(settings, None)
    raise typer.Exit(code)


@app.command()
def collector(config: CollectorFile) -> None:
    """Take and keep what edges have counted, as FILE says, until SIGTERM or SIGINT. SIGHUP reloads it."""
    import signal

    # Until the collector heeds it: what changes in FILE from here on is not missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    settings = _load_collector(config)
    from edgeproxy.collector.main import run

    raise typer.Exit(run(settings, config))


@app.command()
def verify(config: CollectorFile) -> None:
    """Hold the ledger against the batches, and these against each edge's chain; exit code 1 at the first break."""
    settings = _load_collector(config)
    from edgeproxy.collector.main import check_ledger

    code, said = check_ledger(settings)
    if code:
        _fail(said, code)
    typer.echo(f"OK: {said}")


EdgeName = Annotated[str, typer.Argument(metavar="EDGE", help="The edge that shipped it.")]
BatchSeq = Annotated[int, typer.Argument(metavar="SEQ", min=1, help="The number of the batch.")]


@quarantine.command("ls")
def quarantine_ls(config: CollectorFile) -> None:
    """List what is in quarantine."""
    from edgeproxy.collector import offline

    _say(offline.listed(_load_collector(config)))


@quarantine.command("show")
def quarantine_show(
    config: CollectorFile,
    edge: EdgeName,
    seq: BatchSeq,
    body: Annotated[
        Path | None, typer.Option("--body", metavar="FILE", help="Write its body there, uncompressed if it can be.")
    ] = None,
) -> None:
    """Tell what is known of a batch in quarantine, or of one that was replayed."""
    from edgeproxy.collector import offline

    _say(offline.shown(_load_collector(config), edge, seq, body))


@quarantine.command("replay")
def quarantine_replay(
    config: CollectorFile,
    edge: EdgeName,
    seq: BatchSeq,
    body: Annotated[
        Path | None, typer.Option("--body", metavar="FILE", help="Count this body in its place, once put right.")
    ] = None,
    nothing: Annotated[
        bool, typer.Option("--nothing", help="Nobody will know what was in it: it counts nothing.")
    ] = False,
) -> None:
    """Count a batch in quarantine after all, once, however often this is said; a collector may run meanwhile."""
    if nothing and body is not None:
        _fail("--nothing: there is a --body", 2)
    from edgeproxy.collector import offline

    _say(offline.replayed(_load_collector(config), edge, seq, body, nothing=nothing))


@app.command()
def backup(
    config: CollectorFile,
    to: Annotated[Path, typer.Argument(metavar="TO", help="The file to make; it must not be there.")],
) -> None:
    """Copy the collector's database of SQLite, as it is at one moment; a collector may run meanwhile."""
    from edgeproxy.collector import offline

    _say(offline.backed_up(_load_collector(config), to))


def _say(said: tuple[int, str]) -> None:
    """Print what came of a command, and exit unless it was well: the code, and what is to be said."""
    code, text = said
    if code:
        _fail(text, code)
    typer.echo(text)


@app.command()
def check(config: ConfigFile) -> None:
    """Check FILE and what it includes, and print every problem with its place."""
    import time

    from edgeproxy.config import certificates, collector, load
    from edgeproxy.config.problems import ConfigErrors

    try:
        settings = load.check(config, os.environ)
    except ConfigErrors as errors:
        _fail(str(errors), 1)
    if isinstance(settings, collector.Settings):
        for worry in certificates.worries_of([settings.tls] if settings.tls else [], time.time()):
            typer.echo(f"warning: the certificate {worry}", err=True)
        typer.echo(f"OK: {summary_of_collector(settings)}")
        return
    for worry in certificates.worries(settings, time.time()) if settings else ():
        typer.echo(f"warning: the certificate {worry}", err=True)
    if settings is not None and settings.usage is not None and settings.usage.is_exposed:
        told = f"the token for {settings.usage.collector} can be read by all on the way"
        typer.echo(f"warning: {told}: write https://", err=True)
    if settings is not None and settings.hub.is_exposed:
        told = f"the password for {settings.hub.name} can be read by all on the way"
        instead = settings.hub.url.partition("://")[0].replace("redis", "rediss", 1)
        typer.echo(f"warning: {told}: write {instead}://", err=True)
    if settings is not None and settings.access_log is not None:
        from edgeproxy.proxy.log_file import unusable

        file = settings.access_log.file
        # The state directory is made when the edge starts.
        why = None if file.parent == settings.state else unusable(file)
        if why is not None:
            typer.echo(f"warning: the access log {file} cannot be written from here: {why}", err=True)
    typer.echo(f"OK: {summary(settings)}" if settings else "OK: a part, which another file has to include")


@app.command()
def schema() -> None:
    """Print the JSON Schema of edge.yaml, for editors."""
    import json

    from edgeproxy.config.schema import schema

    typer.echo(json.dumps(schema(), indent=2))


@key.command("new")
def key_new(
    customer: Annotated[str, typer.Option(metavar="NAME", help="Whose key it is, as under customers.")],
) -> None:
    """Make a key: print it, this once, and the line for `keys` with its hash."""
    import hashlib
    import secrets
    import string

    from edgeproxy.config.parsers import A_NAME, NAME

    if not NAME.fullmatch(customer):
        _fail(f"--customer: {customer!r} is not a name, {A_NAME}", 2)
    alphabet = string.ascii_letters + string.digits
    secret = KEY_PREFIX + "".join(secrets.choice(alphabet) for _ in range(KEY_LENGTH))
    digest = hashlib.sha256(secret.encode()).hexdigest()
    typer.echo("The key, shown only now, and the line for `keys` in edge.yaml:", err=True)
    typer.echo(secret)
    typer.echo(f'  - {{sha256: "{digest}", customer: {customer}}}')


@directory.command("push")
def directory_push(
    config: Annotated[
        Path,
        typer.Option("-c", "--config", metavar="FILE", help="The hub, tiers, customers and keys, as in edge.yaml."),
    ],
    dry: Annotated[bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also where more than half of the customers, or keys, would be gone.")
    ] = False,
) -> None:
    """Have the hub know the customers and keys of FILE, and no others. Edges follow within seconds."""
    from edgeproxy.config.load import load_people
    from edgeproxy.config.problems import ConfigErrors

    try:
        settings = load_people(config, os.environ)
    except ConfigErrors as errors:
        _fail(str(errors), 2)
    if not settings.hub.is_shared:
        _fail(f"{config} has no hub to push to: write hub: redis://HOST:PORT", 2)
    from edgeproxy.directory import push
    from edgeproxy.hub.redis import Away

    try:
        done = push.run(settings, force=force, dry=dry)
    except push.Refused as why:
        _fail(f"{settings.hub.name}: {why}", 1)
    except Away as why:
        _fail(f"the hub {settings.hub.name} is away: {why}", 1)
    for sign, names in (("+", done.added), ("~", done.changed), ("-", done.removed)):
        for name in names[:SHOWN_MOST]:
            typer.echo(f"{sign} {name}")
        if len(names) > SHOWN_MOST:
            typer.echo(f"{sign} and {len(names) - SHOWN_MOST} more")
    counts = f"{len(done.added)} added, {len(done.changed)} changed, {len(done.removed)} removed"
    there = f"version {done.version}: {counted(done.customers, 'customer')}, {counted(done.keys, 'key')}"
    if done.idle:
        typer.echo(f"nothing to do: {there}")
    else:
        typer.echo(f"{'would push' if dry else 'pushed'}: {counts}; {there}")
    if done.refused:
        _fail(f"{settings.hub.name}: it would be refused: {done.refused}", 1)


@app.command()
def status(config: AdminFile = None, admin: AdminAddress = None) -> None:
    """Ask a running edge how it is."""
    said, workers = _ask(_admin(config, admin), "/status", _status)
    typer.echo(said)
    if not workers:
        _fail("no worker is running", 1)


def _status(answer: Any) -> tuple[str, int]:
    """What `/status` answers, for people, and how many workers run."""
    from edgeproxy.supervisor.overview import overview

    return overview(answer), len(answer["workers"])


@app.command()
def limits(
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="A name under `customers`.")],
    config: AdminFile = None,
    admin: AdminAddress = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the edge answers, as it is.")] = False,
) -> None:
    """Ask a running edge what a customer has used of each limit, and when it is free again."""
    import json
    from urllib.parse import quote

    answer, page = _ask(_admin(config, admin), f"/limits/{quote(customer, safe='')}", _limits)
    typer.echo(json.dumps(answer, indent=2) if as_json else page or f"{customer} has no limits")


def _limits(answer: Any) -> tuple[Any, str]:
    """What `/limits/CUSTOMER` answers, and the same for people; nothing where nothing holds the customer."""
    from edgeproxy.supervisor.overview import limits

    return answer, limits(answer["policies"]) if answer["policies"] else ""


@app.command()
def probe(
    config: AdminFile = None,
    admin: AdminAddress = None,
    live: Annotated[bool, typer.Option("--live", help="Ask whether it is alive, be it ready or not.")] = False,
    tls: Annotated[bool, typer.Option("--tls", help="Ask over TLS, whoever answers: a collector that has it.")] = False,
) -> None:
    """Ask a running edge whether it is ready, or by its address a collector: exit code 0 if it serves, 1 if not.

    For health checks.
    """
    url, path = _admin(config, admin), "/healthz" if live else "/readyz"
    _fetch(url.replace("http:", "https:", 1) if tls else url, path, PROBE_TIMEOUT)
    typer.echo("alive" if live else "ready")


SetAside = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="What was set aside, such as aside.1, where there are several.")
]


@spool.command("ls")
def spool_ls(config: ConfigFile) -> None:
    """List what is in the spool of FILE's state directory, and what was set aside beside it."""
    from datetime import UTC, datetime

    from edgeproxy.usage import audit, identity
    from edgeproxy.usage.spool import Damaged, discarded

    state, _, mine = _sealed(config)
    if mine is None:
        typer.echo(f"nothing has been sealed in {state} yet")
    else:
        made_at = datetime.fromtimestamp(mine.made_at, UTC)
        reached = audit.shipped(_spool(state))
        typer.echo(f"{mine.id}, made {made_at:%Y-%m-%d %H:%M} UTC; acknowledged up to batch {reached.watermark}")
        if reached.most > reached.watermark:
            typer.echo(f"the collector had them up to batch {reached.most}, and asks for them again: it was restored")
        if reached.last > reached.watermark:
            typer.echo(f"to be shipped: batches {reached.watermark + 1} to {reached.last}, {reached.values} counted")
        try:
            for given in discarded(_spool(state)):
                typer.echo(f"given up: batches {given.first} to {given.last}: {given.why}")
        except (Damaged, OSError) as failure:
            typer.echo(str(failure), err=True)
        for one in audit.listing(_spool(state)):
            batches = f"batches {one.first} to {one.last}" if one.last >= one.first else "no batch yet"
            typer.echo(f"{one.path.name}  {batches}, {one.size} bytes")
    for path in identity.aside(state):
        put = identity.load(path)
        typer.echo(f"{path.name}  set aside: {put.id if put else 'unknown'}; adopt or discard it")


@spool.command("verify")
def spool_verify(config: ConfigFile) -> None:
    """Read the whole spool: every checksum, and that each batch follows the one before it."""
    state, folder, mine = _sealed(config)
    if mine is None:
        typer.echo(f"nothing has been sealed in {state} yet")
        return
    verdict = _audited(state, folder, mine)
    for note in verdict.notes:
        typer.echo(note, err=True)
    if verdict.problems:
        _fail("\n".join(verdict.problems), 1)
    read = f"{counted(verdict.batches, 'batch')} with {counted(verdict.rows, 'row')}"
    typer.echo(f"OK: {read} of {mine.id}, each following the one before")


def _audited(state: Path, folder: Path, mine: "Identity") -> "Verdict":
    """What came of reading a whole spool."""
    from edgeproxy.usage import audit
    from edgeproxy.usage.spool import Damaged

    try:
        return audit.verify(_spool(state), mine.id, audit.sealed_in_tables(state, folder))
    except (Damaged, OSError) as failure:
        _fail(str(failure), 1)


@spool.command("adopt")
def spool_adopt(config: ConfigFile, name: SetAside = None) -> None:
    """Go on with an identity that was left elsewhere: the state directory was moved here, and is used nowhere else."""
    from edgeproxy.usage import identity

    state, folder, _ = _sealed(config)
    try:
        adopted, _, put = identity.adopt(state, folder, name)
    except (identity.Unusable, OSError) as failure:
        _fail(str(failure), 1)
    typer.echo(f"{adopted.id} goes on in {state}" + (f"; what was there is in {put}" if put else ""))


@spool.command("discard")
def spool_discard(
    config: ConfigFile,
    name: SetAside = None,
    damaged: Annotated[
        bool,
        typer.Option("--damaged", help="Give up the batches of the spool that cannot be read; the edge may run."),
    ] = False,
) -> None:
    """Drop what was set aside, with all that it counted and did not ship: another edge goes on with it.

    With --damaged: own up to batches that cannot be read. The collector is told of them as a gap, and shipping, which
    stopped before them, goes on. What they counted is lost to it.
    """
    from edgeproxy.usage import identity
    from edgeproxy.usage.spool import discard

    state, folder, mine = _sealed(config)
    if damaged and name is not None:
        _fail("--damaged is about the spool in use, and takes no name", 2)
    try:
        if not damaged:
            typer.echo(f"{identity.discard(state, folder, name)} is gone")
            return
        unread = () if mine is None else _audited(state, folder, mine).unread
        if not unread:
            _fail(f"no batch in {_spool(state)} is damaged, and shipping does not wait for this", 1)
        discard(_spool(state), unread)
        for one in unread:
            typer.echo(f"given up: batches {one.first} to {one.last}: {one.why}")
    except (identity.Unusable, OSError) as failure:
        _fail(str(failure), 1)


def _sealed(config: Path) -> "tuple[Path, Path, Identity | None]":
    """The state directory of a configuration, where its tables are, and its identity."""
    from edgeproxy.usage import identity

    settings = _load(config, files=False)
    try:
        return settings.state, settings.tables.dir or settings.state, identity.load(settings.state)
    except identity.Unusable as failure:
        _fail(str(failure), 1)


def _spool(state: Path) -> Path:
    from edgeproxy.usage.identity import SPOOL

    return state / SPOOL


LATER = {
    "import": "People of the files into the collector.",
    "billing": "Plans, invoices and their reconciliation.",
    "stripe-sandbox": "A Stripe to try with.",
}
"""Commands that a later version brings, whatever their arguments will be."""


def _later(name: str, about: str) -> None:
    @app.command(
        name,
        help=f"Not supported yet: {about[0].lower()}{about[1:]}",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def refuse() -> None:
        _fail(f"{name} is not supported yet", 2)


for _name, _about in LATER.items():
    _later(_name, _about)


def summary(settings: "Settings") -> str:
    """A configuration in a line."""
    sizes = {
        "route": settings.routes,
        "upstream": settings.upstreams,
        "tier": settings.tiers,
        "customer": settings.customers,
        "key": settings.keys,
    }
    listening = ", ".join(str(listener.address) for listener in settings.listen)
    return f"region {settings.region} on {listening}: {_counted(sizes)}; sha256 {settings.sha256[:12]}"


def summary_of_collector(settings: "CollectorSettings") -> str:
    """The collector's configuration in a line, without the password of its database."""
    import re

    database = re.sub(r"//[^/@]*@", "//", settings.database)
    sizes = {"token": settings.tokens, "tier": settings.tiers, "customer": settings.customers}
    return f"collector on {settings.listen}, {database}: {_counted(sizes)}; sha256 {settings.sha256[:12]}"


def _counted(sizes: Mapping[str, Sized]) -> str:
    """How many there are of each: `2 keys, 1 tier`."""
    return ", ".join(counted(len(some), name) for name, some in sizes.items())


def main() -> None:
    """The command `edgeproxy`."""
    app(prog_name="edgeproxy")


def _load(path: Path, *, files: bool = True) -> "Settings":
    """The settings of a file, see config.load; where they cannot be used, prints every problem and exits."""
    from edgeproxy.config.load import load
    from edgeproxy.config.problems import ConfigErrors

    try:
        return load(path, os.environ, files=files)
    except ConfigErrors as errors:
        _fail(str(errors), 2)


def _load_collector(path: Path) -> "CollectorSettings":
    """The same of a collector's file."""
    from edgeproxy.config.load import load_collector
    from edgeproxy.config.problems import ConfigErrors

    try:
        return load_collector(path, os.environ)
    except ConfigErrors as errors:
        _fail(str(errors), 2)


def _admin(config: Path | None, admin: str | None) -> str:
    """The URL of the admin listener that is asked: as given, else as configured, else the usual one."""
    from edgeproxy.config.parsers import AN_ADDRESS, split_address

    address = split_address(admin or ADMIN)
    if admin is None and config is not None:
        address = _load(config, files=False).admin
        if address is None:
            _fail(f"{config} has no admin listener: say --admin HOST:PORT", 2)
    if address is None:
        _fail(f"--admin: {admin!r} is not an address with a port, {AN_ADDRESS}", 2)
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return f"http://{address._replace(host=anywhere.get(address.host, address.host))}"


def _ask(url: str, path: str, read: Callable[[Any], Said]) -> Said:
    """What `read` makes of the admin listener's answer; exits with what is in the way of it."""
    import json

    body = _fetch(url, path, ANSWER_TIMEOUT)
    try:
        return read(json.loads(body))
    except (ValueError, LookupError, TypeError):
        _fail(f"{url}{path} does not answer as an edge does", 1)


def _fetch(url: str, path: str, seconds: float) -> bytes:
    """The body of the admin listener's answer within `seconds`; exits where that is not 200, saying why.

    Over https:// nobody has to prove who they are: it is asked whether they are well.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import BaseHandler, HTTPSHandler, ProxyHandler, build_opener

    handlers: list[BaseHandler] = [ProxyHandler({})]
    if url.startswith("https:"):
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        handlers.append(HTTPSHandler(context=context))
    directly = build_opener(*handlers)
    try:
        with directly.open(url + path, timeout=seconds) as answer:
            body: bytes = answer.read()
            return body
    except HTTPError as refusal:
        with refusal:
            _fail(_detail(refusal.read()) or f"{url}{path} answered {refusal.code} {refusal.reason}", 1)
    except OSError as failure:
        _fail(f"nobody answers at {url}: {getattr(failure, 'reason', failure)}", 1)
    except HTTPException:
        _fail(f"{url}{path} does not answer as an edge does", 1)


def _detail(body: bytes) -> str | None:
    """What an error says to people (RFC 9457), or why an edge is not ready; None where it is not an edge's."""
    import json

    try:
        problem = json.loads(body)
    except ValueError:
        return None
    return problem.get("detail") or problem.get("reason") if isinstance(problem, dict) else None


def _fail(why: str, code: int) -> NoReturn:
    """Say on standard error why not, and exit."""
    typer.echo(why, err=True)
    raise typer.Exit(code)
