"""The output of the demonstration: addresses, sign-in links, and the lines of the tour."""

import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from edgeproxy.demo.company import ATLAS, CUSTOMERS, SERVICE_TOKEN, Company
from edgeproxy.demo.data import Data
from edgeproxy.demo.services import CHECKOUT, EDGEPROXY, PYTHON, STRIPE_KEY, Services
from edgeproxy.demo.tour import Stop, build_workload

MIB = 1 << 20
SIGN_IN_SECONDS = 60


class Row(NamedTuple):
    """A line with an address."""

    name: str
    text: str
    page: str | None = None
    """A URL of it that answers 200."""


def write_environment(services: Services, company: Company, data: Data, admin_token: str) -> Path:
    """Write the file that a shell sources before it runs the printed lines, and the lines' data; return its path."""
    regions = services.regions
    edges = {region: services.edge(region) for region in regions}
    variables = {
        "EU": edges[regions[0]],
        "US": edges[regions[1]] if len(regions) > 1 else "",
        "EDGES": ",".join(f"{region}={url}" for region, url in edges.items()),
        "COLLECTOR": services.collector,
        "EDGEPROXY_COLLECTOR": services.collector,
        "EDGEPROXY_TOKEN": admin_token,
        "SERVICE_TOKEN": SERVICE_TOKEN,
        "STRIPE": services.stripe,
        "STRIPE_KEY": STRIPE_KEY,
        "MAILBOX": services.mailbox,
        "PROMETHEUS": services.prometheus or "",
        "DATA": str(data.folder),
        "CONFIG": str(services.collector_file),
    }
    for customer in CUSTOMERS:
        variables[customer.name.upper()] = company.key(customer)
        variables[f"{customer.name.upper()}_TOKEN"] = company.token(customer)
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    programs = f'edgeproxy() {{ {shlex.join(EDGEPROXY)} "$@"; }}\n'
    if CHECKOUT is not None:
        folder = shlex.quote(str(CHECKOUT))
        programs += f'loadtest() {{ (cd {folder} && {shlex.join(PYTHON)} loadtest "$@"); }}\n'
    data.write("load.yaml", yaml.safe_dump(build_workload(regions), sort_keys=False))
    data.write("keys.json", json.dumps({"enterprise-0": company.key(ATLAS)}))
    title = "# For a shell: addresses, tokens and keys of this demonstration.\n"
    return data.write("env", f"{title}export no_proxy=127.0.0.1\n{exports}{programs}")


def create_customer_link(services: Services) -> str:
    """Create a link for a single sign-in as a customer with data on the pages."""
    command = [*EDGEPROXY, "sign-in", "-c", str(services.collector_file), "--customer", ATLAS.name]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SIGN_IN_SECONDS)
    return done.stdout.strip() if done.returncode == 0 else f"no link: {done.stderr.strip()}"


def build_rows(services: Services, data: Data) -> list[Row]:
    """Return the rows of addresses, and create a link for a single sign-in of a customer."""
    admins = {region: f"{services.admin(region)}/status" for region in services.regions}
    sign_in, link = f"{services.collector}/sign-in/operator", create_customer_link(services)
    hub = f"{services.hub}, where the edges agree on limits" if services.hub else "none: this edge is alone"
    return [
        *(Row(f"edge {region}", f"{services.edge(region)}, its status: {url}", url) for region, url in admins.items()),
        Row("hub (Redis)", hub),
        Row("the API", f"{services.api}/, httpbin", f"{services.api}/"),
        Row("collector", f"{services.collector}, its API: {services.collector}/docs", f"{services.collector}/docs"),
        Row("Stripe sandbox", services.stripe, f"{services.stripe}/_sandbox/ready"),
        Row("Prometheus", services.prometheus or "not installed", services.prometheus),
        Row("logs, data", str(data.folder)),
        Row("mailbox", f"{services.mailbox}/, where all mails arrive", f"{services.mailbox}/"),
        Row("status page", f"{services.collector}/status", f"{services.collector}/status"),
        Row("operator", f"{sign_in}, with the code {services.second_factor}", sign_in),
        Row("customer", f"{link} (signs in once)", link),
    ]


def print_tour(tour: Sequence[Stop], environment: Path, data: Data) -> None:
    """Print the lines of the tour."""
    print("\nTo try, in another terminal, in this order:\n")
    print(f"source {shlex.quote(str(environment))}")
    for stop in tour:
        print(f"\n# {stop.shows}\n{stop.line}")
    if not data.is_new:
        print("\nThe data are those of an earlier start: a plan that was taken then stays taken.")
        print(f"To begin again, end this and remove {shlex.quote(str(data.folder))}")


def print_rows(rows: Sequence[Row]) -> None:
    """Print the addresses."""
    print()
    for row in rows:
        print(f"  {row.name:15} {row.text}")


def print_figures(seconds: float, memory: int) -> None:
    """Print the start time and the memory use."""
    print(f"\nReady after {seconds:.0f} s, with {memory / MIB:.0f} MiB. Ctrl-C ends it all.", flush=True)
