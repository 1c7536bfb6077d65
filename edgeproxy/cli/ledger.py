"""Commands about the collector's database: `verify`, `backup`, `quarantine ls | show | replay`."""

from pathlib import Path
from typing import Annotated

import typer

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import fail, finish

EdgeName = Annotated[str, typer.Argument(metavar="EDGE", help="The edge that shipped it.")]
BatchSeq = Annotated[int, typer.Argument(metavar="SEQ", min=1, help="The number of the batch.")]


def verify(
    config: CollectorFile,
    parquet: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Hold what was exported there against the ledger, too; of several, each."),
    ] = None,
    clickhouse: Annotated[
        str | None, typer.Option(metavar="URL", help="Hold what ClickHouse got of that export against it, too.")
    ] = None,
) -> None:
    """Prove the ledger, the audit log and the credits' journal by their batches and chains; exit code 1 at a break."""
    if clickhouse is not None and not parquet:
        fail("--clickhouse: goes with --parquet, whose files it got", 2)
    settings = load_collector_file(config)
    from edgeproxy.collector.main import check_ledger

    code, text = check_ledger(settings)
    if parquet and not code:
        from edgeproxy.collector.commands import parquet as parquet_export

        code, exported = parquet_export.verify_hours(settings, parquet, clickhouse)
        text = exported if code else f"{text}; {exported}"
    if code:
        fail(text, code)
    typer.echo(f"OK: {text}")


def backup(
    config: CollectorFile,
    to: Annotated[Path, typer.Argument(metavar="TO", help="The file to make; it must not be there.")],
    recipient: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Encrypt it for this public key of age, age1…: by the program age."),
    ] = None,
) -> None:
    """Copy the collector's database of SQLite, as it is at one moment; a collector may run meanwhile."""
    from edgeproxy.collector.commands import database

    finish(database.back_up(load_collector_file(config), to, recipient))


def quarantine_ls(config: CollectorFile) -> None:
    """List the batches in quarantine."""
    from edgeproxy.collector.commands import database

    finish(database.list_quarantine(load_collector_file(config)))


def quarantine_show(
    config: CollectorFile,
    edge: EdgeName,
    seq: BatchSeq,
    body: Annotated[
        Path | None, typer.Option("--body", metavar="FILE", help="Write its body there, uncompressed if it can be.")
    ] = None,
) -> None:
    """Show a batch in quarantine, or one that was replayed."""
    from edgeproxy.collector.commands import database

    finish(database.show_batch(load_collector_file(config), edge, seq, body))


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
    """Count a batch of the quarantine, once, however often this runs; a collector may run meanwhile."""
    if nothing and body is not None:
        fail("--nothing: there is a --body", 2)
    from edgeproxy.collector.commands import database

    finish(database.replay_batch(load_collector_file(config), edge, seq, body, nothing=nothing))
