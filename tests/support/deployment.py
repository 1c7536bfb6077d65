"""Hosts for deploy/release and deploy/rollout, with stand-ins for ssh, docker, a registry and Prometheus.

The scripts are the real ones, with the real curl. An image is a digest. A host has folders for fetched, tagged and
running images, and a line for each start of another image. One server is the registry, Prometheus and each host's
admin listener.
"""

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).parents[2]
REGISTRY = "registry.example/edgeproxy"

DOCKER = """#!/bin/bash
# A name ends with the digest, unless it is one of our own tags. Containers are files, of which the newest one serves.
id=${!#}; id=${id##*@} containers=$HOST_STATE/containers
record() { # in starts, if another image serves than before
    local newest; newest=$(ls "$containers" | tail -n 1)
    [ -z "$newest" ] || cmp --silent "$containers/$newest" <(tail -n 1 "$HOST_STATE/starts") ||
        cat "$containers/$newest" >>"$HOST_STATE/starts"
}
case "$*" in
    "image inspect "*) [ -e "$HOST_STATE/images/$id" ] ;;
    "pull --quiet "*) curl --silent --fail "$SERVER/registry/$HOST/$id" && touch "$HOST_STATE/images/$id" ;;
    tag*) id=${2##*@}; [ -e "$HOST_STATE/images/$id" ] && echo "$id" >"$HOST_STATE/tags/$3" ;;
    compose*" up "*--scale*) cp "$HOST_STATE/tags/edgeproxy" "$containers/$(date +%s%N)"; record ;;
    compose*" ps "*) [ ! -e "$HOST_STATE/no-daemon" ] && ls "$containers" ;;
    logs*) curl --silent --fail --output /dev/null "http://$ADMIN/readyz" && echo '{"event": "edge serving"}' ;;
    stop*) ;;
    rm*) for id in "${@:2}"; do rm -f "$containers/$id"; done; record ;;
    inspect*) for id in "${@:4}"; do echo "$id $(cat "$containers/$id")"; done ;;
    *) exit 64 ;;
esac
"""
SSH = """#!/bin/bash
while [ "$1" = -o ]; do shift 2; done
export HOST=$1 HOST_STATE=$HOSTS/$1 ADMIN=${SERVER#http://}/$1
[ ! -e "$HOST_STATE/cut-off" ] || { echo "ssh: connect to host $1: No route to host" >&2; exit 255; }
cd "$HOST_STATE" && exec sh -c "$2"
"""


class Hosts:
    """Hosts that run an image and get a release of another one."""

    def __init__(self, folder: Path, names: Iterable[str], running: str) -> None:
        self.folder = folder
        self.registry: set[str] = set()
        self.fetched: list[tuple[str, str]] = []
        self.serves: Callable[[str, list[str]], bool] = lambda host, starts: True
        """Returns whether a host with these starts is ready."""
        self.answers: Callable[[str], dict[str, float] | None] = lambda query: {}
        """Returns Prometheus's numbers for a query, by the label `failed`; None for an error."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._build_handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        programs = folder / "bin"
        programs.mkdir()
        for name, text in (("docker", DOCKER), ("ssh", SSH)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        for name in names:
            for part in ("images", "tags", "containers", "edgeproxy/deploy"):
                (folder / name / part).mkdir(parents=True)
            shutil.copy(ROOT / "deploy/release", folder / name / "edgeproxy/deploy/release")
            (folder / name / "images" / running).touch()
            for file in ("starts", "containers/0"):
                (folder / name / file).write_text(running + "\n")
        self.environ = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOSTS": str(folder),
            "SERVER": self.url,
            "PATIENCE": "1",
            "STEADY": "0",
        }
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def starts(self, host: str) -> list[str]:
        """Return the digests that a host started, in order."""
        return (self.folder / host / "starts").read_text().split()

    def cut_off(self, host: str) -> None:
        """Make a host unreachable by ssh."""
        (self.folder / host / "cut-off").touch()

    def run(self, *command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env={**self.environ, **environ},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def release_on(self, host: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run deploy/release on a host."""
        line = " ".join(("cd edgeproxy && ./deploy/release", *arguments))
        return self.run("ssh", host, line, **environ)

    def rollout(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run deploy/rollout from the folder of the hosts."""
        return self.run(ROOT / "deploy/rollout", "--prometheus", self.url, *arguments)

    def _build_handler(self) -> type[BaseHTTPRequestHandler]:
        hosts = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                body = hosts._respond(url.path, parse_qs(url.query))
                self.send_response(503 if body is None else 200)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler

    def _respond(self, path: str, query: dict[str, list[str]]) -> bytes | None:
        """Return the body of an answer, None for an error."""
        if host := re.fullmatch(r"/(.*)/readyz", path):
            return b"" if self.serves(host[1], self.starts(host[1])) else None
        if image := re.fullmatch(r"/registry/(.*)/(.*)", path):
            self.fetched.append((image[1], image[2]))
            return b"" if image[2] in self.registry else None
        if (answer := self.answers(query["query"][0])) is None:
            return None
        result = [
            {"metric": {"failed": failed} if failed else {}, "value": [1.0, str(value)]}
            for failed, value in answer.items()
        ]
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
