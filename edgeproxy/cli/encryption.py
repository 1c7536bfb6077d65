"""Commands about encryption at rest: `encryption status | rows | rotate`."""

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import finish


def status(config: CollectorFile) -> None:
    """Show the keys of a collector's database, and how much of each encrypted column is still in the clear."""
    settings = load_collector_file(config)
    from edgeproxy.collector.commands import encryption

    finish(encryption.report_status(settings))


def rows(config: CollectorFile) -> None:
    """Encrypt the rows that are still in the clear, as a collector does by itself; one that was cut off goes on."""
    settings = load_collector_file(config)
    from edgeproxy.collector.commands import encryption

    finish(encryption.seal_rows(settings))


def rotate(config: CollectorFile) -> None:
    """Have a new key wrap the data keys of all customers, under the master key of now; one that was cut off goes on. A
    collector may run meanwhile, if it can reach the same master keys.
    """
    settings = load_collector_file(config)
    from edgeproxy.collector.commands import encryption

    finish(encryption.rotate_keys(settings))
