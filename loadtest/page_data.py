"""Data of a service with many customers after some months, for the measurement of its pages (pages.py).

The database creates all of it from a table of numbers. Every customer has two series, one of them by model, a key
and a contact. Every tenth customer pays for a plan, every third has a spending cap, every thousandth of them owes an
invoice, and every hundredth is refused now and then. Every customer has two entries in the audit log and an alert. 300
edges have shipped 300,000 batches, and Stripe has sent a million events. Texts that no page reads (hashes, secrets) are
short.

Three more customers have very much of something (`EXTREMES`), as an attacker would. They have usage of the running
month alone: their pages are slowest at its end.
"""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import asyncpg

from edgeproxy.collector.database.ownership import CREATE_PARTITION
from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE
from edgeproxy.collector.pages.sessions import compute_digest

MODELS, REGIONS, EDGES, BATCHES = 5, 10, 300, 1000
PAYING, REFUSED, ACTIVE = 10, 100, 10
"""One in this many customers pays, is refused, or has usage in the last hour."""
MONTHS = 4
"""Months with invoices."""
DAYS = 30
"""Days with hourly rows."""
SESSIONS = 20
"""The number of signed-in operators, and of customers; `secret_of` returns their cookies."""
EXTREMES = ("keys", "segments", "name")
"""Three customers, each with SESSIONS sessions. One has KEYS keys with a budget, of which USED_KEYS are used and work.
One has SEGMENTS plan changes in this month and an invoice of LINES lines. One has a name of NAME_CHARACTERS characters.
"""
KEYS, USED_KEYS, SEGMENTS, LINES, NAME_CHARACTERS = 10_000, 1000, 200, 1000, 400
PLAN, OTHER_PLAN = "standard@1", "enterprise@1"
BY_KEY = "api_calls"
"""The priced meter that is counted by key."""
FEE = 9900
PER_CENT = 10_000
"""Millicredits of a cent."""


def name_of(number: int) -> str:
    """Return the name of a customer."""
    return f"c{10_000_000 + number}"


def secret_of(who: str, number: int) -> str:
    """Return the session cookie with this number of an `operator`, a `customer`, or a customer of EXTREMES."""
    return f"{who}-{number}"


def customer_of(number: int, customers: int) -> int:
    """Return the customer of the session with this number; all of them pay."""
    return number * customers // SESSIONS // PAYING * PAYING


def extreme_of(which: str, customers: int) -> int:
    """Return the number of a customer of EXTREMES; all of them pay."""
    return customers // PAYING * PAYING - PAYING * (1 + EXTREMES.index(which))


def invoice_of(number: int) -> str:
    """Return the id of the last invoice of a paying customer."""
    return f"018f0000-0000-7000-a{MONTHS - 1:03}-{100_000_000_000 + number}"


def key_of_many() -> str:
    """Return the id of a key of the customer with many keys."""
    return f"018f0000-0000-7000-9000-{100_000_000_000}"


def fill(url: str, customers: int, rows: int) -> int:
    """Fill the tables of a collector; return the number of hours in the ledger."""
    now = int(time.time())
    kinds = [list(kind(customers, now)) for kind in (accounts, business, upkeep, history, sign_ins, extremes)]
    if url.startswith("sqlite"):
        return _sqlite(Path(url.removeprefix("sqlite:///")), customers, rows, now, kinds)
    return asyncio.run(_postgresql(url, customers, rows, now, kinds))


# ---- what both databases understand

ID = "'018f0000-0000-7000-8000-' || (100000000000 + n)"
NAME = "'c' || (10000000 + n)"
ZEROS = "'" + "0" * 64 + "'"
KEY_HASH = "'" + "0" * 56 + "' || (10000000 + n)"


