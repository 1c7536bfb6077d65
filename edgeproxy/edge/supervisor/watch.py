"""The configuration files are watched: once they have changed and settled, they are loaded again.

Files are written in pieces and replaced one after another, so a change counts once two checks in a row have seen equal
files. Files that are still half-written are refused, and read again once the rest has come.
"""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial

from edgeproxy.base.tasks import run_in_thread
from edgeproxy.config.file_signatures import FileSignature, compute_file_signature
from edgeproxy.edge.supervisor.reload import Reloads

CHECK_SECONDS = 0.5
"""Seconds between two checks."""

FileSignatures = Mapping[str, FileSignature]


class SettlingFiles:
    """The signatures of the files at the last check and at the last reload."""

    def __init__(self) -> None:
        self._before: FileSignatures = {}
        self._tried: FileSignatures = {}

    def is_reload_due(self, read: FileSignatures, seen: FileSignatures) -> bool:
        """Return whether to load the files. They now have the signatures `seen`, and had `read` when they were loaded
        last.

        True at most once for each state of the files, because an error is reported once.
        """
        settled = seen == self._before
        self._before = seen
        if seen == read or seen == self._tried or not settled:
            return False
        self._tried = seen
        return True


async def watch_files(reloads: Reloads, every: float = CHECK_SECONDS) -> None:
    """Check the files that were read last for ever, and reload them once they have changed."""
    settling = SettlingFiles()
    while True:
        await asyncio.sleep(every)
        read = reloads.signatures
        seen = await run_in_thread("look at configuration", partial(sign_files, read))
        if settling.is_reload_due(read, seen):
            await reloads.request()


def sign_files(files: Iterable[str]) -> FileSignatures:
    """Return the present signatures of these files."""
    return {file: compute_file_signature(file) for file in files}
