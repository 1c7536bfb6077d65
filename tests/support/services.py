"""Services of other people's making to stand behind the edge: nginx with files, httpbin under gunicorn."""

import gzip
import random
import socket
import sys
from pathlib import Path

from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import until

LARGE = 20 << 20
"""Bytes of the largest body: more than the edge and all socket buffers on the way can hold."""

TEXT = b"All the world's a stage, and all the men and women merely players. " * 400

NGINX = """
daemon off;
master_process off;
{user}
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    keepalive_requests 100000;
    client_max_body_size 0;
    gzip_static on;
    gzip_proxied any;
    chunked_transfer_encoding on;
    server {{
        listen {host}:{port} backlog=4096;
        root {folder}/files;
        location / {{ }}
        location = /moved {{ return 302 /text.txt; }}
        location = /cookies {{
            add_header Set-Cookie a=1;
            add_header Set-Cookie "b=2; Path=/; HttpOnly";
            return 200 ok;
        }}
        location = /nothing {{ return 204; }}
        location = /chunked {{ gzip on; gzip_min_length 1; gzip_types *; alias {folder}/files/text.txt; }}
        location = /trailers {{ add_trailer X-Sum 42; alias {folder}/files/text.txt; }}
        location = /marked {{ add_header X-Marked "{mark}" always; return 404; }}
    }}
}}
"""


class Nginx(Process):
    """nginx with some files: `/text.txt` (and a gzipped `.gz` beside it), `/large`, `/empty`."""

    def __init__(self, binary: str, folder: Path, seed: int) -> None:
        files = folder / "files"
        files.mkdir(parents=True)
        self.large = random.Random(seed).randbytes(LARGE)
        (files / "large").write_bytes(self.large)
        (files / "text.txt").write_bytes(TEXT)
        (files / "text.txt.gz").write_bytes(gzip.compress(TEXT, mtime=0))
        (files / "empty").touch()
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        configuration = folder / "nginx.conf"
        # Otherwise root's worker runs as the user of no privileges, and cannot read the folder of the tests.
        values = {"folder": folder, "host": HOST, "port": self.port, "mark": "yes", "user": "user root;"}
        configuration.write_text(NGINX.format(**values))
        super().__init__([binary, "-p", folder, "-c", configuration, "-e", "stderr"], folder / "log")
        until(lambda: answers(self.port, "/empty") or not self.running, "nginx answers")
        assert self.running, self.output


class Httpbin(Process):
    """httpbin under gunicorn."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server((HOST, 0), backlog=1024) as listening:
            self.port = listening.getsockname()[1]
            server = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listening.fileno()}"]
            shape = ["--worker-class", "gthread", "--threads", "16", "--keep-alive", "75", "--no-control-socket"]
            super().__init__([*server, *shape, "httpbin:app"], folder / "log", keep=[listening.fileno()])
        until(lambda: answers(self.port, "/status/200") or not self.running, "httpbin answers")
        assert self.running, self.output


def answers(port: int, path: str, key: str | None = None) -> bool:
    """Return whether a server answers with 200."""
    try:
        return ask(port, path, key=key).status == 200
    except OSError:
        return False
