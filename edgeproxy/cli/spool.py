"""Commands about sealed usage that waits for the collector: `spool ls | verify | adopt | discard`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeproxy.base.plural import format_count
from edgeproxy.cli.files import StateFolder, edge_at
from edgeproxy.cli.outcome import fail

if TYPE_CHECKING:
    from edgeproxy.edge.usage.audit import SpoolVerdict
    from edgeproxy.edge.usage.identity import EdgeIdentity

EdgeFile = Annotated[Path | None, typer.Option("-c", "--config", metavar="FILE", help="The configuration: edge.yaml.")]
SetAside = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="What was set aside, such as aside.1, where there are several.")
]


def ls(config: EdgeFile = None, state: StateFolder = None) -> None:
    """List what is in the spool of FILE's state directory, and what was set aside beside it."""
    from datetime import UTC, datetime

    from edgeproxy.edge.usage import audit, identity
    from edgeproxy.edge.usage.spool import DamagedSpoolError, fetch_discarded

    state, _, mine = _sealed(config, state)
    if mine is None:
        typer.echo(f"nothing has been sealed in {state} yet")
    else:
        made_at = datetime.fromtimestamp(mine.made_at, UTC)
        reached = audit.fetch_progress(_spool(state))
        typer.echo(f"{mine.id}, made {made_at:%Y-%m-%d %H:%M} UTC; acknowledged up to batch {reached.watermark}")
        if reached.most > reached.watermark:
            typer.echo(f"the collector had them up to batch {reached.most}, and asks for them again: it was restored")
        if reached.last > reached.watermark:
            typer.echo(f"to be shipped: batches {reached.watermark + 1} to {reached.last}, {reached.values} counted")
        try:
            for given in fetch_discarded(_spool(state)):
                typer.echo(f"given up: batches {given.first} to {given.last}: {given.why}")
        except (DamagedSpoolError, OSError) as error:
            typer.echo(str(error), err=True)
        for one in audit.summarize_segments(_spool(state)):
            batches = f"batches {one.first} to {one.last}" if one.last >= one.first else "no batch yet"
            typer.echo(f"{one.path.name}  {batches}, {one.size} bytes")
    for path in identity.list_set_aside(state):
        put = identity.load_identity(path)
        typer.echo(f"{path.name}  set aside: {put.id if put else 'unknown'}; adopt or discard it")


def verify(config: EdgeFile = None, state: StateFolder = None) -> None:
    """Read the whole spool: every checksum, and that each batch follows the one before it."""
    state, folder, mine = _sealed(config, state)
    if mine is None:
        typer.echo(f"nothing has been sealed in {state} yet")
        return
    verdict = _audited(state, folder, mine)
    for note in verdict.notes:
        typer.echo(note, err=True)
    if verdict.problems:
        fail("\n".join(verdict.problems), 1)
    read = f"{format_count(verdict.batches, 'batch')} with {format_count(verdict.rows, 'row')}"
    typer.echo(f"OK: {read} of {mine.id}, each following the one before")


def _audited(state: Path, folder: Path, mine: "EdgeIdentity") -> "SpoolVerdict":
    """What came of reading a whole spool."""
    from edgeproxy.edge.usage import audit
    from edgeproxy.edge.usage.spool import DamagedSpoolError

    try:
        return audit.verify_spool(_spool(state), mine.id, audit.fetch_last_sealed(state, folder))
    except (DamagedSpoolError, OSError) as error:
        fail(str(error), 1)


def adopt(config: EdgeFile = None, name: SetAside = None, state: StateFolder = None) -> None:
    """Go on with an identity that was left elsewhere: the state directory was moved here, and is used nowhere else."""
    from edgeproxy.edge.usage import identity

    state, folder, _ = _sealed(config, state)
    try:
        adopted, _, put = identity.adopt_identity(state, folder, name)
    except (identity.IdentityError, OSError) as error:
        fail(str(error), 1)
    typer.echo(f"{adopted.id} goes on in {state}" + (f"; what was there is in {put}" if put else ""))


