"""Lists: newest first, by default ten at a time, with cursors; and searches, with pages."""

import json
from collections.abc import Callable, Mapping, Sequence

from stripe_sandbox.refusal import invalid_request, no_such_object
from stripe_sandbox.transaction import Body, Fields, SqlValue, Transaction

LIMIT, LIMIT_MAX = 10, 100
RANGES = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

Ids = Mapping[str, str]
Parameters = Fields
Handler = Callable[[Transaction, Ids, Parameters], Body]


def create_retrieve_handler(kind: str) -> Handler:
    """Create a handler that returns the object of the path."""
    return lambda tx, ids, params: tx.get(kind, ids["id"])


def create_list_handler(kind: str, **filters: str) -> Handler:
    """Create a handler that lists objects of a type. `filters` are parameters, each with its field."""

    def handler(tx: Transaction, ids: Ids, params: Parameters) -> Body:
        return list_objects(
            tx, kind, params, {filters[name]: value for name, value in params.items() if name in filters}
        )

    return handler


def list_objects(
    tx: Transaction, kind: str, params: Parameters, fields: Fields, where: str = "", *values: SqlValue
) -> Body:
    """List objects of a type by fields with a value, a range or one of several, and `where`, SQL."""
    limit = parse_limit(params)
    _require_one_cursor(params)
    query, arguments = "kind = ? AND live = ? AND NOT deleted", [kind, tx.live]
    if where:
        query += f" AND {where}"
        arguments.extend(values)
    for path, value in fields.items():
        column = f"json_extract(body, '$.{path}')"
        if isinstance(value, Mapping):
            for name, bound in value.items():
                query += f" AND {column} {RANGES[name]} ?"
                arguments.append(bound)
        elif isinstance(value, list):
            query += f" AND {column} IN ({', '.join('?' * len(value))})"
            arguments.extend(value)
        elif value is None:
            query += f" AND {column} IS NULL"
        else:
            query += f" AND {column} = ?"
            arguments.append(value)
    order = "DESC"
    for name, sign in (("starting_after", "<"), ("ending_before", ">")):
        if name in params:
            query += f" AND seq {sign} ?"
            arguments.append(_find_place(tx, kind, params[name], name))
            order = "ASC" if name == "ending_before" else "DESC"
    rows = tx.account.connection.execute(
        f"SELECT body FROM objects WHERE {query} ORDER BY seq {order} LIMIT ?", (*arguments, limit + 1)
    ).fetchall()
    bodies = [json.loads(body) for (body,) in rows[:limit]]
    if order == "ASC":
        bodies.reverse()
    return format_list(tx, bodies, len(rows) > limit)


def format_list(tx: Transaction, bodies: Sequence[Body], has_more: bool, url: str | None = None) -> Body:
    """Format a list as it is answered."""
    where = url or (tx.request.path if tx.request is not None else "")
    return {"object": "list", "data": list(bodies), "has_more": has_more, "url": where}


def slice_list(tx: Transaction, bodies: Sequence[Body], params: Parameters, url: str | None = None) -> Body:
    """Return a page of a list that is in memory."""
    limit = parse_limit(params)
    _require_one_cursor(params)
    places = {body["id"]: place for place, body in enumerate(bodies)}
    first, last = 0, len(bodies)
    for name in ("starting_after", "ending_before"):
        if name in params and params[name] not in places:
            raise no_such_object("object", params[name], name)
    if "starting_after" in params:
        first = places[params["starting_after"]] + 1
    if "ending_before" in params:
        last = places[params["ending_before"]]
        return format_list(tx, bodies[max(last - limit, first) : last], last - limit > first, url)
    return format_list(tx, bodies[first : first + limit], last > first + limit, url)


def parse_limit(params: Parameters) -> int:
    """Parse the limit of a list."""
    limit = params.get("limit", LIMIT)
    if not 1 <= limit <= LIMIT_MAX:
        raise invalid_request(f"Invalid limit: must be between 1 and {LIMIT_MAX}", "limit")
    return int(limit)


def _require_one_cursor(params: Parameters) -> None:
    """Refuse a list that is to begin after one object and to end before another."""
    if "starting_after" in params and "ending_before" in params:
        raise invalid_request(
            "You may only specify one of these parameters: starting_after, ending_before.",
            "starting_after",
            "parameters_exclusive",
        )


def _find_place(tx: Transaction, kind: str, id: str, name: str) -> int:
    row = tx.account.connection.execute(
        "SELECT seq FROM objects WHERE id = ? AND kind = ? AND live = ?", (id, kind, tx.live)
    ).fetchone()
    if row is None:
        raise no_such_object(kind.rpartition(".")[2].replace("_", " "), id, name)
    return int(row[0])
