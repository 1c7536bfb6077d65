"""The API key in a request's field lines.

The key is in the first of the configured fields that has one, else among the subprotocols of a WebSocket, else in a
cookie. Fields behind that one are the application's own affair and are forwarded. Subprotocols and cookies with a key
are for the edge alone, wherever the key was.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1 import grammar
from edgeproxy.edge.http1.fields import FieldKind, FieldRules
from edgeproxy.edge.http1.lines import Field

PROTOCOL_PREFIX: Final = b"api-key."
"""A subprotocol with this prefix is a key: browsers can set no field for a WebSocket except subprotocols."""

FieldsByKind = Mapping[FieldKind, Sequence[Field]]


class KeyLines(NamedTuple):
    """The lines that may hold keys, after reading: the key (None: the request has no place for one), the lines for
    upstreams that may see keys, the lines that replace them for all other upstreams, and the lines that are forwarded
    unchanged.
    """

    key: bytes | None
    credentials: bytes
    unkeyed: bytes
    others: list[bytes]


def read_keys(by_kind: FieldsByKind, connection_names: set[bytes], rules: FieldRules) -> KeyLines:
    """Read the lines of keys. `connection_names`: the fields that Connection names, which are not forwarded.

    Raises RejectedError(400) if a field that may hold a key is repeated.
    """
    fields = _collect_key_fields(by_kind)
    ordered = sorted(fields, key=rules.keys.index)
    holder = next((name for name in ordered if fields[name].value), ordered[0] if ordered else None)
    key = None if holder is None else fields[holder].value
    credentials = b""
    others: list[bytes] = []
    for name in ordered:
        field = fields[name]
        if name in connection_names:
            continue
        # A key stays a key in whatever field it is repeated.
        if name == holder or field.value == key or not field.value:
            credentials += field.tail
        else:
            others.append(field.line)
    unkeyed = b""
    for kind, read in ((FieldKind.PROTOCOLS, _split_protocols), (FieldKind.COOKIE, _split_cookies)):
        for field in by_kind.get(kind, ()):
            one, rest = read(field.value, rules)
            if one is not None and key is None:
                key = one
            name = grammar.parse_field_name(field.line)
            if name in connection_names:
                continue
            if one is None:
                others.append(field.line)
                continue
            credentials += field.line + b"\r\n"
            if rest:
                unkeyed += b"%b: %b\r\n" % (field.line.partition(b":")[0], rest)
    return KeyLines(key, credentials, unkeyed, others)


def _collect_key_fields(by_kind: FieldsByKind) -> dict[bytes, Field]:
    """Return the fields that may hold a key by their names; raises RejectedError(400) if one is repeated."""
    fields: dict[bytes, Field] = {}
    for field in (*by_kind.get(FieldKind.API_KEY, ()), *by_kind.get(FieldKind.BEARER, ())):
        name = grammar.parse_field_name(field.line)
        if name in fields:
            raise RejectedError(400, f"{field.line.partition(b':')[0].decode()} is repeated")
        fields[name] = field
    return fields


def _split_protocols(value: bytes, rules: FieldRules) -> tuple[bytes | None, bytes]:
    """Return (the key among the subprotocols of a line, the others) (RFC 6455 section 4.1)."""
    members = [member.strip(grammar.OWS) for member in value.split(b",")]
    keys = [member for member in members if member.startswith(PROTOCOL_PREFIX)]
    rest = b", ".join([member for member in members if member not in keys])
    return (keys[0][len(PROTOCOL_PREFIX) :] if keys else None), rest


def _split_cookies(value: bytes, rules: FieldRules) -> tuple[bytes | None, bytes]:
    """Return (the key in a Cookie line, the other cookies) (RFC 6265 section 4.2)."""
    assert rules.cookie is not None
    pairs = [pair.strip(grammar.OWS) for pair in value.split(b";")]
    mine = [pair for pair in pairs if pair.partition(b"=")[0].rstrip(grammar.OWS) == rules.cookie]
    rest = b"; ".join([pair for pair in pairs if pair not in mine])
    return (mine[0].partition(b"=")[2].strip(grammar.OWS).strip(b'"') if mine else None), rest