def accounts(customers: int, now: int) -> Iterator[str]:
    """Yield statements for customers, keys, contacts and series."""
    plan = PLAN.partition("@")[0]
    # The numbers are multiplied by a prime, so that customers beside each other have different figures.
    yield f"""INSERT INTO customers (id, name, external_id, tier, settings, metadata, created_at, version, currency,
            plan, spent, spent_at, overdue, cap_used, cap_until, last_call_on)
        SELECT {ID}, {NAME}, 'crm-' || n, 'basic', '{{"tier":"basic"}}', '{{}}', {now * 1000}, 1, 'usd',
            CASE WHEN n % {PAYING} = 0 THEN '{plan}' END, CASE WHEN n % {PAYING} = 0 THEN {FEE} + n * 7919 % 500000 END,
            CASE WHEN n % {PAYING} = 0 THEN {now} END, CASE WHEN n % 1000 = 0 THEN {FEE} ELSE 0 END,
            CASE WHEN n % 3 = 0 THEN n * 7919 % 10100 END, CASE WHEN n % 3 = 0 THEN {now + DAY} END,
            CASE WHEN n % 4 > 0 THEN {now // DAY * DAY} - n * 7919 % 365 * {DAY} END FROM numbers"""
    yield f"""INSERT INTO keys (id, customer, sha256, start, created_at, version)
        SELECT {ID}, {ID}, {KEY_HASH}, 'live_v1_' || (10000000 + n), {now * 1000}, 1 FROM numbers"""
    yield f"INSERT INTO contacts (email, customer) SELECT {NAME} || '@example.com', {ID} FROM numbers"
    series = "INSERT INTO series (edge, region, customer, meter, route, dimensions) SELECT"
    edge = f"'edge-' || (1000 + n % {EDGES}), 'region-' || n % {REGIONS}"
    yield f"{series} {edge}, {NAME}, 'requests', 'v1', '' FROM numbers"
    yield f"""{series} {edge}, {NAME}, 'tokens', 'v1', '{{"model":"m' || n % {MODELS} || '"}}' FROM numbers"""
    yield f"""{series} {edge}, {NAME}, 'refused', 'v1', '{{"certain":"yes","limit":"basic"}}'
        FROM numbers WHERE n % {REFUSED} = 0"""
    split = "INSERT INTO series_dimensions (name, series, value) SELECT"
    yield f"{split} 'model', id, substr(dimensions, 11, 2) FROM series WHERE meter = 'tokens'"
    for name, value in (("limit", "basic"), ("certain", "yes")):
        yield f"{split} '{name}', id, '{value}' FROM series WHERE meter = 'refused'"


def business(customers: int, now: int) -> Iterator[str]:
    """Yield statements for plans, invoices, their bookings, and Stripe's events."""
    paying = f"FROM numbers WHERE n % {PAYING} = 0"
    first, following = month_of(now, 0), month_of(now, 1)
    yield f"""INSERT INTO subscriptions (id, customer, plan_version, is_yearly, state, period_start, period_end,
            tier_before, created_at, version)
        SELECT {ID}, {ID}, '{PLAN}', 0, 'active', {first}, {following}, 'basic', {now}, 1 {paying}"""
    yield f"""INSERT INTO segments (subscription, meter, start, "end", plan_version, is_yearly, period_start,
            period_end, paid_start, paid_end)
        SELECT {ID}, '', {first}, {following}, '{PLAN}', 0, {first}, {following}, {first}, {following} {paying}"""
    for number in range(-MONTHS, 0):
        begin, end = month_of(now, number), month_of(now, number + 1)
        month = f"'{datetime.fromtimestamp(begin, UTC):%Y-%m-%d}'"
        id_ = f"'018f0000-0000-7000-a{MONTHS + number:03}-' || (100000000000 + n)"
        latest = "CASE WHEN n % 5000 = 0 THEN 'held' WHEN n % 1000 = 0 THEN 'open' ELSE 'paid' END"
        state = latest if number == -1 else "'paid'"
        yield f"""INSERT INTO invoices (id, customer, period, kind, state, booked, subtotal, total, amount_due,
                currency, period_start, period_end, closes_at, due_at, tries, failures, try_at, created_at)
            SELECT {id_}, {ID}, {month}, 'period', {state}, {state}, {FEE}, {FEE},
                CASE WHEN {state} = 'open' THEN {FEE} ELSE 0 END, 'usd', {begin},
                {end}, {end + DAY}, {end + DAY}, 0, 0, 0, {end} {paying}"""
        yield f"""INSERT INTO rated (invoice, at, shadow, "real", charged_at)
            SELECT {id_}, {end * 1000}, {FEE}, {FEE}, {end * 1000} {paying}"""
        for place, (kind, debit, credit) in enumerate(
            (("invoice", "receivable", "deferred_fees"), ("invoice_paid", "cash", "receivable"))
        ):
            seq = f"{2 * (MONTHS + number) + place} * {customers} + n + 1"
            details = f'{{"fees":[[{FEE},{begin},{end}]]}}' if kind == "invoice" else "{}"
            yield f"""INSERT INTO credit_transactions (seq, at, customer, kind, source, original, slice, amount,
                    details, hash)
                SELECT {seq}, {end * 1000 + n_ms(place)}, {ID}, '{kind}', {id_}, '', {end if not place else -1}, 0,
                    '{details}', '' {paying}"""
            for position, (account, sign) in enumerate(((debit, ""), (credit, "-"))):
                yield f"""INSERT INTO credit_entries (seq, position, account, amount, grant_id, meter, model)
                    SELECT {seq}, {position}, '{account}', {sign}{FEE * PER_CENT}, '', '', '' {paying}"""
    yield f"UPDATE credit_head SET seq = {2 * MONTHS * customers + customers}, at = {now * 1000}"
    yield f"""INSERT INTO webhook_events (id, type, object_type, object, livemode, created, received, source, state,
            payload, applied)
        SELECT 'evt_' || n, CASE WHEN n % 2 = 0 THEN 'charge.succeeded' ELSE 'invoice.paid' END, 'invoice', 'in_' || n,
            0, {now - DAY} + n % {DAY}, ({now - DAY} + n % {DAY}) * 1000, 'webhook', 'applied', {ZEROS_AS_BYTES},
            ({now - DAY} + n % {DAY}) * 1000 + 1500
        FROM numbers"""
    yield f"UPDATE rollout SET since = {now - DAY}"


