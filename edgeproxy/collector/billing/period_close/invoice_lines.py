"""The lines of a period's invoice: its usage, late usage of earlier periods, and the next period's fee."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import invoiced_lines, invoices
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.meter_export.metered_segments import is_sum
from edgeproxy.collector.billing.period_close import quantities as usage
from edgeproxy.collector.billing.rating import periods, projection
from edgeproxy.collector.billing.rating.discounts import DiscountRater, rate_discounts
from edgeproxy.collector.billing.rating.rater import (
    DISCOUNT,
    FEES,
    LineKind,
    RatedLine,
    Segment,
    Span,
    UsageKey,
    UsageRater,
    rate_minimums,
    rate_segments,
    rate_usage,
    subtract_invoiced,
    sum_amounts,
)
from edgeproxy.collector.billing.subscriptions import changes, subscription_rows
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.read_once import compute_once, fetch_once
from edgeproxy.collector.ledger.projection import DAYS_MIN, list_days
from edgeproxy.config.meters import Meter

AMOUNT_MAX = 10**15
"""The largest amount of a line that can be stored, in cents: far more than any customer is charged."""
LATE_SECONDS_MAX = 366 * 86400
"""For how many seconds after a period its late usage is still invoiced."""

MINIMUM = "minimum fee"
"""The subject of a minimum fee's line. It cannot collide with a meter, because no meter name has a space."""
_SUBJECTS = {"minimum": MINIMUM, DISCOUNT: "a discount"}
"""Subjects of lines that have no meter and are not fees."""


class RatedInvoice(NamedTuple):
    """The lines of a period's invoice."""

    lines: list[RatedLine]
    """The lines to add to the lines invoiced before."""
    shadow: int
    """The expected sum of `lines` in cents: a single rating of all usage, less the amount invoiced before."""


class KnownUsage(NamedTuple):
    """The usage of segments and the lines already invoiced."""

    quantities: dict[UsageKey, int]
    before: list[RatedLine]
    """The invoiced lines of these quantities and of fees."""
    invoiced: list[RatedLine]
    """All lines of the subscription's invoices, including discounts."""
    settled: frozenset[Span]
    """The segments that are over and whose usage is complete."""


class ProjectedLines(NamedTuple):
    """The lines if usage continues to the end of the period as on the low and the high day of recent days."""

    days: int
    """The number of days that the projection is based on."""
    low: list[RatedLine] | None
    """The lines at the pace of the low day; None if there were too few days."""
    high: list[RatedLine] | None
    """The lines at the pace of the high day; None if there were too few days."""


class CostDay(NamedTuple):
    """The cost of the running period up to a time."""

    until: int
    """The Unix second: the end of a day of UTC, or now."""
    amount: int
    """The cost of the period until then, in the currency's smallest unit."""


class PeriodCosts(NamedTuple):
    """The cost of the running period by day, and projected to its end."""

    days: list[CostDay]
    """The days so far, in order of time. The last one has the cost as of now."""
    low: int | None
    """The cost of the whole period at the pace of the low day; None if there were too few days."""
    high: int | None
    """The cost of the whole period at the pace of the high day; None if there were too few days."""


class UpcomingInvoice(NamedTuple):
    """The lines of the next invoice."""

    lines: list[RatedLine]
    """The lines if no more usage is added."""
    projected: ProjectedLines | None
    """The lines projected to the end of the period; None if not requested."""


async def compute_period_lines(
    connection: AsyncConnection, row: InvoiceRow, meters: Mapping[str, Meter]
) -> RatedInvoice:
    """Return the lines of a period's invoice from all usage known now. `meters` are the configured meters.

    The fee is the next period's, because fees are paid in advance. Raises QuantityTooLargeError and
    UsageNotStoredError.
    """
    loaded = await subscription_rows.get_by_id(connection, row.subscription)
    segments = [segment for segment in loaded.current.segments if segment.span.start <= row.period_end]
    # A subscription that ended early has an invoice that closes early, and may continue in the same period.
    ended = [segment for segment in segments if segment.span.end <= min(row.period_end, row.closes_at)]
    is_accepted = row.accepted_why is not None
    known = await _fetch_usage(connection, loaded, segments, ended, row.period_start, meters, is_accepted=is_accepted)
    lines = _rate_lines(segments, known, row.period_start, is_accepted=is_accepted)
    if any(line.taken_off for line in known.before):
        shadow = sum_amounts(lines)  # A single rating of all usage does not know the amounts taken off.
    else:
        at_once = rate_segments(segments, known.quantities, settled=known.settled)
        shadow = sum_amounts(at_once) - sum_amounts(known.before)
    discounts = rate_discounts(lines, known.invoiced, loaded.current.segments, loaded.discounts)
    return RatedInvoice([*lines, *discounts], shadow + sum_amounts(discounts))


