"""Anycast as in region-routing.md: BIRD announces one address from two regions, each a network namespace.

It withdraws the address if the edge is not ready. The test uses deploy's own files, with the numbers of a region.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.waiting import until

ANYCAST = ROOT / "deploy" / "anycast"
ADDRESS = "10.91.9.9"
ROUTER = """
router id 10.91.1.1;
protocol device {{}}
protocol kernel {{ ipv4 {{ import none; export all; }}; }}
template bgp region {{ local as 65000; ipv4 {{ import {filter}; export none; }}; }}
protocol bgp to_eu from region {{ neighbor 10.91.1.2 as 65001; }}
protocol bgp to_us from region {{ neighbor 10.91.2.2 as 65002; }}
"""
NEARER = 'filter { if proto = "to_eu" then bgp_local_pref = 200; accept; }'
"""The eu is nearer to the clients of this router."""

IP = shutil.which("ip") or ""

needs_bird = pytest.mark.skipif(not IP or shutil.which("bird") is None, reason="bird is not on this machine")


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=30).stdout


class Region:
    """A namespace with an API, an edge, BIRD and `announce`."""

    def __init__(self, folder: Path, name: str, number: int, ends: ExitStack) -> None:
        self.name, self.space = name, f"{name}-{os.getpid()}"
        self._folder, self._number = folder / name, number
        self._folder.mkdir()
        self.config = self._folder / "edge.yaml"
        upstream = {"endpoints": ["http://127.0.0.1:9001"]}
        settings = {
            "region": name,
            "region_fields": ["X-Edge-Region"],
            "listen": f"{ADDRESS}:8080",
            "workers": 1,
            "state": str(self._folder / "state"),
            "tables": {"customers": 1000, "addresses": 1000},
            "upstreams": {"api": upstream},
            "routes": [{"path": "/*", "upstream": "api", "auth": "none"}],
            "drain": "2s",
        }
        self.config.write_text(yaml.safe_dump(settings))
        text = (ANYCAST / "bird.conf").read_text().replace("10.91.1.", f"10.91.{number}.")
        (self._folder / "bird.conf").write_text(text.replace("65001", f"6500{number}"))
        self._ends = ends

    def start(self, *command: str | Path) -> Process:
        """Start something in the namespace."""
        name = Path(command[-1] if "bird" not in str(command[0]) else "bird").name
        environ = {"EDGEPROXY": f"{sys.executable} -m edgeproxy"}
        process = Process(
            [IP, "netns", "exec", self.space, *command], self._folder / f"log-{name}", environ=environ, fork=False
        )
        self._ends.callback(process.stop, 20)
        return process

    def begin(self) -> None:
        socket = self._folder / "bird.ctl"
        self.start("bird", "-f", "-c", self._folder / "bird.conf", "-s", socket, "-P", self._folder / "bird.pid")
        self.start(sys.executable, "-m", "http.server", "9001", "--bind", "127.0.0.1", "--directory", self._folder)
        until(socket.exists, "BIRD runs")
        self.start(ANYCAST / "announce", self.config, socket)
        self.serve()

    def serve(self) -> None:
        self.edge = self.start(sys.executable, "-m", "edgeproxy", "edge", "-c", self.config)


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[tuple[Path, dict[str, Region]]]:
    """Two regions behind a router, in whose namespace the clients are."""
    with ExitStack() as ends:
        made = {name: Region(tmp_path, name, number, ends) for number, name in ((1, "eu"), (2, "us"))}
        router = f"router-{os.getpid()}"
        try:
            for space in (router, *(region.space for region in made.values())):
                run("ip", "netns", "add", space)
                ends.callback(run, "ip", "netns", "del", space)
                run("ip", "-n", space, "link", "set", "lo", "up")
            for number, region in enumerate(made.values(), start=1):
                run(*f"ip -n {router} link add to-{region.name} type veth peer name core netns {region.space}".split())
                run(*f"ip -n {router} addr add 10.91.{number}.1/30 dev to-{region.name}".split())
                run(*f"ip -n {region.space} addr add 10.91.{number}.2/30 dev core".split())
                run(*f"ip -n {region.space} addr add {ADDRESS}/32 dev lo".split())
                run(*f"ip -n {router} link set to-{region.name} up".split())
                run(*f"ip -n {region.space} link set core up".split())
                run(*f"ip -n {region.space} route add default via 10.91.{number}.1".split())
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine gives no network namespaces: {error.stderr.strip()}")
        config = tmp_path / "router.conf"
        config.write_text(ROUTER.format(filter=NEARER))
        control = [tmp_path / "router.ctl", tmp_path / "router.pid"]
        bird = [IP, "netns", "exec", router, "bird", "-f", "-c", config, "-s", control[0], "-P", control[1]]
        process = Process(bird, tmp_path / "log-router", fork=False)
        ends.callback(process.stop, 20)
        for region in made.values():
            region.begin()
        yield Path(f"/run/netns/{router}"), made


CLIENT = f"""
import http.client, sys, time
for _ in range(int(sys.argv[1])):
    began = time.monotonic()
    connection = http.client.HTTPConnection("{ADDRESS}", 8080, timeout=5)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        print(answer.headers.get("X-Edge-Region"), answer.status, time.monotonic() - began, flush=True)
    except OSError as error:
        print("none", 0, time.monotonic() - began, error, flush=True)
        time.sleep(0.05)
    connection.close()