def discard(
    config: EdgeFile = None,
    name: SetAside = None,
    state: StateFolder = None,
    damaged: Annotated[
        bool,
        typer.Option("--damaged", help="Give up the batches of the spool that cannot be read; the edge may run."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Drop what was set aside, with all that it counted and did not ship: another edge goes on with it.

    It shows what would be lost, and asks.

    With --damaged: own up to batches that cannot be read. The collector is told of them as a gap, and shipping, which
    stopped before them, goes on. What they counted is lost to it.
    """
    from edgeproxy.edge.usage import identity
    from edgeproxy.edge.usage.spool import record_discarded as give_up

    state, folder, mine = _sealed(config, state)
    if damaged and name is not None:
        fail("--damaged is about the spool in use, and takes no name", 2)
    try:
        if not damaged:

            def confirm(lost: Path) -> None:
                _ask(f"{lost.name} sealed and did not ship: {_unshipped(lost)}", yes)

            typer.echo(f"{identity.discard_identity(state, folder, name, confirm=confirm)} is gone")
            return
        unread = () if mine is None else _audited(state, folder, mine).unread
        if not unread:
            fail(f"no batch in {_spool(state)} is damaged, and shipping does not wait for this", 1)
        _ask("\n".join(f"lost: batches {one.first} to {one.last}: {one.why}" for one in unread), yes)
        give_up(_spool(state), unread)
        for one in unread:
            typer.echo(f"given up: batches {one.first} to {one.last}: {one.why}")
    except (identity.IdentityError, OSError) as error:
        fail(str(error), 1)


def show(
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=1, help="The number of the batch.")],
    config: EdgeFile = None,
    state: StateFolder = None,
) -> None:
    """Print a batch of the spool: what was counted of each customer, meter and route, and when."""
    from datetime import UTC, datetime

    from edgeproxy.edge.usage import audit

    state, _, _ = _sealed(config, state)
    batch = audit.find_batch(_spool(state), seq)
    if batch is None:
        fail(f"there is no batch {seq} in {_spool(state)} that can be read", 1)
    since, until = (datetime.fromtimestamp(moment, UTC) for moment in (batch.since, batch.until))
    typer.echo(f"batch {batch.seq} of {batch.edge}, {batch.region}: {since:%Y-%m-%d %H:%M:%S} to {until:%H:%M:%S} UTC")
    for customer, meter, route, value, *split in batch.rows:
        typer.echo("  ".join([customer, meter, route, str(value), *split]))
    if batch.gap is not None:
        typer.echo(f"a gap up to batch {batch.last}: {batch.gap.why}")


def _unshipped(state: Path) -> str:
    """What a state directory has sealed and not shipped, by meter, as far as it can be read."""
    from edgeproxy.edge.usage import audit

    found = audit.sum_unshipped(_spool(state)) or {}
    return ", ".join(f"{value} {meter}" for meter, value in sorted(found.items())) or "nothing"


def _ask(what: str, yes: bool) -> None:
    """Show what would be lost, and go on only where that is meant."""
    typer.echo(what, err=True)
    if not yes and not typer.confirm("Drop it for good?", err=True):
        fail("nothing was dropped", 1)


def _sealed(config: Path | None, state: Path | None) -> "tuple[Path, Path, EdgeIdentity | None]":
    """The state directory of an edge, where its tables are, and its identity."""
    from edgeproxy.edge.usage import identity

    if config is None and state is None:
        fail("say whose spool: -c FILE, or --state DIR", 2)
    at = edge_at(config, state)
    try:
        return at.state, at.tables.dir or at.state, identity.load_identity(at.state)
    except identity.IdentityError as error:
        fail(str(error), 1)


def _spool(state: Path) -> Path:
    from edgeproxy.edge.usage.identity import SPOOL

    return state / SPOOL
