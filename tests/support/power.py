"""A disk whose host loses power: synced data survives, and of other data at most a part."""

import os
import random
from pathlib import Path

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.usage.segment import Disk
from loadtest.testbed.sealing import Killed


class Memory(Disk):
    """The spool's disk: it holds all synced data, and at most a part of the data under way."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.acts = 0
        self.has: dict[str, bytes] = {}

    def act(self) -> None:
        self.acts -= 1
        if self.acts == 0:
            raise Killed

    def write(self, fd: int, data: bytes, offset: int) -> None:
        self.act()
        super().write(fd, data, offset)
        self.act()

    def sync(self, fd: int) -> None:
        self.act()
        path = os.readlink(f"/proc/self/fd/{fd}")
        self.has[path] = Path(path).read_bytes()
        self.act()

    def lose(self) -> None:
        for path, has in self.has.items():
            rest = Path(path).read_bytes()[len(has) :]
            if not rest:
                continue
            part = rest[: self.chance.randrange(len(rest) + 1)]
            # The size may reach the disk before the content.
            junk = self.chance.choice((b"", bytes(len(rest) - len(part)), self.chance.randbytes(20)))
            Path(path).write_bytes(has + part + junk)


class Pages:
    """The states that the disk may hold of each page of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.moments = [path.read_bytes()]

    def moment(self) -> None:
        self.moments.append(self.path.read_bytes())

    def synced(self) -> None:
        self.moments = [self.path.read_bytes()]

    def lose(self, chance: random.Random) -> None:
        pages = range(0, len(self.moments[-1]), at.PAGE)
        self.path.write_bytes(b"".join([chance.choice(self.moments)[page : page + at.PAGE] for page in pages]))
