"""Trouble around the edge: its log, its hub, its collector, and services whose health is checked; tokens to verify."""

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from loadtest.neighbours.kinds.heads import endless, head, once
from loadtest.neighbours.neighbour import EDGE, Neighbour, Piece, Polite, Site

HOST = "127.0.0.1"
_KEYED = Polite("/keyed", fields="X-API-Key: ek_good\r\n")
_ADMIN = Polite("/healthz", door="admin")
_REQUESTS = endless(head("/small") * 500)
_KEYED_REQUESTS = endless(head("/keyed", "X-API-Key: ek_good") * 500)
_QUIET = once(b"")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _tokens(algorithm: str, signature_bytes: int) -> Callable[[bytearray], Iterator[Piece]]:
    """Tokens with wrong signatures. Each one costs a verification."""
    begin = ".".join(
        _base64(json.dumps(part).encode())
        for part in (
            {"alg": algorithm, "kid": algorithm, "typ": "JWT"},
            {"iss": "idp", "aud": "edge", "sub": "good", "exp": 1 << 32},
        )
    )

    def pieces(inbox: bytearray) -> Iterator[Piece]:
        for number in count(1):
            signatures = ((number * 100 + each).to_bytes(signature_bytes, "big") for each in range(100))
            yield b"".join(
                head("/jwt", f"Authorization: Bearer {begin}.{_base64(signature)}") for signature in signatures
            )

    return pieces


def _issuer(algorithm: str, site: Site) -> Mapping[str, Any]:
    """An issuer with one key, and a route that takes its tokens."""
    if algorithm == "RS256":
        public = rsa.generate_private_key(65537, 4096).public_key().public_numbers()
        key = {"kty": "RSA", "n": _number(public.n), "e": _number(public.e)}
    else:
        point = ec.generate_private_key(ec.SECP521R1()).public_key().public_numbers()
        key = {
            "kty": "EC",
            "crv": "P-521",
            "x": _base64(point.x.to_bytes(66, "big")),
            "y": _base64(point.y.to_bytes(66, "big")),
        }
    file = site.folder / "jwks.json"
    file.write_text(json.dumps({"keys": [{**key, "kid": algorithm, "alg": algorithm, "use": "sig"}]}))
    return {
        "issuers": {"idp": {"issuer": "idp", "jwks": str(file), "audiences": "edge", "algorithms": algorithm}},
        "routes": [{"name": "jwt", "path": "/jwt", "upstream": "bad", "auth": "jwt"}],
    }


def _unread_log(site: Site) -> Mapping[str, Any]:
    """An access log that is a pipe. The bench opens it and does not read."""
    file = site.folder / "access.log"
    os.mkfifo(file)
    os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # Open for as long as the bench runs.
    return {"access_log": str(file)}


def _hub(port: Callable[[Site], int], site: Site) -> Mapping[str, Any]:
    return {"hub": f"redis://{HOST}:{port(site)}"}


def _collector(site: Site) -> Mapping[str, Any]:
    return {"usage": {"collector": f"http://{HOST}:{site.services.interim}", "every": "500ms"}}


def _traces(site: Site) -> Mapping[str, Any]:
    return {"tracing": {"endpoint": f"http://{HOST}:{site.services.interim}", "sample": "100%"}}


def _health(port: Callable[[Site], int], site: Site) -> Mapping[str, Any]:
    sick = {"endpoints": [f"http://{HOST}:{port(site)}"], "health": {"path": "/healthz", "every": "1s"}}
    return {"upstreams": {"sick": sick}}


def _key_set(site: Site) -> Mapping[str, Any]:
    url = f"http://{HOST}:{site.services.interim}/jwks"
    return {"issuers": {"idp": {"issuer": "idp", "jwks": url, "audiences": "edge"}}}


def _interim(site: Site) -> int:
    return site.services.interim


def _silent(site: Site) -> int:
    return site.services.silent


def _unused(site: Site) -> int:
    return site.services.unused


ROWS = (
    Neighbour("jwt-invalid-rs256", _tokens("RS256", 512), peers=EDGE, settings=partial(_issuer, "RS256")),
    Neighbour("jwt-invalid-es512", _tokens("ES512", 132), peers=EDGE, settings=partial(_issuer, "ES512")),
    Neighbour("log-unread", _REQUESTS, peers=EDGE, settings=_unread_log),
    Neighbour("hub-away", _KEYED_REQUESTS, peers=EDGE, polite=_KEYED, settings=partial(_hub, _unused)),
    Neighbour("hub-silent", _KEYED_REQUESTS, peers=EDGE, polite=_KEYED, settings=partial(_hub, _silent)),
    Neighbour("collector-endless", _KEYED_REQUESTS, peers=EDGE, polite=_ADMIN, settings=_collector),
    Neighbour("traces-endless", _REQUESTS, peers=EDGE, polite=_ADMIN, settings=_traces),
    Neighbour("health-endless", _QUIET, peers=EDGE, polite=_ADMIN, settings=partial(_health, _interim)),
    Neighbour("health-silent", _QUIET, peers=EDGE, polite=_ADMIN, settings=partial(_health, _silent)),
    Neighbour("key-set-endless", _QUIET, peers=EDGE, polite=_ADMIN, settings=_key_set),
)
