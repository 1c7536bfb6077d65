"""Commands about sealed usage that waits for the collector: `spool ls | show | verify | adopt | discard`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeproxy.base.plural import format_count
from edgeproxy.cli.files import StateFolder, locate_edge
from edgeproxy.cli.outcome import fail

if TYPE_CHECKING:
    from edgeproxy.edge.usage.audit import SpoolVerdict
    from edgeproxy.edge.usage.identity import EdgeIdentity
    from edgeproxy.edge.usage.spool import DiscardedRange

EdgeFile = Annotated[Path | None, typer.Option("-c", "--config", metavar="FILE", help="The configuration: edge.yaml.")]
SetAside = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="What was set aside, such as aside.1, where there are several.")
]
ResidencyName = Annotated[
    str | None,
    typer.Option("--residency", metavar="NAME", help="Whose chain, where the edge tells residencies apart: its home."),
]


def ls(config: EdgeFile = None, state: StateFolder = None, residency: ResidencyName = None) -> None:
    """List the spool of FILE's state directory, and the identities that were set aside beside it."""
    from datetime import UTC, datetime

    from edgeproxy.edge.usage import audit, identity
    from edgeproxy.edge.usage.spool import DamagedSpoolError, fetch_discarded

    state, _, mine = _open_spool(config, state, residency)
    if mine is None:
        typer.echo(f"nothing has been sealed in {state} yet")
    else:
        made_at = datetime.fromtimestamp(mine.made_at, UTC)
        reached = audit.fetch_progress(_spool_path(state))
        typer.echo(f"{mine.id}, made {made_at:%Y-%m-%d %H:%M} UTC; acknowledged up to batch {reached.watermark}")
        if reached.most > reached.watermark:
            typer.echo(f"the collector had them up to batch {reached.most}, and asks for them again: it was restored")
        if reached.last > reached.watermark:
            typer.echo(f"to be shipped: batches {reached.watermark + 1} to {reached.last}, {reached.values} counted")
        try:
            for discarded in fetch_discarded(_spool_path(state)):
                typer.echo(f"given up: {_format_damage(discarded)}")
        except (DamagedSpoolError, OSError) as error:
            typer.echo(str(error), err=True)
        for segment in audit.summarize_segments(_spool_path(state)):
            is_empty = segment.last < segment.first
            batches = "no batch yet" if is_empty else f"batches {segment.first} to {segment.last}"
            typer.echo(f"{segment.path.name}  {batches}, {segment.size} bytes")
    for path in identity.list_set_aside(state):
        other = identity.load_identity(path)
        typer.echo(f"{path.name}  set aside: {other.id if other else 'unknown'}; adopt or discard it")


def verify(config: EdgeFile = None, state: StateFolder = None, residency: ResidencyName = None) -> None:
    """Read the whole spool: every checksum, and that each batch follows the one before it."""
    state, folder, mine = _open_spool(config, state, residency)
    if mine is None:
        typer.echo(f"nothing has been sealed in {state} yet")
        return
    verdict = _verify(state, folder, mine)
    for note in verdict.notes:
        typer.echo(note, err=True)
    if verdict.problems:
        fail("\n".join(verdict.problems), 1)
    read = f"{format_count(verdict.batches, 'batch')} with {format_count(verdict.rows, 'row')}"
    typer.echo(f"OK: {read} of {mine.id}, each following the one before")


def _verify(state: Path, folder: Path, mine: "EdgeIdentity") -> "SpoolVerdict":
    """Verify a whole spool; exits with 1 where it cannot be read."""
    from edgeproxy.edge.usage import audit
    from edgeproxy.edge.usage.spool import DamagedSpoolError

    try:
        return audit.verify_spool(_spool_path(state), mine.id, audit.fetch_last_sealed(state, folder))
    except (DamagedSpoolError, OSError) as error:
        fail(str(error), 1)


def adopt(config: EdgeFile = None, name: SetAside = None, state: StateFolder = None) -> None:
    """Adopt an identity that was set aside: the state directory was moved here, and is used nowhere else."""
    from edgeproxy.edge.usage import identity

    state, folder, _ = _open_spool(config, state)
    try:
        adopted, _, set_aside = identity.adopt_identity(state, folder, name)
    except (identity.IdentityError, OSError) as error:
        fail(str(error), 1)
    typer.echo(f"{adopted.id} goes on in {state}" + (f"; what was there is in {set_aside}" if set_aside else ""))