async def compute_running_usage(
    connection: AsyncConnection, loaded: LoadedSubscription, meters: Mapping[str, Meter]
) -> tuple[KnownUsage, list[RatedLine]]:
    """Return the lines of the running period's usage that is not invoiced yet, for meters that are sums.

    Raises QuantityTooLargeError and UsageNotStoredError.
    """
    known, lines = await _fetch_running_lines(connection, loaded, meters)
    return known, [line for line in lines if line.meter and is_sum(meters, line.meter)]


async def compute_running_cost(
    connection: AsyncConnection, loaded: LoadedSubscription, meters: Mapping[str, Meter]
) -> int:
    """Return the cost of the running period so far, before tax and without minimum fees.

    It adds the amounts still due on invoiced lines and the usage that is not invoiced yet. Raises QuantityTooLargeError
    and UsageNotStoredError.
    """
    known, lines = await _fetch_running_lines(connection, loaded, meters)
    return _RunningCosts(loaded, known.invoiced).compute(lines)


async def compute_period_costs(
    connection: AsyncConnection, loaded: LoadedSubscription, meters: Mapping[str, Meter], now: float
) -> PeriodCosts:
    """Return the cost of the running period by day of UTC, as `compute_running_cost` has it, and its projection.

    Raises QuantityTooLargeError and UsageNotStoredError.
    """
    current, minute = loaded.current, periods.floor_to_minute(now) + periods.MINUTE
    running = [segment for segment in current.segments if segment.period == current.period and not segment.is_trial]
    terms = usage.QuantityTerms(meters, current.anchor)
    daily = await usage.fetch_daily_sums(connection, loaded.customer.name, running, terms)
    end = min(minute, current.period.end)
    first = current.period.start // periods.DAY * periods.DAY + periods.DAY
    untils = range(first, end, periods.DAY)
    gauges = await usage.fetch_running_gauges(connection, loaded.customer.name, running, untils, terms)
    known, whole = await _fetch_running_lines(connection, loaded, meters)
    days = _sum_daily_costs(loaded, known, whole, running, untils, daily, gauges)
    costs = _RunningCosts(loaded, known.invoiced)
    days.append(CostDay(end, costs.compute(whole)))
    _, ends = await _project_usage(connection, loaded, known.quantities, meters, now)
    low, high = None, None
    if ends is not None:
        without_minimums = known._replace(settled=frozenset())
        projected = (
            _replace_last_usage(whole, (), current.segments, current.last, without_minimums, used) for used in ends
        )
        low, high = (costs.compute(lines) for lines in projected)
    return PeriodCosts(days, low, high)