ZEROS_AS_BYTES = "(SELECT body FROM blank)"


def n_ms(place: int) -> int:
    """Return the milliseconds from the end of a month to this booking."""
    return DAY * 1000 + place


def upkeep(customers: int, now: int) -> Iterator[str]:
    """Yield statements for edges and their batches, dead letters, checks and incidents."""
    yield f"""INSERT INTO edges (edge, region, seq, hash, since, until, received, latest, token)
        SELECT 'edge-' || (1000 + n), 'region-' || n % {REGIONS}, {BATCHES}, '', {now - 60}, {now}, {now * 1000}, {now},
            'edges' FROM numbers WHERE n < {EDGES}"""
    state = "CASE WHEN two.n % 500 = 0 THEN 'gap' WHEN two.n % 777 = 0 THEN 'quarantined' ELSE 'counted' END"
    yield f"""INSERT INTO batches (edge, seq, last, hash, state, rows, since, until, received, coding, body)
        SELECT 'edge-' || (1000 + one.n), two.n + 1, two.n + 1, {ZEROS}, {state}, 100, {now - DAY}, {now - DAY},
            {now * 1000}, 'identity', {ZEROS_AS_BYTES}
        FROM numbers one, numbers two WHERE one.n < {EDGES} AND two.n < {BATCHES}"""
    yield f"""INSERT INTO dead_letters (id, received, token, error, event)
        SELECT {ID}, {now * 1000}, 'jobs', 'there is no such meter', '{{"id":"1","meter":"calls","value":1}}'
        FROM numbers WHERE n < 10000"""
    yield f"""INSERT INTO checks (region, day, result, "count")
        SELECT 'region-' || one.n, {now // DAY * DAY} - {DAY} * two.n, '100', 2000 + two.n
        FROM numbers one, numbers two WHERE one.n < {REGIONS} AND two.n < 90"""
    yield f"""INSERT INTO incidents (id, severity, title, regions, began_at, ended_at)
        SELECT {ID}, 'P2', 'Slow answers', '["region-1"]', {now - DAY} - n * 3600, {now - DAY} - n * 3600 + 1800
        FROM numbers WHERE n < 50"""
    yield f"""INSERT INTO incident_updates (id, incident, at, state, message)
        SELECT {ID}, {ID}, {now - DAY}, 'resolved', 'It is over.' FROM numbers WHERE n < 50"""
    yield f"""INSERT INTO tokens (name, role, created_at, created_by)
        SELECT 'token-' || (1000 + n), 'read', {now * 1000}, 'admin' FROM numbers WHERE n < 900"""


