"""Heads as they come from clients and upstreams in life, and from people who mean harm. Written with LF for CRLF."""


def heads(text: str) -> tuple[bytes, ...]:
    """Split a text into heads at lines of `--`. Each head lacks its blank line, and its lines end with CRLF."""
    return tuple(part.strip("\n").replace("\n", "\r\n").encode("latin-1") + b"\r\n" for part in text.split("\n--\n"))


BROWSERS = heads("""
GET / HTTP/1.1
Host: api.example.com
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8
Accept-Language: en-GB,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Connection: keep-alive
Cookie: session=c2Vzc2lvbg==; theme="dark"
Upgrade-Insecure-Requests: 1
Sec-Fetch-Dest: document
Sec-Fetch-Mode: navigate
Priority: u=0, i
--
POST /v1/orders?currency=EUR&filter={a|b}&path=C:\\x HTTP/1.1
Host: api.example.com:8443
Connection: keep-alive
Content-Length: 17
sec-ch-ua: "Not/A)Brand";v="8", "Chromium";v="126"
sec-ch-ua-mobile: ?0
Authorization: Bearer ek_live_acme_6f1d0c9a7b3e4852
Content-Type: application/json
Origin: https://app.example.com
Referer: https://app.example.com/orders/new
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE
--
OPTIONS /v1/orders HTTP/1.1
Host: api.example.com
Access-Control-Request-Method: POST
Access-Control-Request-Headers: authorization,content-type
Origin: https://app.example.com
""")

PROGRAMS = heads("""
GET /v1/items/42 HTTP/1.1
Host: api.example.com
User-Agent: curl/8.5.0
Accept: */*
--
GET /v1/items HTTP/1.1
Host: 127.0.0.1:8080
X-API-Key: ek_live_tiny_90ab47c2d5e81f36
Accept-Encoding: identity
--
GET /h2c HTTP/1.1
Host: api.example.com
User-Agent: curl/8.5.0
Accept: */*
Connection: Upgrade, HTTP2-Settings
Upgrade: h2c
HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA
--
PUT /v1/files/a%20b HTTP/1.1
Host: [2001:db8::1]:8080
Content-Length: 1048576
Expect: 100-continue
If-Match: "abc"
--
POST /v1/upload HTTP/1.1
Host: api.example.com
Transfer-Encoding: chunked
Trailer: X-Checksum
TE: trailers
Connection: TE, close
--
HEAD /v1/items HTTP/1.0
Host: api.example.com
Connection: Keep-Alive
--
GET /old HTTP/1.0
User-Agent: ab/2.3
--
DELETE /v1/items/1 HTTP/1.1
Host: api.example.com
Authorization: Basic dXNlcjpwYXNz
--
GET http://api.example.com/v1/items?page=2 HTTP/1.1
Host: api.example.com
Proxy-Connection: keep-alive
Proxy-Authorization: Basic dXNlcjpwYXNz
--
OPTIONS * HTTP/1.1
Host: api.example.com
Max-Forwards: 10
--
PATCH /v1/items/2 HTTP/1.1
Host: API.Example.COM.
Via: 1.0 fred, 1.1 p.example.net
Via: HTTP/2.0 cdn
Content-Length: 0
X-Forwarded-For: 203.0.113.7
X-Forwarded-For: 10.0.0.1
X-Forwarded-Proto: https
X-Forwarded-Host: www.example.com
X-Forwarded-Port: 443
X-Real-IP: 203.0.113.7
Forwarded: for=203.0.113.7;proto=https
X-Request-Id: 018f4e2b-8f0a-7cc0-9d5e-3f6b1c2a4d5e
X-Customer-Id: mallory
X_Customer_Tier: enterprise
X-Edge-Region: moon
X-Edge-Signature: t=0,v1=00
""")

STREAMS = heads("""
GET /chat HTTP/1.1
Host: api.example.com
Upgrade: websocket
Connection: keep-alive, Upgrade
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Sec-WebSocket-Version: 13
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits
Sec-WebSocket-Protocol: chat, superchat
Origin: https://app.example.com
--
GET /events HTTP/1.1
Host: api.example.com
Accept: text/event-stream
Cache-Control: no-cache
Last-Event-ID: 42
Authorization: bearer ek_live_acme_6f1d0c9a7b3e4852
""")

