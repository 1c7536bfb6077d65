"""Checks of meters in the parsed tree: required and excluded settings of each count."""

from collections.abc import Iterator

from edgeproxy.config import parsers
from edgeproxy.config.dimensions import DIMENSIONS_MAX
from edgeproxy.config.meters import BODY_DIMENSIONS, DEFAULT_UNITS, KEY, MEASURES, OVER_CAP, SCALES
from edgeproxy.config.problems import Steps
from edgeproxy.config.references import METERS, Fault, list_limits, list_members
from edgeproxy.config.tree import Table, Value

SEEN = tuple(name for name, measure in MEASURES.items() if not measure.is_reported)
STATED = tuple(name for name, measure in MEASURES.items() if measure.in_body is not None)
"""Counts of meters whose numbers are in bodies of answers."""
OF_MESSAGES = tuple(name for name, measure in MEASURES.items() if measure.is_of_messages)
"""Counts of meters of gRPC messages."""
REPORTED = tuple(name for name, measure in MEASURES.items() if measure.is_reported)
"""Counts of meters that upstreams report in a header or trailer field."""


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions within meters, in the tree of an edge.yaml or of a collector.yaml."""
    yield from _find_meter_faults(tree)
    yield from _find_stated_faults(tree)
    yield from _find_dimension_faults(tree)
    yield from _find_limit_faults(tree)
    yield from _find_scale_faults(tree)


def _find_meter_faults(tree: Table) -> Iterator[Fault]:
    """Find meters with a missing, needless or reserved field of upstreams, or with the name of a built-in meter."""
    for path, meter in list_members(tree, "meters"):
        what, header = meter.get("count"), meter.get("header")
        if path[-1] == OVER_CAP:
            yield Fault(path, "is what edges count where an answer costs more than caps allow", "give it another name")
        if what in REPORTED and header is None:
            yield Fault(path, "lacks the field in which upstreams report it", "write header: X-Usage-Tokens")
        elif what in SEEN:
            ignored = ("header",) if meter.get("dimensions") else ("header", "pass")
            for name in [name for name in ignored if name in meter]:
                hint = "write count: response_header, or leave it out"
                yield Fault((*path, name), f"is of what upstreams report, not of {what}", hint)
        elif isinstance(header, str) and header.lower() in parsers.OWN_FIELDS:
            hint = "have upstreams report it in a field of its own, such as X-Usage-Tokens"
            yield Fault((*path, "header"), f"{header} is for the edge itself, and is not looked at", hint)


def _find_stated_faults(tree: Table) -> Iterator[Fault]:
    """Find faults of meters whose numbers are in bodies.

    These are JSON without a path, settings that only such meters have, and messages that are counted too early.
    """
    for path, meter in list_members(tree, "meters"):
        what = meter.get("count")
        if what == "response_json" and "json" not in meter:
            yield Fault(path, "lacks the path of the number", "write json: usage.total_tokens")
        elif what != "response_json" and "json" in meter:
            yield Fault((*path, "json"), f"is of a number in JSON, not of {what}", "write count: response_json")
        if what in OF_MESSAGES and meter.get("when") == "admitted":
            hint = "write when: answered, or leave it out"
            yield Fault((*path, "when"), "counts before the answer, which says whether a call is one of gRPC", hint)
        if "missing" in meter and what not in STATED:
            yield Fault((*path, "missing"), f"is of what bodies of answers state, not of {what}", "leave it out")


def _find_limit_faults(tree: Table) -> Iterator[Fault]:
    """Find limits of meters that bodies of answers do not state, and settings that `of` requires or excludes."""
    counts: dict[object, Value] = {path[-1]: meter.get("count") for path, meter in list_members(tree, "meters")}
    if "meters" not in tree:
        counts = dict.fromkeys(METERS, "requests")
    for path, limit in list_limits(tree):
        meter = limit.get("of")
        if meter is None:
            for name in [name for name in ("reserve", "reserve_max") if name in limit]:
                yield Fault((*path, name), "is of limits of what answers state", "write of: METER beside it")
            continue
        if limit.get("reserve") == "request" and isinstance(meter, str) and counts.get(meter) == "response_json":
            hint = "write a number of units"
            yield Fault((*path, "reserve"), f"request tells tokens, and {meter} counts no tokens", hint)
        if "reserve_max" in limit and limit.get("reserve") != "request":
            yield Fault((*path, "reserve_max"), "is of what requests tell", "write reserve: request beside it")
        if isinstance(meter, str) and meter in counts and counts[meter] not in STATED:
            hint = f"write a meter with count: {' or '.join(STATED)}"
            yield Fault((*path, "of"), f"{meter} counts nothing that bodies of answers state", hint)
        for name, other in (("cost_header", None), ("mode", "shadow"), ("sync", "strict")):
            if name in limit and other in (None, limit[name]):
                yield Fault((*path, name), "cannot stand beside of", "leave out one of them")


def _find_scale_faults(tree: Table) -> Iterator[Fault]:
    """Find scales that are no larger unit of a meter's unit."""
    for path, meter in list_members(tree, "meters"):
        default = next((unit for count, unit in DEFAULT_UNITS.items() if count == meter.get("count")), None)
        unit = meter.get("unit", default)
        scales = next(([str(scale) for scale in scale] for name, scale in SCALES.items() if name == unit), [])
        if "scale" in meter and scales and str(meter["scale"]) not in scales:
            yield Fault((*path, "scale"), f"is no unit of {unit}", f"write one of {', '.join(scales)}")


