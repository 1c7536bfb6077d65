"""Commands about sealed usage that waits for the collector: `spool ls | verify | adopt | discard`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeproxy.cli.files import ConfigFile, load_file
from edgeproxy.cli.outcome import fail
from edgeproxy.plural import counted

if TYPE_CHECKING:
    from edgeproxy.usage.audit import Verdict
    from edgeproxy.usage.identity import Identity

SetAside = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="What was set aside, such as aside.1, where there are several.")
]


def ls(config: ConfigFile) -> None:
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


def verify(config: ConfigFile) -> None:
    """Read the whole spool: every checksum, and that each batch follows the one before it."""
    state, folder, mine = _sealed(config)
    if mine is None:
        typer.echo(f"nothing has been sealed in {state} yet")
        return
    verdict = _audited(state, folder, mine)
    for note in verdict.notes:
        typer.echo(note, err=True)
    if verdict.problems:
        fail("\n".join(verdict.problems), 1)
    read = f"{counted(verdict.batches, 'batch')} with {counted(verdict.rows, 'row')}"
    typer.echo(f"OK: {read} of {mine.id}, each following the one before")


def _audited(state: Path, folder: Path, mine: "Identity") -> "Verdict":
    """What came of reading a whole spool."""
    from edgeproxy.usage import audit
    from edgeproxy.usage.spool import Damaged

    try:
        return audit.verify(_spool(state), mine.id, audit.sealed_in_tables(state, folder))
    except (Damaged, OSError) as failure:
        fail(str(failure), 1)


def adopt(config: ConfigFile, name: SetAside = None) -> None:
    """Go on with an identity that was left elsewhere: the state directory was moved here, and is used nowhere else."""
    from edgeproxy.usage import identity

    state, folder, _ = _sealed(config)
    try:
        adopted, _, put = identity.adopt(state, folder, name)
    except (identity.Unusable, OSError) as failure:
        fail(str(failure), 1)
    typer.echo(f"{adopted.id} goes on in {state}" + (f"; what was there is in {put}" if put else ""))


def discard(
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
    from edgeproxy.usage.spool import discard as give_up

    state, folder, mine = _sealed(config)
    if damaged and name is not None:
        fail("--damaged is about the spool in use, and takes no name", 2)
    try:
        if not damaged:
            typer.echo(f"{identity.discard(state, folder, name)} is gone")
            return
        unread = () if mine is None else _audited(state, folder, mine).unread
        if not unread:
            fail(f"no batch in {_spool(state)} is damaged, and shipping does not wait for this", 1)
        give_up(_spool(state), unread)
        for one in unread:
            typer.echo(f"given up: batches {one.first} to {one.last}: {one.why}")
    except (identity.Unusable, OSError) as failure:
        fail(str(failure), 1)


def _sealed(config: Path) -> "tuple[Path, Path, Identity | None]":
    """The state directory of a configuration, where its tables are, and its identity."""
    from edgeproxy.usage import identity

    settings = load_file(config, files=False)
    try:
        return settings.state, settings.tables.dir or settings.state, identity.load(settings.state)
    except identity.Unusable as failure:
        fail(str(failure), 1)


def _spool(state: Path) -> Path:
    from edgeproxy.usage.identity import SPOOL

    return state / SPOOL