"""


def ask(router: Path, times: int) -> list[tuple[str, int, float]]:
    """Requests of a client behind the router, each over a connection of its own: region, status, seconds."""
    output = run("ip", "netns", "exec", router.name, sys.executable, "-c", CLIENT, str(times))
    return [(line[0], int(line[1]), float(line[2])) for line in map(str.split, output.splitlines())]


def compute_p95(answers: list[tuple[str, int, float]]) -> float:
    return sorted(seconds for _, _, seconds in answers)[int(0.95 * len(answers))]


@needs_bird
def test_clients_go_to_the_other_region_while_one_is_withdrawn(
    regions: tuple[Path, dict[str, Region]], record_property: Callable[[str, object], None]
) -> None:
    router, created = regions

    def served(region: str) -> bool:
        return {answer[:2] for answer in ask(router, 3)} == {(region, 200)}

    until(lambda: served("eu"), "the nearer region serves")
    near = ask(router, 200)
    # A planned drain: withdrawn first, so no request fails but one that is under way when the route moves.
    created["eu"].config.with_suffix(".yaml.withdraw").touch()
    began, moving = time.monotonic(), []
    while not moving or moving[-1][0] != "us":
        assert time.monotonic() < began + 30
        moving += ask(router, 5)
    moved_seconds = time.monotonic() - began
    assert sum(status != 200 for _, status, _ in moving) <= 1
    far = ask(router, 200)
    assert {answer[:2] for answer in near} == {("eu", 200)}
    assert {answer[:2] for answer in far} == {("us", 200)}
    created["eu"].config.with_suffix(".yaml.withdraw").unlink()
    until(lambda: served("eu"), "the address is announced again")
    # Unplanned: the edge ends, and its health withdraws it.
    began = time.monotonic()
    created["eu"].edge.stop(20)
    until(lambda: served("us"), "health has withdrawn it")
    lost_seconds = time.monotonic() - began
    created["eu"].serve()
    until(lambda: served("eu"), "the region is back")
    figures = {
        "P95 near, ms": compute_p95(near) * 1000,
        "P95 far, ms": compute_p95(far) * 1000,
        "planned, s": moved_seconds,
        "unplanned, s": lost_seconds,
    }
    for name, figure in figures.items():
        record_property(name, round(figure, 2))
        print(f"{name}: {figure:.2f}")
    assert max(moved_seconds, lost_seconds) < 30


def test_the_page_names_the_files_that_are_tried_here() -> None:
    page = (ROOT / "docs" / "edge" / "region-routing.md").read_text()
    assert {*re.findall(r"deploy/anycast/(\w[\w.]*)\)", page)} == {path.name for path in ANYCAST.iterdir()}
