"""The sums of other residencies, as answered by their collectors. Each is queried separately and is not trusted.

Only numbers are passed on, for names that are known here: meters of this collector's file, regions of its own edges,
and currencies. All other numbers are summed up without a name.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Final, Literal, cast

import aiohttp
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from edgeproxy import __version__
from edgeproxy.base.http_peer import HttpPeer, open_session
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.base.trust import create_context
from edgeproxy.collector.residency.aggregates import Aggregates
from edgeproxy.config.collector.currency_units import Currency
from edgeproxy.config.collector.residencies import OtherResidency

PATH: Final = "/v1/residency/aggregates"
FRESH_SECONDS: Final = 60.0
"""Seconds of caching for an answer."""
BYTES_MAX: Final = 64 << 10
PEER: Final = HttpPeer("the residency", 5.0, BYTES_MAX)
ROWS_MAX: Final = 500
NUMBER_MAX: Final = 1 << 53
OTHER: Final = ""
"""The name for all names that are unknown here."""

PeerState = Literal["ok", "away", "refused", "unreadable"]
Count = Annotated[int, Field(strict=True, ge=0, le=NUMBER_MAX)]
Number = Annotated[int, Field(strict=True, ge=-NUMBER_MAX, le=NUMBER_MAX)]
Label = Annotated[str, Field(strict=True, max_length=255)]


class _Answer(BaseModel):
    """Part of an answer. Fields of later versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Traffic(_Answer):
    region: Label
    requests: Count
    limited: Count
    failed: Count


class _Usage(_Answer):
    meter: Label
    units: Number


class _Payments(_Answer):
    currency: Currency
    amount: Number


class _Alerts(_Answer):
    severity: Literal["page", "warn", "info"]
    alerts: Count


class _Aggregates(_Answer):
    residency: Label
    since: AwareDatetime
    until: AwareDatetime
    customers: Count
    left_out: Count
    traffic: Annotated[tuple[_Traffic, ...], Field(max_length=ROWS_MAX)]
    usage: Annotated[tuple[_Usage, ...], Field(max_length=ROWS_MAX)]
    payments: Annotated[tuple[_Payments, ...], Field(max_length=ROWS_MAX)]
    alerts: Annotated[tuple[_Alerts, ...], Field(max_length=3)]


class ResidencyStatus(TypedDict):
    """A residency, and its sums if they are available."""

    residency: str
    """The residency."""
    state: PeerState
    """`ok`; `away`: it did not answer in time; `refused`: it did not accept the token; `unreadable`: its answer cannot
    be read, or it is not trusted.
    """
    as_of: str
    """The time when the residency was asked."""
    aggregates: Aggregates | None
    """The sums of the residency; null if there are none. A name that is unknown here is shown as an empty text."""


class ResidencyList(TypedDict):
    """All residencies: this one, and those in the file."""

    residencies: list[ResidencyStatus]
    """The residencies, this one first."""


class UnreadableError(Exception):
    """An answer is not in a collector's format."""


class PeerReader:
    """Queries the other residencies, each at most once per FRESH_SECONDS."""

    def __init__(self, settings: Mapping[str, OtherResidency], clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._answers: dict[str, tuple[float, ResidencyStatus]] = {}
        self._locks = {name: asyncio.Lock() for name in settings}

    async def fetch_all(self, meters: Collection[str], regions: Collection[str]) -> list[ResidencyStatus]:
        """Return the state of each residency, with sums of residencies that answer.

        Names that are neither in `meters` nor in `regions` are not passed on.
        """
        statuses = await asyncio.gather(*(self._fetch(name) for name in self._settings))
        return [_hide_names(status, meters, regions) for status in statuses]

    async def _fetch(self, name: str) -> ResidencyStatus:
        async with self._locks[name]:  # Concurrent page views share one query.
            at, status = self._answers.get(name, (-FRESH_SECONDS, None))
            if status is None or self._clock() - at >= FRESH_SECONDS:
                status = await fetch_status(name, self._settings[name])
                self._answers[name] = self._clock(), status
            return status


async def fetch_status(name: str, settings: OtherResidency) -> ResidencyStatus:
    """Fetch the sums of a residency, within the bounds of PEER."""
    as_of = format_timestamp(int(time.time() * 1000))
    state: PeerState
    aggregates = None
    try:
        status, body = await _ask(settings)
        if status in (401, 403):
            state = "refused"
        else:
            aggregates, state = _parse(name, status, body), "ok"
    except (UnreadableError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError, ValueError):
        state = "unreadable"  # Includes invalid HTTP and untrusted certificates.
    except (aiohttp.ClientError, OSError, TimeoutError):
        state = "away"
    return {"residency": name, "state": state, "as_of": as_of, "aggregates": aggregates}


async def _ask(settings: OtherResidency) -> tuple[int, bytes]:
    """Return the status and body of an answer. Raises UnreadableError if it is too long or encoded."""
    fields = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"edgeproxy/{__version__}",
        **({} if settings.token is None else {"Authorization": f"Bearer {settings.token}"}),
    }
    trusted = await asyncio.to_thread(create_context, settings.ca)
    async with (
        open_session(PEER, auto_decompress=False) as session,
        session.get(f"{settings.url}{PATH}", headers=fields, ssl=trusted, allow_redirects=False) as response,
    ):
        if "Content-Encoding" in response.headers:
            raise UnreadableError
        return response.status, await response.read()


def _parse(name: str, status: int, body: bytes) -> Aggregates:
    """Parse the sums of an answer. Raises UnreadableError."""
    try:
        parsed = _Aggregates.model_validate_json(body)
    except ValidationError:
        raise UnreadableError from None
    if status != 200 or parsed.residency != name:
        raise UnreadableError
    times = {field: format_timestamp(int(getattr(parsed, field).timestamp() * 1000)) for field in ("since", "until")}
    return cast(Aggregates, parsed.model_dump() | times)


def _hide_names(status: ResidencyStatus, meters: Collection[str], regions: Collection[str]) -> ResidencyStatus:
    """Return a status without unknown names."""
    aggregates = status["aggregates"]
    if aggregates is None:
        return status
    hidden: Aggregates = {
        **aggregates,
        "traffic": _sum_unknown(aggregates["traffic"], "region", regions),  # type: ignore[typeddict-item]
        "usage": _sum_unknown(aggregates["usage"], "meter", meters),  # type: ignore[typeddict-item]
    }
    return {**status, "aggregates": hidden}


def _sum_unknown(rows: Iterable[Mapping[str, object]], name: str, known: Collection[str]) -> list[dict[str, object]]:
    """Return the rows with known names in their order, followed by the sum of all others."""
    shown: dict[str, dict[str, object]] = {}
    for row in rows:
        key = str(row[name]) if row[name] in known else OTHER
        total = shown.setdefault(key, {name: key})
        for field, value in row.items():
            if field != name:
                total[field] = int(str(total.get(field, 0))) + int(str(value))
    return [shown[key] for key in sorted(shown, key=lambda key: (key == OTHER, key))]
