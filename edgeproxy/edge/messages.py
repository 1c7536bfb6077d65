"""Every message between processes of an edge: between a supervisor and its workers, and between two supervisors of one
state directory. channel.py says how messages travel.

Each type below is a message. The unions ToWorker, ToSupervisor, ToLeader and FromLeader tell each message's sender. If
a handler ends in `assert_never`, mypy reports each message that it forgets.

Versions: a supervisor starts its workers, so a worker always has its supervisor's version. Their messages are msgpack,
and may be changed in any way. Two supervisors of one state directory may be of different versions, while one takes over
from the other. Their messages are JSON. In ToLeader and FromLeader, and in all that they hold, `type` and the present
fields must stay, in their order. New fields come last and have defaults: an older version ignores them. It also
ignores a message of unknown type (edge/sync/leader.py). So an older version must be able to do without a new message.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias, TypeVar

from msgspec import Struct, json, msgpack

from edgeproxy.base.allocator import return_freed_memory
from edgeproxy.base.sealed_memory import SealedMemory
from edgeproxy.config.directory import KeyOwner
from edgeproxy.edge.channel import Codec, Frame
from edgeproxy.edge.limits.rate_terms import Mode, RateTerms

# ---- the parts of messages


class EndpointAddresses(Struct, frozen=True):
    """All addresses of one endpoint of an upstream, and its healthy addresses (`up`)."""

    addresses: list[str]
    up: list[str]


Services: TypeAlias = dict[str, list[EndpointAddresses]]
"""The endpoints of each upstream, by its name, in configured order."""


class LimitRow(Struct, array_like=True, frozen=True, gc=False):
    """A row of a table of limits: of the table's file generation `file`, and valid while the row is of this
    `generation`.
    """

    table: str
    file: int
    row: int
    generation: int


class RateUse(LimitRow, array_like=True, frozen=True, gc=False):
    """A row of a rate is in use, under these `terms`. `refused`: a request was refused since the last such message."""

    limit: int
    span: float
    cells: int
    depth: int
    rate: float
    mode: Mode
    refused: bool

    @classmethod
    def from_terms(cls, table: str, file: int, row: int, generation: int, terms: RateTerms, refused: bool) -> "RateUse":
        """Return the use of a row that is held to these terms."""
        limit, span, cells, depth, rate, mode = terms
        return cls(table, file, row, generation, limit, span, cells, depth, rate, mode, refused)

    @property
    def terms(self) -> RateTerms:
        """Return the terms of the row: one object for all rows with equal terms."""
        return _terms(self.limit, self.span, self.cells, self.depth, self.rate, self.mode)


_terms = lru_cache(maxsize=1024)(RateTerms)


class TotalUse(LimitRow, array_like=True, frozen=True, gc=False):
    """The row of a quota, or of requests at once, is in use. `limit` is the most that it allows."""

    limit: int


LimitUse: TypeAlias = RateUse | TotalUse


class Message(Struct, tag_field="type", tag=True):
    """A message of one of the types below."""


# ---- from a supervisor to a worker


class Start(Message):
    """The settings to serve; sent once, first.

    `settings` come from share_settings; `state` and `tables_dir` are the paths of the tables. `token` identifies the
    supervisor in the control file. A worker that loses it serves on for `orphan_deadline` seconds.
    """

    number: int
    settings: bytes
    state: str
    tables_dir: str | None
    token: int
    orphan_deadline: float


class SetEndpoints(Message, tag="Endpoints"):
    """All addresses of the upstreams of a configuration, which is served or prepared."""

    number: int
    services: Services


class Prepare(Message):
    """Make ready to serve this configuration instead, and go on as before; answered by Prepared or PrepareFailed."""

    number: int
    settings: bytes
    services: Services


class Commit(Message):
    """Serve the configuration with this number from now on, if it was prepared; answered by Committed."""

    number: int


class Discard(Message):
    """The configuration with this number is not needed."""

    number: int


class LoadCertificates(Message):
    """Files of certificates have changed. They can be used, and must be loaded anew."""


class Drain(Message):
    """Finish within this many seconds, and leave."""

    deadline: float


class HubAnswered(Message, tag="heard"):
    """Answers of the hub are in the tables, or it was lost or reached: each request that waits for it looks again."""


class ClaimsUnused(Message, tag="unused"):
    """The claims of these rows were not used for a while, and must be given back."""

    rows: list[LimitRow]


class KeysLookedUp(Message):
    """The answer to LookUpKeys.

    It has each key once, by its digest; a key is in `untold` if its owner cannot be told now.
    """

    known: dict[bytes, KeyOwner]
    unknown: list[bytes]
    untold: list[bytes]
    generation: int = 0
    """The generation of the last ForgetCustomers before this look-up."""


class ForgetCustomers(Message):
    """Cached keys of these customers are void; None: all cached keys. Each message has a later generation."""

    names: list[str] | None
    generation: int = 0


class IssuerKeys(Message):
    """The public keys of each issuer of tokens, by its name, as a JWK Set: the whole truth each time."""

    keys: dict[str, str]


class AcmeChallenges(Message):
    """The pending challenges of an authority (RFC 8555 section 8): the whole truth each time.

    `tokens` has the content for each token over HTTP; `certificates` the file with certificate and key for each name in
    a handshake (RFC 8737). Answered by ChallengesServed with `number`.
    """

    tokens: dict[str, str]
    certificates: dict[str, str]
    number: int = 0


class DirectoryValid(Message):
    """Cached keys of this residency (empty: the edge's own) are valid until this edge time; None: forever."""

    until: float | None
    residency: str = ""


class DirectoryFlags(Message):
    """The flags of the directory of this residency, in JSON, by name: the whole truth each time."""

    flags: dict[str, str]
    residency: str = ""


# ---- from a worker to its supervisor


class Ready(Message):
    """The worker serves and holds this table column."""

    column: int


class Failed(Message):
    """The worker cannot serve, and exits. `crowded`: no column left."""

    why: str
    crowded: bool = False


class Alive(Message):
    """The loop runs; sent every second."""


class Prepared(Message):
    """Configuration `number` can be served."""

    number: int


class PrepareFailed(Message):
    """Configuration `number` cannot be served. `lacks_memory`: the memory that belongs to it could not be received."""

    number: int
    why: str
    lacks_memory: bool = False


class Committed(Message):
    """Configuration `number` is served."""

    number: int


class ChallengesServed(Message):
    """The worker answers the challenges with this number, or `why` has the reason that it cannot."""

    number: int
    why: str = ""


class LimitsUsed(Message, tag="uses"):
    """Rows of limits that hosts share are used; requests may wait for claims of them."""

    rates: list[RateUse]
    totals: list[TotalUse]

    def __iter__(self) -> Iterator[LimitUse]:
        yield from self.rates
        yield from self.totals


class LookUpKeys(Message):
    """Look up the owners of keys by digest. Answered by KeysLookedUp."""

    digests: list[bytes]


class FetchIssuerKeys(Message):
    """A token of this issuer, by its name, says that it is signed with a key that is not known: fetch the keys soon."""

    issuer: str


class SpansEnded(Message):
    """Encoded spans (for OTLP) of requests that are over, and their count.

    `dropped` counts the spans beyond the bound.
    """

    spans: bytes
    count: int
    dropped: int


class ErrorsCounted(Message):
    """Errors of customers since the message before: customer, route, status, answering side, and count.

    `unnamed`: the count of further errors, without names.
    """

    errors: list[tuple[str, str, int, str, int]]
    unnamed: int


# ---- the messages of each sender

ToWorker: TypeAlias = (
    Start
    | SetEndpoints
    | Prepare
    | Commit
    | Discard
    | LoadCertificates
    | Drain
    | HubAnswered
    | ClaimsUnused
    | KeysLookedUp
    | ForgetCustomers
    | DirectoryValid
    | DirectoryFlags
    | IssuerKeys
    | AcmeChallenges
)
ToSupervisor: TypeAlias = (
    Ready
    | Failed
    | Alive
    | Prepared
    | PrepareFailed
    | Committed
    | ChallengesServed
    | LimitsUsed
    | LookUpKeys
    | FetchIssuerKeys
    | SpansEnded
    | ErrorsCounted
)
ToLeader: TypeAlias = LimitsUsed
"""Messages to the supervisor that speaks for others' workers too."""
FromLeader: TypeAlias = HubAnswered | ClaimsUnused

_to_worker: msgpack.Decoder[ToWorker] = msgpack.Decoder(ToWorker)
_to_supervisor: msgpack.Decoder[ToSupervisor] = msgpack.Decoder(ToSupervisor)
_to_leader: json.Decoder[ToLeader] = json.Decoder(ToLeader)
_from_leader: json.Decoder[FromLeader] = json.Decoder(FromLeader)

_json = json.Encoder()
# The ends of a channel, by the process at each.
SUPERVISOR: Codec[ToWorker, ToSupervisor] = Codec(msgpack.Encoder().encode, _to_supervisor.decode)
WORKER: Codec[ToSupervisor, ToWorker] = Codec(msgpack.Encoder().encode, _to_worker.decode)
LEADER: Codec[FromLeader, ToLeader] = Codec(_json.encode, _to_leader.decode)
FOLLOWER: Codec[ToLeader, FromLeader] = Codec(_json.encode, _from_leader.decode)

M = TypeVar("M", bound=ToWorker)


def pack_for_workers(message: M, memory: SealedMemory | None = None) -> Frame[M]:
    """Return the frame of a message, made once for all workers that get it, and the `memory` that they get before it.
    The message may be large, as are its parts.
    """
    frame = Frame(type(message), SUPERVISOR.pack(message).data, memory)
    return_freed_memory()
    return frame
