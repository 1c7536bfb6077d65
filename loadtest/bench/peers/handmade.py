"""An aiohttp server + client proxy written by hand: what a team would write that has an afternoon."""

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

from loadtest.bench import ports
from loadtest.bench.child import Child
from loadtest.bench.peers.peer import Peer, Place, Running
from loadtest.bench.people import ACME, ADDRESS_RATE, CUSTOMERS, REGION, ROUTES

_PROGRAM = Path(__file__).with_name("by_hand.py")


class Handmade(Peer):
    name = "aiohttp"

    def missing(self) -> str | None:
        return None if find_spec("aiohttp") and find_spec("uvloop") else "aiohttp and uvloop (pip)"

    def version(self, place: Place) -> str:
        program = "import aiohttp, uvloop; print(f'aiohttp {aiohttp.__version__} on uvloop {uvloop.__version__}')"
        result = subprocess.run([place.python, "-c", program], capture_output=True, text=True, timeout=30, check=True)
        return result.stdout.strip()

    def launch(self, place: Place) -> Running:
        port, counts = ports.free(2)
        settings = {
            "port": port,
            "counts": counts,
            "upstreams": place.upstreams,
            "region": REGION,
            "routes": ROUTES,
            "address_rate": ADDRESS_RATE,
            "people": {
                customer.key_sha256: [customer.name, customer.tier, customer.limit, customer.at_once]
                for customer in CUSTOMERS
            },
        }
        argv = [str(place.python), str(_PROGRAM), json.dumps(settings)]
        child = Child(argv, core=place.core, log=place.folder / "output")
        return Running(child, port, lambda: _counted(counts))


def _counted(port: int) -> int:
    with urlopen(f"http://127.0.0.1:{port}/usage", timeout=10) as answer:
        rows = json.load(answer)
    return sum(total for row, total in rows.items() if row.split("|")[0] == ACME.name)
