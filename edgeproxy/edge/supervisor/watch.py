"""The files of the configuration, watched: once they have changed and settled, they are loaded again.

Files are written in pieces and replaced one after the other, so a change counts once two looks in a row have seen the
same. What is read half-written all the same is refused, and read again when the other half has come.
"""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial

from edgeproxy.base.tasks import run_in_thread
from edgeproxy.config.file_signatures import FileSignature, compute_file_signature
from edgeproxy.edge.supervisor.reload import Reloads

CHECK_SECONDS = 0.5
"""Seconds between two looks."""

FileSignatures = Mapping[str, FileSignature]


class SettlingFiles:
    """What was seen of the files so far."""

    def __init__(self) -> None:
        self._before: FileSignatures = {}
        self._tried: FileSignatures = {}

    def look(self, read: FileSignatures, seen: FileSignatures) -> bool:
        """Whether to load the files that are now as `seen`, and were as `read` when they were loaded last.

        True at most once for each state of the files: what came of that was said, and stays so until they change.
        """
        settled = seen == self._before
        self._before = seen
        if seen == read or seen == self._tried or not settled:
            return False
        self._tried = seen
        return True


async def watch_files(reloads: Reloads, every: float = CHECK_SECONDS) -> None:
    """Look at the files that were read last again and again, and reload what has changed."""
    settling = SettlingFiles()
    while True:
        await asyncio.sleep(every)
        read = reloads.signs
        seen = await run_in_thread("look at configuration", partial(sign_files, read))
        if settling.look(read, seen):
            await reloads.ask()


def sign_files(files: Iterable[str]) -> FileSignatures:
    """The files as they are now."""
    return {file: compute_file_signature(file) for file in files}
