"""Request targets and hosts: RFC 9112 section 3.2, RFC 9110 sections 4 and 7.2, RFC 3986; the path rule of
docs/design/contract.md#requests."""

from tests.contract.case import HOST, Asked, Seen, forwarded, get, lines, refused


def passes(name: str, target: str, as_: str | None = None, rule: str = "RFC 3986 3.3") -> Asked:
    """A target in origin-form that is forwarded, unchanged or in its normal form."""
    return forwarded(name, rule, get(target), f"GET {as_ or target} HTTP/1.1")


def no_target(name: str, target: bytes, rule: str = "RFC 9112 3.2") -> Asked:
    """A target that is refused."""
    return refused(name, rule, b"GET " + target + f" HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())


def hosted(name: str, host: str, rule: str = "RFC 9112 3.2") -> Asked:
    """A Host that is forwarded unchanged."""
    return forwarded(
        name, rule, lines("GET /h HTTP/1.1", f"Host:{host}"), Seen("GET /h HTTP/1.1", has=(f"Host:{host}",))
    )


def no_host(name: str, *fields: str, rule: str = "RFC 9112 3.2") -> Asked:
    """Host lines that are refused."""
    return refused(name, rule, lines("GET / HTTP/1.1", *fields))


def absolute(name: str, target: str, as_: str, *fields: str, rule: str = "RFC 9112 3.2.2") -> Asked:
    """A target in absolute-form, forwarded in origin-form."""
    request = lines(f"GET {target} HTTP/1.1", *(fields or (f"Host: {HOST}",)))
    return forwarded(name, rule, request, Seen(f"GET {as_} HTTP/1.1", has=fields or (f"Host: {HOST}",)))


TARGETS = (
    # ---- origin-form
    passes("a query", "/a?b=c&d"),
    passes("an empty query", "/a?"),
    passes("a question mark in the query", "/a?b?c"),
    passes("slashes in the query", "/a?b=/../c//d"),
    passes("an escape in the query stays as it is", "/a?b=%2f%2e%00"),
    passes("a percent sign alone in the query", "/a?b=100%"),
    passes("a backslash in the query", "/a?path=C:\\x"),
    passes("quotes in the query", '/a?filter={"a":1}', "/a?filter={%22a%22:1}", "docs/design/contract.md#requests"),
    passes("angle brackets in the query", "/a/../b?<c>=<d", "/b?%3Cc%3E=%3Cd", "docs/design/contract.md#requests"),
    absolute("quotes in a URI's query", f'http://{HOST}/a?"b"', "/a?%22b%22", rule="docs/design/contract.md#requests"),
    passes("what browsers leave unescaped", "/a[1]^`{b|c}?d={e|f}[]^`"),
    passes("every character that is allowed in a path", "/-._~!$&'()*+,;=:@"),
    passes("parameters of a segment", "/a;v=1.1/b"),
    passes("two slashes", "/a//b"),
    passes("two slashes first", "//a/b"),
    passes("only slashes", "///"),
    passes("a colon in the first segment", "/a:b"),
    passes("something that looks like a URL", "/http://b.example/"),
    passes("a long path", "/" + "a/" * 3000),
    passes("a long query", "/?" + "a=b&" * 1900),
    # ---- the one form of a path
    passes("a dot segment", "/a/./b", "/a/b", "RFC 3986 6.2.2.3"),
    passes("a dot segment last", "/a/.", "/a/", "RFC 3986 6.2.2.3"),
    passes("two dots", "/a/../b", "/b", "RFC 3986 6.2.2.3"),
    passes("escaped dots", "/a/%2e%2E/b", "/b", "RFC 3986 6.2.2.2"),
    passes("half-escaped dots", "/a/.%2e/b", "/b", "RFC 3986 6.2.2.2"),
    passes("an escaped letter", "/%61dmin", "/admin", "RFC 3986 6.2.2.2"),
    passes("an escape in lower case", "/a%c3%a9", "/a%C3%A9", "RFC 3986 6.2.2.1"),
    passes("dots that are no dot segment", "/a/.../b/.c/d.", None, "RFC 3986 5.2.4"),
    passes("two escapes deep is data", "/a%252e%252e/b", None, "RFC 3986 2.4"),
    no_target("above the root", b"/..", "RFC 3986 5.2.4"),
    no_target("above the root, escaped", b"/a/%2e%2e/%2e%2e/b", "RFC 3986 5.2.4"),
    passes("an escaped slash", "/a%2fb", "/a%2Fb", "RFC 3986 2.2"),
    passes("an escaped slash alone in its segment", "/queues/%2F/name", None, "RFC 3986 2.2"),
    no_target("an escaped slash that leads past a route", b"/keyed%2Fa", "docs/design/contract.md#requests"),
    no_target("two slashes, one escaped, that do", b"/%2Fkeyed/a", "docs/design/contract.md#requests"),
    no_target("dots beside an escaped slash", b"/a/..%2Fkeyed/a", "docs/design/contract.md#requests"),
    no_target("dots with parameters beside one", b"/a/b%2F..;x/a", "docs/design/contract.md#requests"),
    no_target("an escaped backslash", b"/a%5Cb", "docs/design/contract.md#requests"),
    no_target("an escaped NUL", b"/a%00", "docs/design/contract.md#requests"),
    no_target("dots with parameters", b"/a/..;/b", "docs/design/contract.md#requests"),
    no_target("a percent sign alone", b"/a%", "RFC 3986 2.1"),
    no_target("a percent sign with one digit", b"/a%2", "RFC 3986 2.1"),
    no_target("a percent sign with letters", b"/a%zz", "RFC 3986 2.1"),
    no_target("an escape of another kind", b"/a%u002e", "RFC 3986 2.1"),
    # ---- invalid targets
    no_target("a fragment", b"/a#b", "RFC 9112 3.2"),
    no_target("a fragment in the query", b"/a?b#c", "RFC 9112 3.2"),
    no_target("a backslash in the path", b"/a\\b"),
    no_target("quotes", b'/a"b'),
    no_target("angle brackets", b"/<a>"),
    no_target("quotes in path and query", b'/a"b?"c"'),
    no_target("quotes in a URI's path", f'http://{HOST}/a"b?c'.encode()),
    no_target("quotes in a URI's host", f'http://"{HOST}"/?c'.encode()),
    no_target("quotes and a control character in the query", b'/?"a"\x01'),
    no_target("a byte above ASCII", b"/\xe9"),
    no_target("UTF-8", "/é".encode()),
    no_target("UTF-8 in the query", "/?é".encode()),
    no_target("a DEL", b"/a\x7f"),
    no_target("a NUL", b"/a\0"),
    no_target("a control character in the query", b"/?a\x01"),
    no_target("a bare LF in the path", b"/a\nb"),
    no_target("a bare CR in the query", b"/?a\rb"),
    no_target("a path that does not begin with a slash", b"a/b"),
    no_target("only a query", b"?a"),
    no_target("an authority", f"{HOST}:80".encode(), "RFC 9112 3.2.3"),
    no_target("an asterisk for GET", b"*", "RFC 9112 3.2.4"),
    no_target("an asterisk and more", b"*/a", "RFC 9112 3.2.4"),
    # ---- absolute-form
    absolute("a URI of this host", f"http://{HOST}/a?b", "/a?b"),
    absolute("a URI of https", f"https://{HOST}/a", "/a"),
    absolute("a scheme in upper case", f"HTTP://{HOST}/a", "/a"),
    absolute("a host in upper case", f"http://{HOST.upper()}/a", "/a"),
    absolute("a URI with the default port", f"http://{HOST}:80/a", "/a"),
    absolute("the default port in Host alone", f"http://{HOST}/a", "/a", f"Host: {HOST}:80"),
    absolute("a URI with a port that Host has too", f"http://{HOST}:8080/a", "/a", f"Host: {HOST}:8080"),
    absolute("a URI without a path", f"http://{HOST}", "/"),
    absolute("a URI with only a query", f"http://{HOST}?a", "/?a"),
    absolute("dots in a URI", f"http://{HOST}/a/../b", "/b"),
    no_target("a URI of another host than Host's", b"http://internal.test/"),
    no_target("a URI of another port than Host's", f"http://{HOST}:81/".encode()),
    no_target("a URI with user information", f"http://user@{HOST}/".encode(), "RFC 9110 4.2.4"),
    no_target("another host behind user information", f"http://{HOST}@internal.test/".encode(), "RFC 9110 4.2.4"),
    no_target("a URI without a host", b"http:///a", "RFC 9110 4.2.1"),
    no_target("a URI of another scheme", f"ftp://{HOST}/a".encode(), "RFC 9110 4.2"),
    no_target("a URI without slashes", f"http:{HOST}/a".encode(), "RFC 9110 4.2.1"),
    no_target("a URI with a backslash", f"http:\\\\{HOST}/a".encode(), "RFC 9110 4.2.1"),
    no_target("a URI with a fragment", f"http://{HOST}/a#b".encode(), "RFC 9112 3.2.2"),
    # ---- Host
    hosted("a host with a port", f" {HOST}:8080"),
    hosted("a host in upper case passes as it is", f" {HOST.upper()}"),
    hosted("a host with a trailing dot", f" {HOST}."),
    hosted("a host with an empty port", f" {HOST}:", "RFC 3986 3.2.3"),
    hosted("an IPv4 address", " 192.0.2.1"),
    hosted("an IPv6 address", " [2001:db8::1]:8080"),
    hosted("an underscore in the host", " a_b.example"),
    hosted("no whitespace before the host", HOST),
    hosted("whitespace around the host", f" \t {HOST} \t"),
    no_host("no Host at all"),
    no_host("no Host, but fields", "Accept: */*"),
    no_host("two hosts", f"Host: {HOST}", "Host: internal.test"),
    no_host("the same host twice", f"Host: {HOST}", f"Host: {HOST}"),
    no_host("the other host first, in another case", "HOST: internal.test", f"host: {HOST}"),
    no_host("a list of hosts", f"Host: {HOST}, internal.test"),
    no_host("an empty host", "Host:", rule="RFC 9110 4.2.1"),
    no_host(
        "a host that is a list to some services", f"Host: {HOST},other.test", rule="docs/design/contract.md#requests"
    ),
    no_host("a host of dots", "Host: ."),
    no_host("a host of a port", "Host: :80", rule="RFC 9110 4.2.1"),
    no_host("a host with a space", f"Host: {HOST} internal.test"),
    no_host("a host with a path", f"Host: {HOST}/internal"),
    no_host("a host with a query", f"Host: {HOST}?a"),
    no_host("a host with a fragment", f"Host: {HOST}#a"),
    no_host("a host with user information", f"Host: user@{HOST}"),
    no_host("a host with a scheme", f"Host: http://{HOST}"),
    no_host("a host with a backslash", f"Host: {HOST}\\internal"),
    no_host("an escape in the host", "Host: edge%2etest"),
    no_host("a port that is too large", f"Host: {HOST}:65536"),
    no_host("a port that is no number", f"Host: {HOST}:80a"),
    no_host("a negative port", f"Host: {HOST}:-80"),
    no_host("two ports", f"Host: {HOST}:80:80"),
    no_host("an address without its brackets", "Host: 2001:db8::1"),
    no_host("brackets around a name", f"Host: [{HOST}]"),
    no_host("a zone in an address", "Host: [fe80::1%25eth0]"),
    no_host("a byte above ASCII in the host", "Host: edge\xe9.test"),
    no_host("a NUL in the host", f"Host: {HOST}\0.internal.test"),
    no_host("a folded Host", "Host:", f" {HOST}", rule="RFC 9112 5.2"),
    no_host("whitespace before Host's colon", f"Host : {HOST}", rule="RFC 9112 5.1"),
    no_host("a Host of underscores is none", f"H_ost: {HOST}"),
)
"""Rows about targets and hosts."""
