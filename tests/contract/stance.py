"""Differences between this edge and other proxies, with reasons.

The results of nginx and Caddy were measured with `python -m tests.contract --beside nginx,caddy`, nginx 1.22.1 and
Caddy 2.6.2, both as plain reverse proxies with the configuration of `beside/peers.py`. `beside/observe.py` defines
their form: the statuses, then the requests that reached the upstream, then whether the connection was closed.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Stance(NamedTuple):
    """A decision of this edge, its reason, and the rows that show it."""

    decided: str
    why: str
    rows: tuple[tuple[str, str, str], ...]
    """(row, result of nginx, result of Caddy)"""


STANCES = (
    # ---- stricter with clients
    Stance(
        "CONNECT, and a known method in other letters than its own, are not forwarded",
        "docs/design/contract.md#requests has 501 for them. Services that take `get` for GET would be asked past the "
        "methods of a route",
        (
            ("start_line-a method in lower case is another method", "400 | closed", "200 | get /"),
            ("start_line-CONNECT to a path", "405 | closed", "200 | CONNECT /x"),
        ),
    ),
    Stance(
        "Versions above 1.1 are 505",
        "docs/design/contract.md#requests. RFC 9110 section 2.5 would have HTTP/1.2 taken for 1.1; nobody speaks it",
        (("start_line-a later minor version", "200 | GET /", "200 | GET /"),),
    ),
    Stance(
        "One space between the parts of a request line, CRLF at the end of every line",
        "RFC 9112 sections 2.2 and 3 allow leniency to who is at the end of a chain. In the middle of one, another "
        "reading of LF is where smuggling begins",
        (
            ("start_line-two spaces before the target", "200 | GET /", "400 | closed"),
            ("start_line-bare LF at the end of every line", "200 | GET /", "200 | GET /"),
            (
                "fields-a head that ends with LF LF",
                "200, 200 | GET /f, GET /smuggled",
                "200, 200 | GET /f, GET /smuggled",
            ),
            ("chunks-a bare LF behind a size", "200, 200 | POST / +5, GET /next", "200, 200 | POST / +5, GET /next"),
        ),
    ),
    Stance(
        "A target has no bytes above ASCII and no fragment, a path no quotes",
        "RFC 9112 section 3.2: invalid request lines are 400, and are not to be corrected on their way, as they may be "
        "made to get past a filter. Browsers and curl escape such bytes in paths. In a query, where no route looks, "
        "curl, Go and Node send quotes and angle brackets raw: there they are escaped and passed on",
        (
            ("targets-UTF-8", "200 | GET /Ã©", "200 | GET /%C3%A9"),
            ("targets-a fragment", "200 | GET /a#b", "200 | GET /a%23b"),
            ("targets-quotes", '200 | GET /a"b', "200 | GET /a%22b"),
        ),
    ),
    Stance(
        "A path is forwarded in the one form in which it was routed",
        "docs/design/contract.md#requests: otherwise /public/../admin is public to the edge and admin to the service",
        (
            ("targets-two dots", "200 | GET /a/../b", "200 | GET /a/../b"),
            ("targets-an escaped letter", "200 | GET /%61dmin", "200 | GET /%61dmin"),
            ("targets-dots with parameters", "200 | GET /a/..;/b", "200 | GET /a/..;/b"),
        ),
    ),
    Stance(
        "An absolute-form target and Host name one host",
        "RFC 9112 section 3.2.2 lets the target win. Who routes by the other is led astray, so both must agree",
        (("targets-a URI of another host than Host's", "200 | GET /", "200 | GET /"),),
    ),
    Stance(
        "A Host is a host and a port",
        "RFC 9112 section 3.2: an invalid Host is 400",
        (
            ("targets-a host with user information", "200 | GET /", "400 | closed"),
            ("targets-two ports", "200 | GET /", "200 | GET /"),
        ),
    ),
    Stance(
        "A field line with a bad name or a control character makes the request malformed",
        "RFC 9112 section 5.1, RFC 9110 section 5.5. nginx drops lines with bad names, and forwards the rest",
        (
            ("fields-an at sign in a name", "200 | GET /f", "400 | closed"),
            ("fields-a name alone", "200 | GET /f", "400 | closed"),
            ("fields-a vertical tab within a value", "200 | GET /f", "400 | closed"),
            ("fields-no name", "400 | closed", "200 | GET /f"),
        ),
    ),
    Stance(
        "No line is folded",
        "RFC 9112 section 5.2 has a proxy refuse it or mend it; what is mended is read otherwise by somebody",
        (("fields-a folded line", "400 | closed", "200 | GET /f"),),
    ),
    Stance(
        "Content-Length never stands beside Transfer-Encoding",
        "RFC 9112 section 6.1 allows chunked to win; section 11.2 says what that is good for",
        (("length_and_coding-CL.TE", "400 | closed", "200, 200 | POST /, GET /smuggled"),),
    ),
    Stance(
        "Chunked that is not last, or there twice, is 400; a coding that is not known is 501",
        "RFC 9112 section 6.3: where chunked is not the final coding the answer must be 400. Section 6.1: 501",
        (("codings-chunked, then identity", "501 | closed", "501 | closed"),),
    ),
    Stance(
        "Extensions are limited as a whole, trailers are read strictly",
        "RFC 9112 sections 7.1.1 and 7.1.2: a recipient limits their length; a trailer section is one of fields",
        (
            (
                "chunks-extensions of more bytes than the body is worth",
                "200, 200 | POST / +100, GET /next",
                "200, 200 | POST / +100, GET /next",
            ),
            ("chunks-a request line as a trailer", "200, 200 | POST /, GET /next", "502 | closed"),
        ),
    ),
    Stance(
        "HTTP/1.0 gets one answer a connection",
        "What it says of persistence is not worth its rules: RFC 9112 appendix C.2.2",
        (("persistence-HTTP/1.0 that wants to stay", "200 | GET /1", "200 | GET /1"),),
    ),
    Stance(
        "OPTIONS * is on no route",
        "Routes are paths; nothing says which service a question to the server as a whole would be for",
        (("persistence-OPTIONS for the server as a whole is on no route", "400 | closed", "200, 200 | GET /next"),),
    ),
    # ---- stricter with upstreams
    Stance(
        "An answer with two framings, or two lengths, is a fault",
        "RFC 9112 section 6.3: what passes on one of them has chosen for everybody behind it",
        (
            ("faults-a length and chunked", "200", "200"),
            ("faults-two lengths that agree", "200 +5", "200 +5"),
        ),
    ),
    Stance(
        "A body that breaks is visibly cut off, for HTTP/1.0 by a reset",
        "RFC 9112 section 8: it must not look complete. Caddy ends a broken chunked body as if it were whole",
        (
            ("faults-closed within a chunk", "cut off", "200 +3"),
            ("faults-closed within a chunk, for HTTP/1.0", "200 +3", "odd: HTTP/1.0 200 OK"),
        ),
    ),
    Stance(
        "A head of an answer is read as strictly as one of a request",
        "A bare LF in a value would be a line of its own to some client. nginx and Caddy take LF for a line's end",
        (
            ("faults-bare LF at the end of every line", "200 +5", "200 +5"),
            ("faults-a control character in an answer's field", "200 +5", "200 +5"),
            ("faults-a later minor version", "200 +5", "200 +5"),
        ),
    ),
    Stance(
        "Nobody is switched to a protocol that was not asked for",
        "RFC 9110 section 15.2.2. With 101 passed on, what the upstream sends next is the client's next answer",
        (("faults-101 to HEAD", "101", "200"),),
    ),
    # ---- looser
    Stance(
        "Interim answers pass",
        "RFC 9110 section 15.2 asks it of a proxy. nginx 1.22 takes the first one for the answer",
        (("answers-103 and then the answer", "waits", "200 +5"),),
    ),
    Stance(
        "Whitespace around Host, a length or a coding is whitespace",
        "RFC 9112 section 5.1: any of it around a value is left out. nginx takes no tab there",
        (
            ("targets-whitespace around the host", "400 | closed", "200 | GET /h"),
            ("lengths-whitespace around a length", "400 | closed", "200, 200 | POST / +5, GET /next"),
        ),
    ),
    Stance(
        "Whitespace before a colon of an answer is removed",
        "RFC 9112 section 5.1 asks just that of a proxy",
        (("hops-whitespace before a colon of the answer is removed", "502 +157", "200 +5"),),
    ),
    Stance(
        "Heads of answers may have 64 KiB",
        "Cookies of some services need it. nginx has a page of 4 or 8 KiB for them unless it is told otherwise",
        (("answers-a head of 60 KiB", "502 +157", "200 +5"),),
    ),
    Stance(
        "An empty line before a request is ignored",
        "RFC 9112 section 2.2: at least one should be",
        (("start_line-an empty line before the request", "200 | GET /e", "400 | closed"),),
    ),
)
"""All relevant differences. In other rows, the proxies agree or their difference does not matter."""


def check(cells: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the recorded results that differ from `cells`, which `beside.table.observe` returns."""
    outdated = []
    for stance in STANCES:
        for row, nginx, caddy in stance.rows:
            for name, said in (("nginx", nginx), ("caddy", caddy)):
                seen = cells.get(row, {}).get(name, said)
                if seen != said:
                    outdated.append(f"{row}: {name} did {seen!r}, not {said!r}")
    return outdated
