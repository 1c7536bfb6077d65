"""Searches: `field:"value"`, `~` for substrings, numbers by `>` and `<`, `-` for not, joined by AND or by OR."""

import re
from collections.abc import Mapping

from stripe_sandbox.lists import Handler, Ids, Parameters, parse_limit
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, SqlValue, Transaction

CLAUSE = re.compile(
    r"""\s*(?P<no>-?)(?P<field>\w+)(?:\[(?P<q>["'])(?P<key>[^"']{1,40})(?P=q)\])?\s*(?P<sign>:|~|>=|<=|>|<)\s*"""
    r"""(?:(?P<w>["'])(?P<text>(?:[^"'\\]|\\.)*)(?P=w)|(?P<bare>-?\w+(?:\.\d+)?))\s*"""
)
JOINED = re.compile(r"(AND|OR)\b", re.IGNORECASE)
CLAUSES_MAX = 10
NUMBERS = ("created", "amount", "total")


def create_search_handler(kind: str, **fields: str) -> Handler:
    """Create a handler that searches objects of a type by these fields, and by metadata."""

    def handler(tx: Transaction, ids: Ids, params: Parameters) -> Body:
        return _search(tx, kind, params, {**fields, "metadata": "metadata"})

    return handler


def _search(tx: Transaction, kind: str, params: Parameters, fields: Mapping[str, str]) -> Body:
    where, values = parse_query(params["query"], fields)
    limit = parse_limit(params)
    before = params.get("page", str(2**62))
    if not before.isdecimal():
        raise invalid_request("Invalid page.", "page")
    condition = f"kind = ? AND live = ? AND NOT deleted AND json_extract(body, '$.created') <= ? AND ({where})"
    arguments = [kind, tx.live, tx.now - tx.account.search_lag, *values]
    rows = tx.account.connection.execute(
        f"SELECT seq, body FROM objects WHERE {condition} AND seq < ? ORDER BY seq DESC LIMIT ?",
        (*arguments, int(before), limit + 1),
    ).fetchall()
    more = len(rows) > limit
    return {
        "object": "search_result",
        "data": [tx.parse(body) for _, body in rows[:limit]],
        "has_more": more,
        "next_page": str(rows[limit - 1][0]) if more else None,
        "url": tx.request.path if tx.request is not None else "",
        "_condition": [condition, *arguments],
    }


def count_matches(tx: Transaction, result: Body) -> int:
    """Return the number of objects that a search matches, on all its pages."""
    condition, *arguments = result["_condition"]
    row = tx.account.connection.execute(f"SELECT COUNT(*) FROM objects WHERE {condition}", arguments).fetchone()
    return int(row[0])


def parse_query(query: str, fields: Mapping[str, str]) -> tuple[str, list[SqlValue]]:
    """Compile a query into SQL and its values; raises ApiError."""
    clauses: list[str] = []
    values: list[SqlValue] = []
    joins: set[str] = set()
    place = 0
    while True:
        match = CLAUSE.match(query, place)
        if match is None or len(clauses) == CLAUSES_MAX:
            raise invalid_request("We were unable to parse your search query.", "query")
        clauses.append(_clause(match, fields, values))
        place = match.end()
        if place == len(query):
            break
        join = JOINED.match(query, place)
        joins.add("AND" if join is None else join[1].upper())
        place = place if join is None else join.end()
    if len(joins) > 1:
        raise invalid_request("You can't combine AND and OR in one query.", "query")
    return f" {joins.pop() if joins else 'AND'} ".join(clauses), values


def _clause(match: re.Match[str], fields: Mapping[str, str], values: list[SqlValue]) -> str:
    name, key = match["field"], match["key"]
    if name not in fields or (key is not None) != (name == "metadata"):
        raise invalid_request(f"Field `{name}` is an unsupported search field for this resource.", "query")
    path = f"$.{fields[name]}" + ("" if key is None else f'."{key}"')
    column = "json_extract(body, ?)"
    values.append(path)
    sign, text = match["sign"], match["bare"] if match["text"] is None else re.sub(r"\\(.)", r"\1", match["text"])
    if match["bare"] == "null":
        clause = f"{column} IS NULL"
    elif sign == "~":
        clause = f"instr(lower({column}), lower(?)) > 0"
        values.append(text)
    else:
        clause = f"COALESCE({column} {'=' if sign == ':' else sign} ?, 0)"
        values.append(_parse_value(name, text))
    return f"NOT {clause}" if match["no"] else clause


def _parse_value(name: str, text: str) -> SqlValue:
    if text in ("true", "false") and name in ("active", "shippable"):
        return text == "true"
    if name in NUMBERS:
        if not re.fullmatch(r"-?[0-9]+", text):
            raise invalid_request(f"Field `{name}` wants a whole number.", "query")
        return int(text)
    return text
