"""A process that closes invoices, as long as it lives: for tests that kill it."""

import asyncio
import sys
from pathlib import Path

from tests.support.sold import sold

STEP_SECONDS = 3601
"""By which its clock goes on from step to step: what was put off is tried again."""


async def close(folder: Path, url: str, stripe: str, now: int) -> None:
    """Close for ever, from this Unix second on."""
    async with sold(folder, url, stripe) as (_, closing):
        print("closing", flush=True)
        while True:
            await closing.step(now)
            now += STEP_SECONDS


if __name__ == "__main__":
    asyncio.run(close(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
