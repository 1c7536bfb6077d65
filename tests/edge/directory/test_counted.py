"""An edge's reader of quotas in the hub: it skips no line, whatever happens to the list meanwhile."""

import asyncio
from typing import Any

import pytest

from edgeproxy.config.hub_settings import Hub
from edgeproxy.edge.directory.counted_log import PAGE_LINES, QuotaCountLog
from edgeproxy.wire.directory_versions import UnreadableDirectoryError
from edgeproxy.wire.quota_counts import format_line


class List:
    """A list of Redis."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.replaced_by: list[bytes] = []
        """The lines of the list after the next read. If empty, the list stays unchanged."""
        self.longest = 0
        """Lines of the longest answer."""

    async def ask(self, command: str, key: bytes, *places: int) -> Any:
        if command == "LINDEX":
            return self.lines[-1] if self.lines else None
        first, last = (len(self.lines) + place for place in places)
        answer = self.lines[max(0, first) : max(0, last + 1)]
        self.longest = max(self.longest, len(answer))
        self.lines, self.replaced_by = self.replaced_by or self.lines, []
        return answer

    def add(self, *seqs: int) -> None:
        self.lines += [format_line(seq, b'"%d"' % seq) for seq in seqs]


def test_quota_log_reader_resumes_at_its_position() -> None:
    async def run() -> None:
        there = List()
        log = QuotaCountLog(there.ask, Hub())

        async def new() -> list[str]:
            return await log._fetch_new()

        try:
            assert await new() == []
            there.add(1, 2, 3)
            assert await new() == ["1", "2", "3"]
            assert await new() == []
            there.add(4)
            assert await new() == ["4"]
            # Begun anew, with the latest of each: some numbers are missing, and some were read before.
            there.lines = []
            there.add(2, 7, 9)
            assert await new() == ["7", "9"]
            # Emptied, and told again; and of a database that was restored.
            there.lines = []
            assert await new() == []
            there.add(2, 7, 9)
            assert await new() == ["2", "7", "9"]
            there.lines = []
            there.add(1)
            assert await new() == ["1"]
            there.lines = [b"x"]
            with pytest.raises(UnreadableDirectoryError):
                await new()
        finally:
            await log.close()

    asyncio.run(run())


def test_a_long_list_is_read_by_pages_of_one_moment() -> None:
    async def run() -> None:
        there = List()
        log = QuotaCountLog(there.ask, Hub())
        try:
            there.add(*range(1, 5 * PAGE_LINES))
            whole = there.lines
            # Begun anew meanwhile, with the latest of each: about a page of them, and one.
            for replaced in (whole[::5], whole[-1:]):
                there.lines, there.replaced_by = whole, replaced
                with pytest.raises(UnreadableDirectoryError, match="read again"):
                    await log._fetch_new()
            there.lines = whole
            assert await log._fetch_new() == [str(seq) for seq in range(1, 5 * PAGE_LINES)]
            there.add(5 * PAGE_LINES)
            assert await log._fetch_new() == [str(5 * PAGE_LINES)]
            assert there.longest == PAGE_LINES + 1
        finally:
            await log.close()

    asyncio.run(run())
