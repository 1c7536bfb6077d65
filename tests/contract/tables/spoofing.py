"""The stamps that upstreams receive and clients cannot set: docs/design/contract.md#stamps."""

from loadtest.testbed.customers import key_of
from tests.contract.case import FROM_ANYBODY, FROM_TRUSTED, HOST, Asked, Seen, chunked, get, refused

STAMPS = "docs/design/contract.md#stamps"

KEY = f"X-API-Key: {key_of('acme')}"
H = f"Host: {HOST}"

SIX_EDGES = ", ".join(["1.1 edgeproxy"] * 6)

NEVER = {
    "X-Customer-Id": "root",
    "X-Customer-Tier": "enterprise",
    "X-Edge-Region": "moon",
    "X-Edge-Signature": "t=1,v1=00",
}
"""Stamps that only the edge sets, with forged values."""

OF_PROXIES = {
    "X-Request-Id": "mine",
    "X-Forwarded-For": "203.0.113.66",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "bank.example",
    "X-Forwarded-Port": "1",
    "X-Real-IP": "203.0.113.66",
    "Forwarded": "for=203.0.113.66",
}
"""Fields that only a trusted proxy may send."""

BELIEVED = {
    "X-Rewrite-URL": "/admin",
    "X-HTTP-Method-Override": "DELETE",
    "X-Envoy-Original-Path": "/admin",
    "X-Remote-User": "root",
    "X-Forwarded-User": "root",
    "Remote-User": "root",
    "Client-Cert": ":cm9vdA==:",
    "X-Client-IP": "203.0.113.66",
    "True-Client-IP": "203.0.113.66",
    "X-Cluster-Client-IP": "203.0.113.66",
    "CF-Connecting-IP": "203.0.113.66",
    "CF-IPCountry": "DE",
    "Fastly-Client-IP": "203.0.113.66",
}
"""Fields that services may trust although the edge does not use them (config/edge/proxy_fields.py)."""

OWN = {
    "X-Edge-Region": "eu-test",
    "X-Forwarded-For": FROM_ANYBODY,
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": HOST,
    "X-Customer-Id": "acme",
    "X-Customer-Tier": "pro",
}
"""The stamps of a request with a key from an untrusted client."""

SPELLINGS = {
    "as it is": lambda name: name,
    "in lower case": str.lower,
    "in upper case": str.upper,
    "with underscores": lambda name: name.replace("-", "_"),
    "with underscores, in lower case": lambda name: name.replace("-", "_").lower(),
    "with dots": lambda name: name.replace("-", "."),
    "with its last hyphen as an underscore": lambda name: "_".join(name.rsplit("-", 1)),
}
"""Spellings of a field name that a server may read as that name when it turns fields into variables."""


def seen_as(name: str, path: str) -> Seen:
    """Return the request that the upstream must receive if a client forges this name."""
    keyed = path.startswith("/keyed/")
    own = {key: value for key, value in OWN.items() if keyed or not key.startswith("X-Customer")}
    has = tuple(f"{key}: {value}" for key, value in own.items())
    lacks = {name.replace("-", "_"), name.replace("-", "."), "_".join(name.rsplit("-", 1)), "X-Edge-Signature"} - (
        {name} - set(NEVER)
    )
    lacks.discard("X-Edge-Region")
    if name in ("X-Forwarded-Port", "X-Real-IP", "Forwarded", *BELIEVED):
        lacks.add(name)
    if not keyed:
        lacks |= {"X-Customer-Id", "X-Customer-Tier"}
    return Seen(f"GET {path} HTTP/1.1", has=has, lacks=tuple(sorted(lacks)))


def forged(name: str, value: str, spelling: str, path: str) -> Asked:
    """Return a row of a client that sends `value` under a forbidden name."""
    line = f"{SPELLINGS[spelling](name)}: {value}"
    fields = (line, KEY) if path.startswith("/keyed/") else (line,)
    title = f"{name} {spelling} on {'a route with keys' if KEY in fields else 'an open route'}"
    return Asked(title, STAMPS, get(path, *fields), (seen_as(name, path),), (200,))


def named(name: str) -> Asked:
    """Return a row with a Connection that names a field that the upstream must still receive."""
    request = get("/keyed/n", f"Connection: {name}, close", KEY)
    return Asked(f"Connection names {name}", "RFC 9110 7.6.1", request, (seen_as("", "/keyed/n"),), (200,), True)


def trusted(
    name: str, *fields: str, has: tuple[str, ...] = (), lacks: tuple[str, ...] = (), answer: tuple[str, ...] = ()
) -> Asked:
    """Return a row of a trusted proxy that sends fields about its client."""
    seen = Seen("GET /t HTTP/1.1", has=has, lacks=lacks)
    return Asked(name, STAMPS, get("/t", *fields), (seen,), (200,), has=answer, source=FROM_TRUSTED)