def history(customers: int, now: int) -> Iterator[str]:
    """Yield statements for the audit log and alerts."""
    yield f"""INSERT INTO audit (seq, at, actor, origin, action, target, after, request_id, hash)
        SELECT n + 1, {now * 1000}, 'admin', '192.0.2.1', 'customer.create', {NAME}, '{{"tier":"basic"}}', '', {ZEROS}
        FROM numbers"""
    yield f"""INSERT INTO audit (seq, at, actor, origin, action, target, after, request_id, hash)
        SELECT {customers} + n + 1, {now * 1000}, CASE WHEN n % 100 = 0 THEN 'unknown' ELSE 'admin' END, '192.0.2.1',
            CASE WHEN n % 100 = 0 THEN 'denied' ELSE 'key.create' END, {NAME} || '/key', '{{"scopes":[]}}', '', {ZEROS}
        FROM numbers"""
    yield f"UPDATE audit_head SET seq = {2 * customers}"
    kind = "CASE WHEN n % 100 = 0 THEN 'customer_paused' ELSE 'quota_reached' END"
    yield f"""INSERT INTO alerts (key, kind, severity, customer, title, details, at, routed_at)
        SELECT 'quota:' || n, {kind}, 'warn', {NAME}, 'has used 80 percent of requests', '{{}}', {now * 1000} - n,
            {now * 1000} FROM numbers"""
    yield f"""INSERT INTO alert_deliveries (alert, channel, state, attempts, due_at, sent_at)
        SELECT id, 'mail', 'sent', 1, {now * 1000}, {now * 1000} FROM alerts"""


def sign_ins(customers: int, now: int) -> Iterator[str]:
    """Yield statements for sessions of operators and of customers."""
    into = "INSERT INTO sessions (sha256, label, roles, customer, created_at, seen_at) VALUES"
    for number in range(SESSIONS):
        names = {"customer": name_of(customer_of(number, customers))}
        names |= {which: name_of(extreme_of(which, customers)) for which in EXTREMES}
        for who, label, role, of in (
            ("operator", f"operator:{number}", "admin", "NULL"),
            *((who, f"contact:{name}@example.com", "customer", f"'{name}'") for who, name in names.items()),
        ):
            sha256 = compute_digest(secret_of(who, number))
            yield f"""{into} ('{sha256}', '{label}', '["{role}"]', {of}, {now}, {now})"""


