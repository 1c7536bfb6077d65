"""What the generator can do: the share of a core that it takes and how late it is, at one rate after another.

    python -m loadtest.capacity [--rates 200,500,1000,2000] [--seconds N] [--processes N]

It asks a plain nginx on this machine, which answers at once and takes little of a core. Lag is judged as in a load
test: at p95 it must not exceed an eighth of the latency threshold, which is 10 ms for one of 80 ms.
"""

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path

from loadtest import record, schedule
from loadtest.__main__ import Generator
from loadtest.testbed.ports import Ports
from loadtest.testbed.process import Process, memory_of
from loadtest.testbed.waiting import until
from loadtest.workload import WORKLOADS, load

WORKLOAD = WORKLOADS / "crosscheck.yaml"
RATES = (200.0, 500.0, 1000.0, 2000.0, 3000.0, 4000.0)
CONFIGURATION = """daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "ok"; }} }}
}}
"""


@contextmanager
def nginx(folder: Path) -> Iterator[str]:
    """The URL of one that answers everything."""
    with closing(Ports(1)) as ports:
        (port,) = ports.numbers
        configuration = folder / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder, port=port))
        process = Process([str(shutil.which("nginx")), "-p", folder, "-c", configuration], folder / "nginx.log")
        try:
            until((folder / "nginx.pid").exists, "nginx is there")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stop()


def measured(folder: Path, url: str, rate: float, seconds: float, processes: int) -> str:
    """A row of the table."""
    folder.mkdir()
    workload = load(WORKLOAD, {}).scaled(seconds).at_rate(rate)
    length = schedule.length(workload.phases())
    (region,) = workload.regions
    with Generator(folder, processes, None, lambda *_: None) as generator:
        begin = generator.begin(workload=str(WORKLOAD), seconds=seconds, rate=rate, edges=f"{region}={url}")
        pids = [*generator.pids.values()]
        time.sleep(max(0.0, begin + length / 2 - time.time()))
        memory = memory_of(pids) / len(pids) / (1 << 20)
        told = generator.wait(begin + length + 60 - time.time())
        lags = [one.lag for one in record.unpacked(generator.rows()) if one.due >= workload.warm_up]
    share = sum(worker["cpu"] for worker in told["workers"].values()) / length
    p50, p95 = (1000 * record.quantile(lags, p) for p in (50, 95))
    return f"{rate:10.0f} {len(lags) / seconds:10.0f} {100 * share:8.0f} % {p50:10.2f} {p95:10.2f} {memory:10.0f}"


def main(arguments: list[str]) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser("python -m loadtest.capacity", description="What the generator can do.")
    parser.add_argument("--rates", default=",".join(f"{rate:g}" for rate in RATES), metavar="RATE,…")
    parser.add_argument("--seconds", type=float, default=9.0, help="at each rate")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args(arguments)
    if shutil.which("nginx") is None:
        print("nginx is not on this machine", file=sys.stderr)
        return 2
    print(f"{'requests/s':>10} {'started/s':>10} {'of a core':>10} {'lag p50 ms':>10} {'p95 ms':>10} {'MiB each':>10}")
    stdout = sys.stdout
    with tempfile.TemporaryDirectory(prefix="capacity-") as created, redirect_stdout(io.StringIO()):
        folder = Path(created)
        with nginx(folder) as url:
            for rate in map(float, given.rates.split(",")):
                row = measured(folder / f"{rate:g}", url, rate, given.seconds, given.processes)
                print(row, file=stdout, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