def _sum_daily_costs(
    loaded: LoadedSubscription,
    known: KnownUsage,
    lines: Sequence[RatedLine],
    running: Sequence[Segment],
    untils: Sequence[int],
    daily: Mapping[int, Mapping[UsageKey, int]],
    gauges: Mapping[int, Mapping[UsageKey, int]],
) -> list[CostDay]:
    """Return the cost of the `running` segments until each of these Unix seconds, without what begins later.

    `lines` are those of the whole usage. Each segment is rated again for each of the seconds when it is the last one.
    """
    whole = _group_by_start(lines)
    before = _group_by_start(line for line in known.before if line.meter)
    rater, over, costs = UsageRater(), 0, _RunningCosts(loaded)
    used: dict[Span, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    waiting = deque(sorted(known.invoiced, key=lambda line: line.segment.start))
    days = []
    for until in untils:
        for key, quantity in daily.get(until - periods.DAY, {}).items():
            used[key.segment][key.meter][key.value] += quantity
        begun = sum(segment.span.start < until for segment in running)
        for segment in running[over : max(begun - 1, 0)]:
            rater.add(segment, used[segment.span])
            costs.add(whole[segment.span.start])
            over += 1
        while waiting and waiting[0].segment.start < until:
            costs.add_invoiced([waiting.popleft()])
        due: list[RatedLine] = []
        for segment in running[over:begun]:
            levels: dict[str, dict[str, int]] = defaultdict(dict)
            for key, quantity in gauges[until].items():
                levels[key.meter][key.value] = quantity
            rated = list(rater.rate(segment, {**used[segment.span], **levels}))
            due += (line for line in whole[segment.span.start] if not line.meter)
            due += subtract_invoiced(before[segment.span.start], rated)
        days.append(CostDay(until, costs.compute(due)))
    return days


def _group_by_start(lines: Iterable[RatedLine]) -> dict[int, list[RatedLine]]:
    """Return the lines by the start of their segments; segments without lines have none."""
    grouped: dict[int, list[RatedLine]] = defaultdict(list)
    for line in lines:
        grouped[line.segment.start].append(line)
    return grouped


class _RunningCosts:
    """The cost of the running period by lines that are added one after another.

    Minimum fees and their discounts are left out.
    """

    def __init__(self, loaded: LoadedSubscription, invoiced: Iterable[RatedLine] = ()) -> None:
        self._since = loaded.current.period.start
        self._discounts = DiscountRater(loaded.current.segments, loaded.discounts)
        self._amount = 0
        self.add_invoiced(invoiced)

    def add_invoiced(self, lines: Iterable[RatedLine]) -> None:
        """Add lines that are invoiced already."""
        lines = _leave_out_minimums(lines)
        self._discounts.add_invoiced(lines)
        self._amount += self._sum(lines)

    def add(self, lines: Iterable[RatedLine]) -> None:
        """Add lines that are not invoiced yet."""
        lines = _leave_out_minimums(lines)
        self._discounts.add(lines)
        self._amount += self._sum(lines)

    def compute(self, lines: Iterable[RatedLine]) -> int:
        """Return the cost of these lines and the added ones."""
        lines = _leave_out_minimums(lines)
        return self._amount + self._sum((*lines, *self._discounts.rate(lines)))

    def _sum(self, lines: Iterable[RatedLine]) -> int:
        """Return the sum of the amounts due of lines of the running period."""
        return sum(line.amount - line.taken_off for line in lines if line.segment.start >= self._since)


def _leave_out_minimums(lines: Iterable[RatedLine]) -> list[RatedLine]:
    """Return the lines that are no minimum fees."""
    return [line for line in lines if line.kind != "minimum"]


async def _fetch_running_lines(
    connection: AsyncConnection, loaded: LoadedSubscription, meters: Mapping[str, Meter]
) -> tuple[KnownUsage, list[RatedLine]]:
    """Return the usage of the running period, and its lines that are not invoiced yet. The calls of a page share it."""
    current = loaded.current
    running = [segment for segment in current.segments if segment.period == current.period]

    async def fetch() -> tuple[KnownUsage, list[RatedLine]]:
        known = await _fetch_usage(connection, loaded, current.segments, running, current.period.start, meters)
        return known, _rate_running_lines(loaded, known)

    return await fetch_once(("running lines", loaded.row.id), fetch)


def _rate_running_lines(loaded: LoadedSubscription, known: KnownUsage) -> list[RatedLine]:
    """Return the lines of the running period that are not invoiced yet, without minimum fees."""
    current = loaded.current
    starts = {segment.span.start for segment in current.segments if segment.period == current.period}
    lines = _rate_lines(current.segments, known._replace(settled=frozenset()), current.period.start)
    return [line for line in lines if line.segment.start in starts and line.kind != "minimum"]


async def compute_upcoming(
    connection: AsyncConnection, loaded: LoadedSubscription, meters: Mapping[str, Meter], now: float | None = None
) -> UpcomingInvoice:
    """Return the lines of a subscription's next invoice. With `now`, also project them to the end of the period.

    Raises QuantityTooLargeError and UsageNotStoredError.
    """
    current = loaded.current
    columns = invoices_table.c
    statement = sa.select(columns.period_start, columns.closes_at, columns.state).where(
        columns.customer == loaded.row.customer, columns.subscription == loaded.row.id
    )
    # A condition for the state would make SQLite read the drafts of all customers.
    waiting = [Span(*span) for *span, state in await connection.execute(statement) if state == invoices.DRAFT]
    ended = [
        segment for segment in current.segments if not _is_on_waiting_invoice(segment, waiting, current.period.start)
    ]
    segments = list(current.segments)
    next_segment = changes.next_segment(current, loaded.plans)
    if next_segment is not None:
        # A suspended fee stays suspended until all invoices are paid.
        segments.append(next_segment._replace(is_resting=next_segment.is_resting or current.last.is_resting))
    known = await _fetch_usage(connection, loaded, segments, ended, current.period.start, meters)

    def compute_due(lines: Sequence[RatedLine]) -> list[RatedLine]:
        # Fees of this period that are not invoiced yet belong to the invoice that waits to be closed.
        on_waiting = [
            line for line in lines if waiting and line.kind in FEES and line.segment.start < current.period.end
        ]
        earlier = [*known.invoiced, *on_waiting]
        if waiting:
            earlier += rate_discounts(on_waiting, known.invoiced, segments, loaded.discounts)
        due = [line for line in lines if line not in on_waiting]
        return [*due, *rate_discounts(due, earlier, segments, loaded.discounts)]

    used_so_far = _rate_usage(segments, known)
    lines = _rate_lines(segments, known, current.period.start, used_so_far)
    projected = None
    if now is not None:
        days, ends = await _project_usage(connection, loaded, known.quantities, meters, now)
        low, high = None, None
        if ends is not None:
            ahead = (_replace_last_usage(lines, used_so_far, segments, current.last, known, used) for used in ends)
            low, high = (compute_due(lines_ahead) for lines_ahead in ahead)
        projected = ProjectedLines(days, low, high)
    return UpcomingInvoice(compute_due(lines), projected)


def _replace_last_usage(
    lines: Sequence[RatedLine],
    used: Sequence[RatedLine],
    segments: Sequence[Segment],
    last: Segment,
    known: KnownUsage,
    quantities: Mapping[UsageKey, int],
) -> list[RatedLine]:
    """Return `lines` with the usage of the `last` segment by other quantities, and the minimum fees by all usage.

    A projection changes no earlier segment, so these are not rated again: `used` are their usage lines.
    """
    start = last.span.start

    def is_replaced(line: RatedLine) -> bool:
        return line.kind == "minimum" or (bool(line.meter) and line.segment.start == start)

    before = [line for line in known.before if is_replaced(line)]
    of_last = rate_usage(segments, quantities, start)
    used = [*(line for line in used if line.segment.start != start), *of_last]
    minimums = rate_minimums(segments, used, known.settled)
    replaced = subtract_invoiced(before, [*of_last, *minimums])
    return [*(line for line in lines if not is_replaced(line)), *_check_lines(replaced, start)]


async def _project_usage(
    connection: AsyncConnection,
    loaded: LoadedSubscription,
    used: Mapping[UsageKey, int],
    meters: Mapping[str, Meter],
    now: float,
) -> tuple[int, tuple[dict[UsageKey, int], dict[UsageKey, int]] | None]:
    """Return the number of days that a projection is based on, and the low and high quantities at the period's end.

    The quantities are None if there are too few days.
    """
    minute = periods.floor_to_minute(now) + periods.MINUTE
    spans = list_days(minute, periods.floor_to_minute(loaded.customer.created_at / 1000))
    if len(spans) < DAYS_MIN:
        return len(spans), None
    # Two calls of one page share the days, whose end is that of a minute.
    of_days = await fetch_once(
        (_fetch_days, loaded.row.id, loaded.current.last.version, *spans),
        partial(_fetch_days, connection, loaded, meters, [Span(*span) for span in spans]),
    )
    return len(spans), projection.project_usage(used, of_days, minute, loaded.current.last.span)


async def _fetch_days(
    connection: AsyncConnection, loaded: LoadedSubscription, meters: Mapping[str, Meter], days: Sequence[Span]
) -> list[dict[UsageKey, int]]:
    """Return the usage of the plan's meters that are sums on each of these days.

    Levels are held to the end of the period without a projection, and the future of unique counts is unknown.
    """
    last = loaded.current.last
    sums = {meter: price for meter, price in last.plan.meters.items() if is_sum(meters, meter)}
    plan = last.plan.model_copy(update={"meters": sums})
    recent = [last._replace(plan=plan, span=day) for day in days]
    terms = usage.QuantityTerms(meters, loaded.current.anchor)
    quantities = await usage.fetch_segment_quantities(connection, loaded.customer.name, recent, recent, terms)
    return [quantities[day] for day in days]


def _is_on_waiting_invoice(segment: Segment, waiting: Sequence[Span], current: int) -> bool:
    """Return whether an ended segment belongs to an invoice that waits to be closed.

    `waiting` are spans from the start of an invoice's period until it closes. A subscription that ended within its
    `current` period and continues in it has such an invoice for that period.
    """
    return any(
        start <= segment.span.start < current or (start == current and segment.span.end <= closes_at)
        for start, closes_at in waiting
    )


async def _fetch_usage(
    connection: AsyncConnection,
    loaded: LoadedSubscription,
    segments: Sequence[Segment],
    ended: Sequence[Segment],
    period_start: int,
    meters: Mapping[str, Meter],
    *,
    is_accepted: bool = False,
) -> KnownUsage:
    """Return the usage of the `ended` segments, and the invoiced lines of them and of all `segments`.

    Usage that cannot be billed raises an error on the first invoice that includes it, unless a person has accepted that
    invoice. Later invoices do not change the invoiced lines.
    """
    invoiced = await fetch_once(
        ("invoiced lines", loaded.row.id),
        lambda: invoiced_lines.fetch_lines_of_subscription(connection, loaded.row.id),
    )
    quantities: dict[UsageKey, int] = {}
    known: set[Span] = set()
    terms = usage.QuantityTerms(meters, loaded.current.anchor)
    ended = [
        segment for segment in ended if not segment.is_trial and segment.span.start >= period_start - LATE_SECONDS_MAX
    ]
    # Unstored usage of an earlier period is left out: it was invoiced.
    left_out = [segment.span for segment in ended if is_accepted or segment.span.end <= period_start]
    by_segment = await usage.fetch_segment_quantities(
        connection, loaded.customer.name, segments, ended, terms, left_out=left_out
    )
    for segment in (segment for segment in ended if segment.span in by_segment):
        used = by_segment[segment.span]
        quantities |= used
        counted = {key.meter for key in used}
        if all(meter in counted or not is_sum(meters, meter) for meter in segment.plan.meters):
            known.add(segment.span)
    incomplete = {segment.period for segment in segments if segment.span not in known}
    settled = frozenset(segment.span for segment in segments if segment.period not in incomplete)
    # A change after the end of the period was invoiced at once. Its fees belong to a segment outside this invoice.
    rated = {("", segment.span.start) for segment in segments}
    rated |= {(key.meter, key.segment.start) for key in quantities} | {(MINIMUM, span.start) for span in settled}
    return KnownUsage(quantities, [line for line in invoiced if _get_subject(line) in rated], invoiced, settled)


def _get_subject(line: RatedLine) -> tuple[str, int]:
    """Return the subject of a line and the start of its segment.

    The subject is a meter, a minimum fee, a discount, or empty for a fee.
    """
    return line.meter or _SUBJECTS.get(line.kind, ""), line.segment.start


def _rate_lines(
    segments: Sequence[Segment],
    known: KnownUsage,
    period_start: int,
    used: Sequence[RatedLine] | None = None,
    *,
    is_accepted: bool = False,
) -> list[RatedLine]:
    """Return the lines to add to the invoiced ones: fees of all `segments`, usage, and minimum fees.

    `used` are the usage lines of all segments, if they are known.
    """
    used = _rate_usage(segments, known) if used is None else used
    rated = rate_segments(segments, known.quantities, known.before, settled=known.settled, used=used)
    return _check_lines(rated, period_start, is_accepted=is_accepted)


def _rate_usage(segments: Sequence[Segment], known: KnownUsage) -> list[RatedLine]:
    """Return the usage lines of segments. The upcoming invoice and the cost of the period share them on a page."""
    spans = {key.segment for key in known.quantities}
    of_usage = tuple(
        (segment.version, segment.span, segment.period, segment.is_trial)
        for segment in segments
        if segment.span in spans
    )
    return compute_once(
        ("usage lines", of_usage, frozenset(known.quantities.items())),
        partial(rate_usage, segments, known.quantities),
    )


def _check_lines(rated: Iterable[RatedLine], period_start: int, *, is_accepted: bool = False) -> list[RatedLine]:
    """Return the lines that can be charged, with `late` usage of earlier periods. Raises QuantityTooLargeError."""
    lines = []
    for line in rated:
        if abs(line.amount) <= AMOUNT_MAX:
            lines.append(line)
        elif line.segment.end > period_start and not is_accepted:
            raise usage.QuantityTooLargeError(f"{line.quantity} of {line.meter} come to more than can be charged")
    # A threshold invoice of the same period does not make the rest of its usage late.
    kinds: dict[bool, LineKind] = {True: "late", False: "usage"}
    of_usage = ((line, kinds[line.segment.end <= period_start]) for line in lines)
    return [line._replace(kind=kind) if line.meter and line.kind != kind else line for line, kind in of_usage]