def extremes(customers: int, now: int) -> Iterator[str]:
    """Yield statements for the customers of EXTREMES. All other rows exist."""
    ids = {which: f"018f0000-0000-7000-8000-{100_000_000_000 + extreme_of(which, customers)}" for which in EXTREMES}
    names = {which: name_of(extreme_of(which, customers)) for which in EXTREMES}
    first, following, hour = month_of(now, 0), month_of(now, 1), now // HOUR * HOUR
    budget = """'{"id":"018f0000-0000-7000-9000-' || (100000000000 + n) ||
        '","amount":1000,"per":"month","meter":null,"currency":"usd"}'"""
    yield f"""INSERT INTO keys (id, customer, sha256, start, name, budget, created_at, revoked_at, last_used_on,
            version)
        SELECT '018f0000-0000-7000-9000-' || (100000000000 + n), '{ids["keys"]}',
            '00000000' || (10000000 + n) || '{"0" * 48}', 'live_v1_' || (20000000 + n), 'server ' || n, {budget},
            {now * 1000} - n,
            CASE WHEN n >= {USED_KEYS} THEN {now * 1000} END, {now // DAY * DAY} - n % 30 * {DAY}, 1
        FROM numbers WHERE n < {KEYS}"""
    series = "INSERT INTO series (edge, region, customer, meter, route, dimensions) SELECT 'edge-1000', 'region-0',"
    yield f"""{series} '{names["keys"]}', '{BY_KEY}', 'v1', '{{"key":"00000000' || (10000000 + n) || '"}}'
        FROM numbers WHERE n < {USED_KEYS}"""
    own = f"customer = '{names['keys']}' AND meter = '{BY_KEY}'"
    yield f"""INSERT INTO series_dimensions (name, series, value) SELECT 'key', id, substr(dimensions, 9, 16)
        FROM series WHERE {own}"""
    # Materialized: PostgreSQL does not know yet how many series there are, and would read all numbers for each of them.
    lately = f"times AS MATERIALIZED (SELECT {first} + n * {DAY} AS at FROM numbers WHERE n < {DAYS})"
    for table in ("hours", "days"):
        yield f"""WITH {lately} INSERT INTO {table} SELECT id, at, 50 FROM series, times
            WHERE {own} AND at <= {hour - DAY}"""
    meters = ("llm_tokens", "agent_executions", BY_KEY)
    yield from (f"{series} '{names['segments']}', '{meter}', 'v1', '' FROM numbers WHERE n = 0" for meter in meters)
    listed = ", ".join(f"'{meter}'" for meter in meters)
    own = f"customer = '{names['segments']}' AND meter IN ({listed})"
    for table, seconds in (("ledger", MINUTE), ("hours", HOUR), ("days", DAY)):
        times = (
            f"times AS MATERIALIZED (SELECT {first} + n * {seconds} AS at FROM numbers WHERE n < {31 * DAY // seconds})"
        )
        yield f"""WITH {times} INSERT INTO {table}
            SELECT id, at, CASE WHEN {hour} - at < {seconds} THEN {hour} - at ELSE {seconds} END / 6
            FROM series, times WHERE {own} AND at < {hour}"""
    step = (now - first) // SEGMENTS
    yield f"""DELETE FROM segments WHERE subscription = '{ids["segments"]}'"""
    yield f"""INSERT INTO segments (subscription, meter, start, "end", plan_version, is_yearly, period_start,
            period_end, paid_start, paid_end)
        SELECT '{ids["segments"]}', '', {first} + n * {step},
            CASE WHEN n = {SEGMENTS - 1} THEN {following} ELSE {first} + (n + 1) * {step} END,
            CASE WHEN n % 2 = 0 THEN '{OTHER_PLAN}' ELSE '{PLAN}' END, 0, {first}, {following}, {first}, {following}
        FROM numbers WHERE n < {SEGMENTS}"""
    yield f"""INSERT INTO invoice_lines (invoice, position, kind, plan_version, segment_start, segment_end, meter,
            value, tier, quantity, unit_price, amount, start, "end", text)
        SELECT '{invoice_of(extreme_of("segments", customers))}', n, 'usage', '{PLAN}', {first - DAY} + n, {first},
            'llm_tokens', '', 0, 123456 + n, '0.001', 123 + n, {first - DAY} + n, {first},
            'llm_tokens: ' || (123456 + n) || ' at 0.001 cents' FROM numbers WHERE n < {LINES}"""
    text = ("شركة Zephyr & Söhne " * NAME_CHARACTERS)[:NAME_CHARACTERS]
    yield f"""UPDATE customers SET metadata = '{{"name":"{text}"}}' WHERE id = '{ids["name"]}'"""