def discard(
    config: EdgeFile = None,
    name: SetAside = None,
    state: StateFolder = None,
    damaged: Annotated[
        bool,
        typer.Option("--damaged", help="Give up the batches of the spool that cannot be read; the edge may run."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    residency: ResidencyName = None,
) -> None:
    """Discard an identity that was set aside, with the usage that it did not ship. Shows what would be lost, and asks.

    With --damaged: give up batches that cannot be read; the collector gets a gap instead, and shipping goes on.
    """
    from edgeproxy.edge.usage import identity
    from edgeproxy.edge.usage.spool import record_discarded as give_up

    if damaged and name is not None:
        fail("--damaged is about the spool in use, and takes no name", 2)
    if residency is not None and not damaged:
        fail("what was set aside of another residency lies in its folder: remove it there, once it was looked at", 2)
    state, folder, mine = _open_spool(config, state, residency)
    try:
        if not damaged:

            def confirm(lost: Path) -> None:
                _confirm(f"{lost.name} sealed and did not ship: {_format_unshipped(lost)}", yes)

            typer.echo(f"{identity.discard_identity(state, folder, name, confirm=confirm)} is gone")
            return
        unread = () if mine is None else _verify(state, folder, mine).unread
        if not unread:
            fail(f"no batch in {_spool_path(state)} is damaged, and shipping does not wait for this", 1)
        _confirm("\n".join(f"lost: {_format_damage(damage)}" for damage in unread), yes)
        give_up(_spool_path(state), unread)
        for damage in unread:
            typer.echo(f"given up: {_format_damage(damage)}")
    except (identity.IdentityError, OSError) as error:
        fail(str(error), 1)


def show(
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=1, help="The number of the batch.")],
    config: EdgeFile = None,
    state: StateFolder = None,
    residency: ResidencyName = None,
) -> None:
    """Print a batch of the spool: the usage of each customer, meter and route, and when."""
    from datetime import UTC, datetime

    from edgeproxy.edge.usage import audit

    state, _, _ = _open_spool(config, state, residency)
    batch = audit.find_batch(_spool_path(state), seq)
    if batch is None:
        fail(f"there is no batch {seq} in {_spool_path(state)} that can be read", 1)
    since, until = (datetime.fromtimestamp(moment, UTC) for moment in (batch.since, batch.until))
    typer.echo(f"batch {batch.seq} of {batch.edge}, {batch.region}: {since:%Y-%m-%d %H:%M:%S} to {until:%H:%M:%S} UTC")
    for customer, meter, route, value, *split in batch.rows:
        typer.echo("  ".join([customer, meter, route, str(value), *split]))
    if batch.gap is not None:
        typer.echo(f"a gap up to batch {batch.last}: {batch.gap.why}")


def _format_unshipped(state: Path) -> str:
    """Format the sealed and unshipped usage of a state directory by meter, as far as it can be read."""
    from edgeproxy.edge.usage import audit

    sums = audit.sum_unshipped(_spool_path(state)) or {}
    return ", ".join(f"{value} {meter}" for meter, value in sorted(sums.items())) or "nothing"


def _format_damage(damage: "DiscardedRange") -> str:
    return f"batches {damage.first} to {damage.last}: {damage.why}"


def _confirm(what: str, yes: bool) -> None:
    """Show what would be lost, and exit unless that is confirmed."""
    typer.echo(what, err=True)
    if not yes and not typer.confirm("Drop it for good?", err=True):
        fail("nothing was dropped", 1)


def _open_spool(
    config: Path | None, state: Path | None, residency: str | None = None
) -> "tuple[Path, Path, EdgeIdentity | None]":
    """Return the folder of a chain of an edge, the directory of its tables, and the identity of the chain."""
    from edgeproxy.edge.usage import identity
    from edgeproxy.edge.usage.chains import fetch_home

    if config is None and state is None:
        fail("say whose spool: -c FILE, or --state DIR", 2)
    location = locate_edge(config, state)
    try:
        label = "" if residency is None or residency == fetch_home(location.state) else residency
        chain = identity.get_chain_folder(location.state, label)
        if not chain.is_dir() and label:
            fail(f"there is no chain of the residency {label} in {location.state}", 1)
        return chain, location.tables.dir or location.state, identity.load_identity(chain)
    except identity.IdentityError as error:
        fail(str(error), 1)


def _spool_path(state: Path) -> Path:
    from edgeproxy.edge.usage.identity import SPOOL

    return state / SPOOL
