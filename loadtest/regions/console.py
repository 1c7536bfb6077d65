"""Three regions for manual use: typed commands change their links or query their edges."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from loadtest.regions.relay import Link
from loadtest.regions.world import Limits, Region, World
from loadtest.testbed.customers import key_of
from loadtest.testbed.ports import HOST

CUSTOMERS: Mapping[str, Limits] = {
    "acme": [{"name": "acme", "rate": "60/min"}],
    "globex": [{"name": "globex", "rate": "600/min"}],
    "prepaid": [{"name": "prepaid", "rate": "60/min", "sync": "strict"}],
}
"""Of whom anything may be asked; the first unless said otherwise."""
DEEDS: Mapping[str, Callable[[Link, Sequence[float]], None]] = {
    "cut": lambda link, _: link.cut(),
    "hole": lambda link, _: link.hole(),
    "slow": lambda link, given: link.slow(given[0] / 1000),
    "drop": lambda link, given: link.drop(given[0]),
    "heal": lambda link, _: link.heal(),
}
HELP = """\
Type here, and see what becomes of it:

  ask 30               30 requests in every region at once: how many passed, and the longest wait
  ask 30 globex us     30 requests of globex (600 a minute; prepaid: 60 a minute, sync: strict) in one region
  us cut               nobody there reaches the hub: what is tried is refused
  us hole              the same, but without any answer
  us slow 400          the hub is 400 ms away (there and back)
  us drop 5            connections to the hub are lost every 5 s, more or less
  us heal              as it was
  status               how far the hubs are, and what went to them"""


class Console:
    """The commands for a world with these customers."""

    def __init__(self, world: World) -> None:
        self._world = world

    def welcome(self) -> str:
        """Return the addresses of the regions, and commands to try."""
        edges = [region.edge for region in self._world]
        lines = ["Three regions share one limit of 60 a minute; ask any of them, by hand:", ""]
        lines += [f"  curl -i http://{HOST}:{edge.port}/ -H 'X-API-Key: {key_of('acme')}'" for edge in edges]
        ports = ", ".join(f"{region.name} {region.edge.admin}" for region in self._world)
        return "\n".join([*lines, "", self.status(), "", f"Admin listeners (/status, /metrics): {ports}", "", HELP])

    def obey(self, line: str) -> str:
        """Do as this line says; what to answer."""
        words = line.split()
        try:
            match words:
                case []:
                    return ""
                case ["status"]:
                    return self.status()
                case ["ask", many, *rest]:
                    return self._ask(int(many), rest)
                case [name, deed, *given] if name in self._world.regions and deed in DEEDS:
                    DEEDS[deed](self._world[name].link, [float(one) for one in given])
                    return self.status()
        except (ValueError, IndexError, KeyError):
            pass
        return HELP

    def status(self) -> str:
        """A line for each region."""
        return "\n".join(self._of(region) for region in self._world)

    def _of(self, region: Region) -> str:
        link, hub = region.link, region.edge.status()["hub"]
        hosts = f"{hub['hosts']} hosts" if hub["state"] == "up" else "on its own"
        state = "" if link.state == "up" else f"; the link: {link.state}"
        return (
            f"  {region.name:5} {2000 * link.delay:4.0f} ms from the hub, which is {hub['state']} ({hosts}), "
            f"{link.calls.total()} calls so far{state}"
        )

    def _ask(self, many: int, rest: Sequence[str]) -> str:
        names = [word for word in rest if word in self._world.regions] or list(self._world.regions)
        (customer,) = [word for word in rest if word not in self._world.regions] or [next(iter(CUSTOMERS))]
        if customer not in CUSTOMERS:
            raise KeyError(customer)
        with ThreadPoolExecutor(len(names)) as clients:
            told = clients.map(lambda name: asked(self._world[name], many, customer), names)
            return "\n".join(f"  {name:5} {line}" for name, line in zip(names, told, strict=True))


def asked(region: Region, many: int, customer: str) -> str:
    """Send requests one after the other; return a summary of the answers."""
    answers: Counter[int] = Counter()
    longest = 0.0
    for _ in range(many):
        began = monotonic()
        answers[region.edge.ask(key=key_of(customer)).status] += 1
        longest = max(longest, monotonic() - began)
    others = sum(count for status, count in answers.items() if status not in (200, 429))
    failed = f", {others} answered otherwise" if others else ""
    return f"{answers[200]:4} passed, {answers[429]:4} refused{failed}; the longest took {1000 * longest:.0f} ms"