SPOOFING = (
    *(
        forged(name, value, spelling, path)
        for name, value in {**NEVER, **OF_PROXIES}.items()
        for spelling in SPELLINGS
        for path in ("/keyed/f", "/open")
        if spelling in ("as it is", "in lower case", "in upper case") or "-" in name
    ),
    *(
        forged(name, value, spelling, "/open")
        for name, value in BELIEVED.items()
        for spelling in ("as it is", "with dots")
    ),
    Asked(
        "what services believe of proxies, as trailers",
        "RFC 9110 6.5.1",
        chunked(b"0\r\n", *(f"{name}: {value}\r\n".encode() for name, value in BELIEVED.items()), b"X-Sum: 1\r\n\r\n"),
        (Seen("POST / HTTP/1.1", trailers=("X-Sum: 1",)),),
        (200,),
    ),
    *(
        named(name)
        for name in (
            *NEVER,
            "X-Request-Id",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "Host",
            "Via",
            "traceparent",
        )
    ),
    Asked(
        "several forwarders of one name",
        STAMPS,
        get("/x", "X-Forwarded-For: 203.0.113.66", "x-forwarded-for: 10.0.0.1", "X_Forwarded_For: 10.0.0.2"),
        (Seen("GET /x HTTP/1.1", has=(f"X-Forwarded-For: {FROM_ANYBODY}",), lacks=("X_Forwarded_For",)),),
        (200,),
    ),
    Asked(
        "a key does not pass",
        STAMPS,
        get("/keyed/k", KEY),
        (Seen("GET /keyed/k HTTP/1.1", lacks=("X-API-Key", "Authorization")),),
        (200,),
    ),
    Asked(
        "a bearer key does not pass",
        STAMPS,
        get("/keyed/k", f"Authorization: Bearer {key_of('acme')}"),
        (Seen("GET /keyed/k HTTP/1.1", has=("X-Customer-Id: acme",), lacks=("X-API-Key", "Authorization")),),
        (200,),
    ),
    Asked("a key that is nobody's", STAMPS, get("/keyed/k", "X-API-Key: nobody"), (), (401,)),
    Asked(
        "a key with underscores in its name is none",
        STAMPS,
        get("/keyed/k", f"X_API_Key: {key_of('acme')}"),
        (),
        (401,),
    ),
    Asked("no key, but a customer", STAMPS, get("/keyed/k", "X-Customer-Id: acme"), (), (401,)),
    Asked(
        "another scheme is the upstream's affair",
        "RFC 9110 11.6.2",
        get("/keyed/k", KEY, "Authorization: Basic dTpw"),
        (Seen("GET /keyed/k HTTP/1.1", has=("Authorization: Basic dTpw",), lacks=("X-API-Key",)),),
        (200,),
    ),
    Asked(
        "a list in Via is continued",
        "RFC 9110 7.6.3",
        get("/x", "Via: 1.0 fred", "Via: HTTP/2.0 cdn"),
        (Seen("GET /x HTTP/1.1", has=("Via: 1.0 fred, HTTP/2.0 cdn, 1.1 edgeproxy",)),),
        (200,),
    ),
    Asked(
        "a request comes through several edges",
        "RFC 9110 7.6.3",
        get("/x", f"Via: {SIX_EDGES}", "Via: 1.0 edgeproxy, 1.1 edgeproxy.example"),
        (Seen("GET /x HTTP/1.1", has=(f"Via: {SIX_EDGES}, 1.0 edgeproxy, 1.1 edgeproxy.example, 1.1 edgeproxy",)),),
        (200,),
    ),
    refused(
        "edges that lead to each other pass no request on for ever",
        "RFC 9110 7.6.3",
        get("/x", f"Via: {SIX_EDGES}", "Via: 1.1 edgeproxy, 1.0 edgeproxy"),
    ),
    Asked(
        "a state without a trace does not pass",
        "Trace Context 3.3",
        get("/x", "tracestate: a=b"),
        (Seen("GET /x HTTP/1.1", lacks=("tracestate",)),),
        (200,),
    ),
    # ---- from trusted proxies
    trusted(
        "a trusted proxy says who asks",
        *(f"{name}: {value}" for name, value in OF_PROXIES.items()),
        has=(
            "X-Request-Id: mine",
            f"X-Forwarded-For: 203.0.113.66, {FROM_TRUSTED}",
            "X-Forwarded-Proto: gopher",
            "X-Forwarded-Host: bank.example",
            "X-Forwarded-Port: 1",
            "X-Real-IP: 203.0.113.66",
            "Forwarded: for=203.0.113.66",
        ),
        answer=("X-Request-Id: mine",),
    ),
    trusted(
        "a trusted proxy says what services believe",
        *(f"{name}: {value}" for name, value in BELIEVED.items()),
        has=tuple(f"{name}: {value}" for name, value in BELIEVED.items()),
    ),
    trusted(
        "a trusted proxy that says nothing",
        has=(f"X-Forwarded-For: {FROM_TRUSTED}", "X-Forwarded-Proto: http", f"X-Forwarded-Host: {HOST}"),
        lacks=("X-Real-IP", "Forwarded", "X-Forwarded-Port"),
    ),
    *(
        trusted(
            f"not even a trusted proxy says {SPELLINGS[spelling](name)}",
            f"{SPELLINGS[spelling](name)}: {value}",
            has=("X-Edge-Region: eu-test",),
            lacks=(
                "X-Customer-Id",
                "X-Customer-Tier",
                "X_Customer_Id",
                "X_Customer_Tier",
                "X_Edge_Region",
                "X_Edge_Signature",
            ),
        )
        for name, value in NEVER.items()
        for spelling in ("as it is", "in lower case", "with underscores")
    ),
    *(
        trusted(
            f"a trusted proxy's {name} with underscores does not pass",
            f"{name.replace('-', '_')}: {value}",
            has=(f"X-Forwarded-For: {FROM_TRUSTED}", "X-Forwarded-Proto: http"),
            lacks=(name.replace("-", "_"), "X-Real-IP", "X-Forwarded-Port"),
        )
        for name, value in OF_PROXIES.items()
        if "-" in name
    ),
    *(
        trusted(
            f"a trusted proxy's Connection does not take {name} away",
            f"{name}: {OF_PROXIES[name]}",
            f"Connection: {name}",
            has=(f"{name}: {OF_PROXIES[name]}",),
        )
        for name in ("X-Forwarded-Port", "X-Real-IP", "Forwarded")
    ),
)
"""Rows about stamps. This edge has no secret and sets no X-Edge-Signature, so upstreams must receive none."""
