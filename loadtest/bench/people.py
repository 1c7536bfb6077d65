"""The customers, keys and limits with which every peer that does the job is set up alike."""

from dataclasses import dataclass
from hashlib import sha256

REGION = "bench"
ADDRESS_RATE = 100_000_000
"""The coarse limit per address, requests a second: always charged, never reached."""


@dataclass(frozen=True)
class Customer:
    """One customer with one key, and the tier's limits: requests a minute, and requests at once."""

    name: str
    tier: str
    key: str
    limit: int
    at_once: int = 100_000

    @property
    def key_sha256(self) -> str:
        return sha256(self.key.encode()).hexdigest()


ACME = Customer("acme", "enterprise", "ek_bench_acme_5d0a7c41e9b26f38", 100_000_000)
TINY = Customer("tiny", "basic", "ek_bench_tiny_c83e1f6097d54ba2", 60)
FEW = Customer("few", "narrow", "ek_bench_few_17b9d40e8a6c52f3", 100_000_000, at_once=2)
"""For the check that peers hold requests at once; of those that are measured none reaches that limit."""
CUSTOMERS = (ACME, TINY, FEW)
ROUTES = ("v1", "v2", "export")
"""Each a path prefix of that name; the scenarios use the first."""
