"""Messages about upstreams to workers, dashboards and operators, as names and health change."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from edgeproxy.config.edge.upstreams import Upstream
from edgeproxy.edge.messages import EndpointAddresses, SetEndpoints
from edgeproxy.edge.supervisor.health import ProbeTarget
from edgeproxy.edge.supervisor.upstreams import Upstreams
from loadtest.testbed.waiting import turned, within

Told = list[dict[str, Any]]


class World:
    """The name resolution and health chosen by a test, and the messages sent."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.ill: dict[str, str] = {}
        """Why probes of an address fail."""
        self.silent: set[str] = set()
        """Names and addresses that do not answer."""
        self.told: Told = []

    async def look_up(self, host: str) -> list[str]:
        await self._answered(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.names[host]

    async def ask(self, target: ProbeTarget) -> str | None:
        await self._answered(target.address)
        return self.ill.get(target.address)

    async def _answered(self, who: str) -> None:
        await asyncio.sleep(0)
        await turned(lambda: who not in self.silent, f"{who} answers")

    def last(self, upstream: str = "api") -> list[tuple[list[str], list[str]]]:
        """Return each endpoint's URL, addresses and healthy addresses in the newest message."""
        assert isinstance(self.told[-1], SetEndpoints)
        return [(service.addresses, service.up) for service in self.told[-1].services[upstream]]


Scene = Callable[[Upstreams, World], Awaitable[None]]


def play(scene: Scene, world: World | None = None, *, begin: float = 20.0, **upstreams: dict[str, Any]) -> World:
    """Play `scene` with the upstreams of these fields, once what there is to tell at first was told."""
    there = world or World()

    async def run() -> None:
        made = Upstreams(
            {name: Upstream.model_validate(fields) for name, fields in upstreams.items()},
            there.told.append,
            there.ask,
            there.look_up,
            every=0.01,
        )
        try:
            await within(20, made.begin(begin))
            await within(20, scene(made, there))
        finally:
            await made.end()
        said = len(there.told)
        await asyncio.sleep(0)
        assert len(there.told) == said

    uvloop.run(run())
    return there


HEALTH = {"path": "/healthz", "every": "10ms"}
TWO = {"endpoints": ["http://10.0.0.1:80", "http://10.0.0.2:80"], "health": HEALTH}


def test_each_endpoint_is_told_in_the_order_of_the_configuration() -> None:
    async def scene(upstreams: Upstreams, world: World) -> None:
        assert world.told == [
            SetEndpoints(
                1,
                {
                    "api": [
                        EndpointAddresses(["10.0.0.5", "10.0.0.6", "::5"], ["10.0.0.5", "10.0.0.6", "::5"]),
                        EndpointAddresses(["10.0.0.1"], ["10.0.0.1"]),
                    ],
                    "other": [EndpointAddresses(["::1"], ["::1"])],
                },
            )
        ]

    world = World()
    world.names["b.test"] = ["::5", "10.0.0.6", "10.0.0.5"]
    play(
        scene,
        world,
        api={"endpoints": ["http://b.test", "https://10.0.0.1"]},
        other={"endpoints": ["http://[::1]:80"]},
    )


def test_address_resolved_late_is_published_later() -> None:
    world = World()
    world.names["slow.test"] = ["10.0.0.5"]
    world.silent.add("slow.test")

    async def scene(upstreams: Upstreams, world: World) -> None:
        assert world.last() == [([], []), (["10.0.0.1"], ["10.0.0.1"])]
        world.silent.clear()
        await turned(lambda: len(world.told) == 2, "the addresses are published")
        assert world.last()[0] == (["10.0.0.5"], ["10.0.0.5"])

    play(scene, world, begin=0.05, api={"endpoints": ["http://slow.test", "http://10.0.0.1"]})


def test_the_first_message_waits_for_the_first_probes() -> None:
    world = World()
    world.ill["10.0.0.2"] = "status 500"
    world.names["a.test"] = ["10.0.0.2", "10.0.0.3"]

    async def scene(upstreams: Upstreams, world: World) -> None:
        assert world.last() == [(["10.0.0.2", "10.0.0.3"], ["10.0.0.3"])]
        assert len(world.told) == 1

    play(scene, world, api={"endpoints": ["http://a.test"], "health": HEALTH})


def test_changed_address_of_a_name_is_published() -> None:
    world = World()
    world.names["a.test"] = ["10.0.0.1"]

    async def scene(upstreams: Upstreams, world: World) -> None:
        world.names["a.test"] = ["10.0.0.2"]
        await turned(lambda: len(world.told) == 2, "the addresses are published")
        assert world.last() == [(["10.0.0.2"], ["10.0.0.2"])]
        del world.names["a.test"]
        await turned(lambda: upstreams.report()["api"][0]["why"], "look-ups fail")
        assert len(world.told) == 2

    play(scene, world, api={"endpoints": ["http://a.test"]})


def test_failing_and_recovered_addresses_are_published() -> None:
    async def scene(upstreams: Upstreams, world: World) -> None:
        both = [(["10.0.0.1"], ["10.0.0.1"]), (["10.0.0.2"], ["10.0.0.2"])]
        assert world.last() == both
        world.ill["10.0.0.1"] = "connection refused"
        await turned(lambda: len(world.told) == 2, "the addresses are published")
        assert world.last() == [(["10.0.0.1"], []), both[1]]
        del world.ill["10.0.0.1"]
        await turned(lambda: len(world.told) == 3, "the addresses are published again")
        assert world.last() == both

    play(scene, api=TWO)


def test_simultaneous_health_changes_share_few_messages() -> None:
    endpoints = [f"http://10.0.0.{n}:80" for n in range(100)]

    async def scene(upstreams: Upstreams, world: World) -> None:
        world.ill = {f"10.0.0.{n}": "status 500" for n in range(100)}
        await turned(lambda: not any(up for _, up in world.last()), "none is up")
        assert len(world.told) <= 4

    play(scene, api={"endpoints": endpoints, "health": HEALTH})


def test_new_address_is_used_only_after_its_probe_while_others_are_up() -> None:
    world = World()
    world.names["a.test"] = ["10.0.0.1"]
    world.silent.add("10.0.0.2")

    async def scene(upstreams: Upstreams, world: World) -> None:
        world.names["a.test"] = ["10.0.0.1", "10.0.0.2"]
        await turned(lambda: len(world.told) == 2, "the addresses are published")
        assert world.last() == [(["10.0.0.1", "10.0.0.2"], ["10.0.0.1"])]
        world.silent.clear()
        await turned(lambda: len(world.told) == 3, "the addresses are published again")
        assert world.last() == [(["10.0.0.1", "10.0.0.2"], ["10.0.0.1", "10.0.0.2"])]

    play(scene, world, api={"endpoints": ["http://a.test"], "health": HEALTH})


def test_status_says_how_each_address_is_and_why() -> None:
    async def scene(upstreams: Upstreams, world: World) -> None:
        assert upstreams.report() == {
            "api": [
                {
                    "url": "http://a.test:80",
                    "why": "",
                    "addresses": [
                        {"address": "10.0.0.1", "up": True, "why": ""},
                        {"address": "10.0.0.2", "up": False, "why": "status 500"},
                    ],
                },
                {"url": "http://gone.test:80", "why": "Name or service not known", "addresses": []},
            ]
        }

    world = World()
    world.names["a.test"] = ["10.0.0.1", "10.0.0.2"]
    world.ill["10.0.0.2"] = "status 500"
    play(scene, world, api={"endpoints": ["http://a.test", "http://gone.test"], "health": HEALTH})


def test_metrics_count_addresses_and_failed_look_ups_by_upstream() -> None:
    def found(upstreams: Upstreams) -> dict[tuple[str, ...], int]:
        return {(name, *labels): words[0] for name, labels, words in upstreams.series()}

    async def scene(upstreams: Upstreams, world: World) -> None:
        await turned(lambda: found(upstreams)["edge_dns_failures_total", "api"] >= 2, "failures are counted")
        counted = found(upstreams)
        assert counted["edge_upstream_endpoints", "api", "up"] == 1
        assert counted["edge_upstream_endpoints", "api", "down"] == 1
        assert counted["edge_upstream_endpoints", "plain", "up"] == 1
        assert counted["edge_upstream_endpoints", "plain", "down"] == 0
        assert counted["edge_dns_failures_total", "plain"] == 0

    world = World()
    world.names["a.test"] = ["10.0.0.1", "10.0.0.2"]
    world.ill["10.0.0.2"] = "status 500"
    play(
        scene,
        world,
        api={"endpoints": ["http://a.test", "http://gone.test", "https://gone.test"], "health": HEALTH},
        plain={"endpoints": ["http://10.0.0.1"]},
    )


def made(**upstreams: dict[str, Any]) -> dict[str, Upstream]:
    return {name: Upstream.model_validate(fields) for name, fields in upstreams.items()}


def test_considered_upstreams_are_probed_and_published_only_after_adoption() -> None:
    world = World()
    world.names |= {"a.test": ["10.0.0.1"], "b.test": ["10.0.0.2"]}

    async def scene(upstreams: Upstreams, world: World) -> None:
        new = made(other={"endpoints": ["http://b.test"], "health": HEALTH})
        services = await upstreams.consider(new, 20)
        assert services == {"other": [EndpointAddresses(["10.0.0.2"], ["10.0.0.2"])]}
        world.ill["10.0.0.2"] = "status 500"
        world.names["a.test"] = ["10.0.0.3"]
        await turned(lambda: len(world.told) == 2, "the addresses in use are published")
        assert (world.told[-1].number, world.told[-1].services.keys()) == (1, {"api"})
        assert upstreams.report().keys() == {"api"}
        upstreams.adopt(7)
        assert (world.told[-1].number, world.told[-1].services.keys()) == (7, {"other"})
        await turned(lambda: world.last("other") == [(["10.0.0.2"], [])], "the failing address is published as down")
        assert upstreams.report().keys() == {"other"}

    play(scene, world, api={"endpoints": ["http://a.test"]})


def test_dropped_configuration_leaves_no_trace() -> None:
    world = World()
    world.names["b.test"] = ["10.0.0.2"]

    async def scene(upstreams: Upstreams, world: World) -> None:
        await upstreams.consider(made(api=TWO, other={"endpoints": ["http://b.test"]}), 20)
        upstreams.drop()
        world.names["b.test"] = ["10.0.0.9"]
        upstreams.adopt(3)
        assert world.told[-1] == SetEndpoints(3, {})

    play(scene, world, api=TWO)


def test_reload_keeps_resolved_names_and_health_of_remaining_addresses() -> None:
    world = World()
    world.names["a.test"] = ["10.0.0.1", "10.0.0.2"]
    world.ill["10.0.0.2"] = "status 500"
    slow = {"path": "/healthz", "every": "1h"}

    async def scene(upstreams: Upstreams, world: World) -> None:
        # Nobody would answer were it asked again.
        world.silent |= {"a.test", "10.0.0.1", "10.0.0.2"}
        same = {"endpoints": ["http://a.test"], "health": slow}
        services = await within(5, upstreams.consider(made(api={**same, "pool": 7}), 20))
        upstreams.adopt(2)
        assert services["api"][0].up == ["10.0.0.1"]
        assert upstreams.report()["api"][0]["addresses"][1]["why"] == "status 500"
        # Probed in another way, it is not known any more.
        await upstreams.consider(made(api={**same, "health": {**slow, "path": "/else"}}), 0.05)
        upstreams.adopt(3)
        assert upstreams.report()["api"][0]["addresses"][0]["why"] == "not probed yet"

    play(scene, world, api={"endpoints": ["http://a.test"], "health": slow})
