"""nginx with one worker and the edge's paths."""

from loadtest.bench import nginx, ports
from loadtest.neighbours.peers.peer import HOST, PATHS, Place, Running

_WEBSOCKET = 'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'


def start(place: Place) -> Running:
    """Start it; it need not serve yet."""
    plain, http2, secure, mutual = ports.free(4)
    services, materials = place.services, place.materials
    certificate = f"ssl_certificate {materials.server.cert}; ssl_certificate_key {materials.server.key};"
    paths = "".join(
        f"location = {path} {{ proxy_pass http://bad; {_WEBSOCKET if path.startswith('/ws') else ''} }}\n"
        for path in PATHS
    )
    common = f"""
            keepalive_requests 1000;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            location = /ok {{ proxy_pass http://good; }}
            location = /keyed {{ if ($http_x_api_key != "ek_good") {{ return 401; }} proxy_pass http://good; }}
            location = /spent {{ return 429; }}
            location = /refused {{ proxy_pass http://{HOST}:{services.unused}; }}
            {paths}
            location / {{ return 404; }}"""

    def listen(port: int, more: str = "") -> str:
        return "\n".join(f"listen {listener} {more} backlog=4096;" for listener in place.listeners(port))

    child = nginx.start(
        place.folder,
        f"""
        upstream good {{ server {HOST}:{services.good}; keepalive 128; }}
        upstream bad {{ server {HOST}:{services.bad}; keepalive 128; }}
        proxy_http_version 1.1;
        proxy_request_buffering off;
        proxy_max_temp_file_size 0;
        gzip on;
        gzip_types text/plain;
        server {{
            {listen(plain)}
            {listen(http2, "http2")}
            {common}
        }}
        server {{
            {listen(secure, "ssl http2")}
            {certificate}
            {common}
        }}
        server {{
            {listen(mutual, "ssl http2")}
            {certificate}
            ssl_client_certificate {materials.authority};
            ssl_verify_client on;
            ssl_verify_depth 20;
            {common}
        }}""",
        core=place.core,
    )
    doors = {"plain": plain, "http2": http2, "tls": secure, "tls-bytes": secure, "mutual": mutual}
    return Running("nginx", place, child, doors)