SMUGGLERS = heads("""
POST / HTTP/1.1
Host: api.example.com
Content-Length: 6
Transfer-Encoding: chunked
--
POST / HTTP/1.1
Host: api.example.com
Content-Length: 6
Content-Length: 5
--
POST / HTTP/1.1
Host: api.example.com
Content-Length: 6, 6
--
POST / HTTP/1.1
Host: api.example.com
Transfer-Encoding: chunked
Transfer-Encoding: identity
--
POST / HTTP/1.1
Host: api.example.com
Transfer-Encoding: gzip, chunked
--
POST / HTTP/1.1
Host: api.example.com
Transfer-Encoding : chunked
--
POST / HTTP/1.1
Host: api.example.com
X: y
 Transfer-Encoding: chunked
--
POST / HTTP/1.0
Host: api.example.com
Transfer-Encoding: chunked
--
GET / HTTP/1.1
Host: api.example.com
Host: internal.example.com
--
GET http://internal.example.com/ HTTP/1.1
Host: api.example.com
--
GET / HTTP/1.1
Host: api.example.com
Connection: close, X-Forwarded-For, Host, Content-Length
Content_Length: 5
Transfer_Encoding: chunked
--
GET / HTTP/1.1
Host: api.example.com
Connection: Upgrade
Upgrade: websocket
Content-Length: 3
""")

REQUESTS = BROWSERS + PROGRAMS + STREAMS + SMUGGLERS

RESPONSES = heads("""
HTTP/1.1 200 OK
Date: Tue, 15 Nov 1994 08:12:31 GMT
Server: gunicorn
Content-Type: application/json
Content-Length: 17
Connection: keep-alive
Cache-Control: max-age=0, private
ETag: W/"67ab43"
Vary: Accept-Encoding, Origin
Set-Cookie: a=b; Path=/; HttpOnly
Set-Cookie: c=d; Path=/; Secure
X-Request-Id: upstream-says-so
--
HTTP/1.1 200 OK
Content-Type: text/event-stream
Cache-Control: no-cache
Transfer-Encoding: chunked
Keep-Alive: timeout=5
--
HTTP/1.0 200 OK
Server: SimpleHTTP/0.6 Python/3.11.7
Content-type: text/html; charset=utf-8
Content-Length: 5
--
HTTP/1.0 200 OK
Connection: Keep-Alive
Content-Length: 5
--
HTTP/1.1 200
Connection: close
Content-Type: text/plain
--
HTTP/1.1 204 No Content
RateLimit-Policy: "default";q=100;w=60
RateLimit: "default";r=99;t=12
--
HTTP/1.1 304 Not Modified
ETag: "abc"
Content-Length: 5120
--
HTTP/1.1 101 Switching Protocols
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
--
HTTP/1.1 100 Continue
--
HTTP/1.1 103 Early Hints
Link: </style.css>; rel=preload; as=style
--
HTTP/1.1 426 Upgrade Required
Upgrade: HTTP/3.0
Connection: Upgrade
Content-Length: 0
--
HTTP/1.1 404 Not Found \u00e9
content-length: 9
Trailer: Expires
--
HTTP/1.1 200 OK
Content-Length: 5
Transfer-Encoding: chunked
--
HTTP/1.1 200 OK
Content-Length: 5
Content-Length: 5
--
HTTP/1.1 200 OK
Transfer-Encoding: gzip
--
HTTP/1.1 200 OK
Content-Length : 5
X-Folded: a
 b
--
HTTP/1.1 999 Request denied
Content-Length: 0
--
HTTP/1.1 200 OK
X-Frame-Options: DENY
Content-Security-Policy: default-src 'self'; frame-ancestors 'none'
x-content-type-options: nosniff
Strict-Transport-Security : max-age=60
Content-Length: 2
""")


def block_of(head: bytes) -> bytes:
    """The field lines of a request's head, as read_fields takes them."""
    return head.partition(b"\r\n")[2]