def _find_dimension_faults(tree: Table) -> Iterator[Fault]:
    """Find dimensions without values, and aggregates of what edges count."""
    for path, meter in list_members(tree, "meters"):
        is_of_services, when = meter.get("count") == "events", meter.get("when")
        aggregate = meter.get("aggregate", "sum")
        if meter.get("count") == "holdings":
            if aggregate == "unique":
                yield Fault((*path, "aggregate"), "is of events, and places are counted", "write max or average")
        elif not is_of_services and aggregate != "sum":
            yield Fault((*path, "aggregate"), "is of events, and edges add up", "leave it out, or write count: events")
        dimensions = meter.get("dimensions")
        if meter.get("count") == "refusals":
            for name in [name for name in ("when", "dimensions") if name in meter]:
                yield Fault((*path, name), "is not for refusals, which are split by limit and certain", "leave it out")
            continue
        if not isinstance(dimensions, Table):
            continue
        where = (*path, "dimensions")
        for name, dimension in dimensions.items():
            if not is_of_services and isinstance(dimension, Table) and "person" in dimension:
                hint = "have services report it as events"
                yield Fault((*where, name, "person"), "is of events, and edges know nobody's pseudonym", hint)
        if meter.get("count") == "holdings":
            yield Fault(where, "are of usage, and holdings are no usage", "leave it out")
            continue
        if len(dimensions) > DIMENSIONS_MAX:
            yield Fault(where, f"has {len(dimensions)} dimensions", f"write {DIMENSIONS_MAX} at most")
        if when == "admitted" and any(not _is_by_key(*item) for item in dimensions.items()):
            yield Fault(
                where, "are known with the answer, and when: admitted counts before it", "leave out one of them"
            )
        if meter.get("count") in STATED:
            yield from _find_body_dimension_faults(where, dimensions)
            continue
        yield from _find_field_faults(where, dimensions, is_of_services=is_of_services)


def _find_field_faults(path: Steps, dimensions: Table, *, is_of_services: bool) -> Iterator[Fault]:
    """Find dimensions without a field for their value, or with a needless one."""
    for name, dimension in dimensions.items():
        header = dimension.get("header") if isinstance(dimension, Table) else None
        if not is_of_services and _is_by_key(name, dimension):
            continue
        if is_of_services and header is not None:
            yield Fault((*path, name, "header"), "is of what edges count, not of events", "leave it out")
        elif not is_of_services and header is None:
            hint = "write {header: X-Usage-Model, values: 50}"
            yield Fault((*path, name), "lacks the field in which upstreams report it", hint)
        elif isinstance(header, str) and header.lower() in parsers.OWN_FIELDS:
            hint = "have upstreams report it in a field of its own, such as X-Usage-Model"
            yield Fault((*path, name, "header"), f"{header} is for the edge itself, and is not looked at", hint)


def _find_body_dimension_faults(path: Steps, dimensions: Table) -> Iterator[Fault]:
    """Find dimensions that no body contains."""
    for name, dimension in dimensions.items():
        if _is_by_key(name, dimension):
            continue
        if name not in BODY_DIMENSIONS:
            hint = f"write {', '.join(BODY_DIMENSIONS)} or {KEY}"
            yield Fault((*path, name), "is nothing that the edge knows of what bodies state", hint)
        elif isinstance(dimension, Table) and "header" in dimension:
            yield Fault((*path, name, "header"), "is for numbers in heads: bodies have it themselves", "leave it out")


def _is_by_key(name: object, dimension: Value) -> bool:
    """Return whether a dimension is the API key of the request, without a field."""
    return name == KEY and not (isinstance(dimension, Table) and "header" in dimension)