def month_of(second: int, step: int) -> int:
    """Return the Unix second of the start of the month that is `step` months after this one."""
    first = datetime.fromtimestamp(second, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(abs(step)):
        first = (first + timedelta(days=32)).replace(day=1) if step > 0 else (first - timedelta(days=1)).replace(day=1)
    return int(first.timestamp())


# ---- each database's own


def times_of(rows: int, series: int, now: int) -> list[int]:
    """Return the hours of each series as Unix seconds, spread over DAYS."""
    each = max(1, rows // series)
    hour = now // HOUR * HOUR
    step = max(HOUR, DAYS * DAY // each // HOUR * HOUR)
    return [hour - HOUR - step * number for number in reversed(range(each))]


def ledger_of(times: list[int]) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Yield the tables of sums, with the times and values of each series."""
    yield "hours", [(second, 7) for second in times]
    yield "days", sorted((day, 7 * count) for day, count in Counter(second // DAY * DAY for second in times).items())


def recent(now: int) -> str:
    """Return the statement for minutes that are not rolled up."""
    hour = now // HOUR * HOUR
    at = [hour + MINUTE * number for number in range(max(1, min(5, (now - hour) // MINUTE)))]
    union = " UNION ALL ".join(f"SELECT {minute} AS minute" for minute in at)
    return f"""INSERT INTO ledger (series, minute, value)
        SELECT id, minute, 3 FROM series, ({union}) lately WHERE id % {ACTIVE} = 0"""


def _sqlite(file: Path, customers: int, rows: int, now: int, kinds: list[list[str]]) -> int:
    with closing(sqlite3.connect(file)) as connection:
        for setting in ("synchronous = OFF", "journal_mode = MEMORY", "cache_size = -500000", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {setting}")
        connection.execute(
            f"""CREATE TABLE numbers AS WITH RECURSIVE counting(n) AS
                (SELECT 0 UNION ALL SELECT n + 1 FROM counting WHERE n < {customers - 1}) SELECT n FROM counting"""
        )
        connection.execute("CREATE TABLE blank AS SELECT x'00' AS body")
        *first_kinds, last = kinds
        for statement in chain.from_iterable(first_kinds):
            connection.execute(statement)
        (series,) = connection.execute("SELECT count(*) FROM series").fetchone()
        times = times_of(rows, series, now)
        for table, sums in ledger_of(times):
            connection.execute("CREATE TEMP TABLE sums (second INTEGER, value INTEGER)")
            connection.executemany("INSERT INTO sums VALUES (?, ?)", sums)
            # `series` is the outer table, so that rows are inserted in the order of the table's key.
            connection.execute(f"INSERT INTO {table} SELECT id, second, sums.value FROM series CROSS JOIN sums")
            connection.execute("DROP TABLE sums")
        for statement in (recent(now), f"UPDATE rollup SET hour = {now // HOUR * HOUR}, series = 0", *last):
            connection.execute(statement)
        connection.execute("DROP TABLE numbers")
        connection.execute("DROP TABLE blank")
        connection.commit()
        connection.execute("PRAGMA journal_mode = WAL")
        return int(series) * len(times)


async def _postgresql(url: str, customers: int, rows: int, now: int, kinds: list[list[str]]) -> int:
    """Several connections at once, because each is one process of the server."""

    async def do(statements: Iterable[str]) -> None:
        connection = await asyncpg.connect(url, command_timeout=3600)
        for setting in ("work_mem = '256MB'", "maintenance_work_mem = '512MB'", "synchronous_commit = off"):
            await connection.execute(f"SET {setting}")
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    await do(
        (
            f"CREATE TABLE numbers AS SELECT n FROM generate_series(0::bigint, {customers - 1}) n",
            "CREATE TABLE blank AS SELECT '\\x00'::bytea AS body",
            "ANALYZE numbers",
            kinds[0].pop(0),  # Customers, whom others refer to.
            f"SELECT {CREATE_PARTITION}('{datetime.fromtimestamp(now, UTC):%Y-%m}-01')",
        )
    )
    series = 2 * customers + -(-customers // REFUSED)
    times = times_of(rows, series, now)
    accounts_first, *others, last = kinds

    async def count() -> None:
        await do(accounts_first)
        # Rows are inserted in the order of their times, and the index is created at the end.
        await asyncio.gather(
            do([recent(now), f"UPDATE rollup SET hour = {now // HOUR * HOUR}, series = 0"]),
            *(
                do(
                    (
                        f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey",
                        *(
                            f"INSERT INTO {table} SELECT id, {second}, {value} FROM series ORDER BY id"
                            for second, value in sums
                        ),
                        f"ALTER TABLE {table} ADD PRIMARY KEY (series, {table.removesuffix('s')})",
                    )
                )
                for table, sums in ledger_of(times)
            ),
        )

    await asyncio.gather(count(), *map(do, others))
    await do([*last, "DROP TABLE numbers, blank", "VACUUM ANALYZE"])
    return series * len(times)
