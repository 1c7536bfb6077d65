"""The rule of one limit: its terms, its letter in a row's key, its RateLimit text."""

from dataclasses import dataclass, field
from hashlib import blake2b

from edgeproxy.config.algorithms import WINDOWS
from edgeproxy.edge.limits.kinds import KINDS, Kind

SCOPES = {
    "customer": b"c",
    "key": b"k",
    "ip": b"i",
    "route": b"r",
    "customer_route": b"x",
    "spending": b"m",
    "guard": b"g",
    "connection": b"n",
    "rule": b"u",
    "end_user": b"e",
}
"""The scopes that a limit can count by, and the letter of each in a row's key.

Scopes from `guard` to `rule` are by address: the coarse limit, connections, and requests that match a rule. `end_user`
is within another scope.
"""

REQUESTS_BYTES = 8
"""Bytes of the digest, in a row's key, of the requests that a limit applies to."""

MODES = {"enforce": b"e", "shadow": b"s"}


@dataclass(frozen=True)
class Rule:
    """A limit of `limit` (a count, ≥ 1) per `window` (seconds); for `concurrency`, at once, with a window of 0.

    `depth` (≥ 1) is the depth of a bucket, which refills `limit` per `window`; it applies to buckets only.

    `name` is a label (letters, digits, `_`, `-`). Scope, window, algorithm, mode, the requests and the subject identify
    a limit. So a limit that is renamed, or whose count changes, keeps its usage. Another window starts at zero, and so
    does a limit of other requests. A window shorter than 280 ms (130 ms by address) is enforced as if it were that
    long.
    """

    name: str
    limit: int
    window: float
    scope: str = "customer"
    algorithm: str = "sliding_window"
    mode: str = "enforce"
    depth: int = 0
    of: str = ""
    """The meter whose units are counted; empty for requests and their costs."""
    requests: str = ""
    """The requests that it applies to, by routes and scopes, as text; empty for all. Limits of other requests have
    other rows.
    """
    prefix: bytes = field(init=False, repr=False, compare=False)
    """The RateLimit lines up to the number that is left: draft-ietf-httpapi-ratelimit-headers-10."""
    stem: bytes = field(init=False, repr=False, compare=False)
    """The beginning of the keys of all rows under this rule."""

    def __post_init__(self) -> None:
        rate = self.kind.rate
        if self.limit < 1 or (rate and (self.window <= 0 or (rate.has_bucket and self.depth < 1))):
            raise ValueError(f"{self.name}: a limit of {self.limit} in {self.window} s lets nothing through")
        name = self.name.encode()
        # The field's window is in whole seconds.
        seconds = max(1, -int(-self.window // 1))
        prefix = b'RateLimit-Policy: "%b";q=%d;w=%d\r\nRateLimit: "%b";r=' % (name, self.limit, seconds, name)
        letters = SCOPES[self.scope] + self.kind.letter + MODES[self.mode]
        object.__setattr__(self, "prefix", prefix)
        stem = b"%b%d" % (letters, round(self.window * 1_000_000))
        if self.requests:
            digest = blake2b(self.requests.encode(), digest_size=REQUESTS_BYTES)
            stem = b"%b@%b" % (stem, digest.hexdigest().encode())
        stem = b"%b;%b\0" % (stem, self.of.encode()) if self.of else stem + b":"
        object.__setattr__(self, "stem", stem)

    @property
    def kind(self) -> Kind:
        """The kind of its algorithm."""
        return KINDS[self.algorithm]

    @property
    def most(self) -> int:
        """The highest cost that passes at once while nothing is used."""
        rate = self.kind.rate
        if rate is None or not rate.has_bucket:
            return self.limit
        return min(self.limit, self.depth) if self.algorithm in WINDOWS else self.depth

    def key(self, subject: bytes) -> bytes:
        """Return the key of the row that counts `subject` (a customer's name, an address, …) under this rule."""
        return self.stem + subject
