"""From files to settings, and from one process to another."""

import gc
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.load import check, dump, load, load_customers, restore, unswept
from edgeproxy.config.models import Hub, Settings
from edgeproxy.config.problems import ConfigErrors
from tests.config.conftest import LEAST, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def reads_files():
    return False


def without_people(settings):
    return settings.model_copy(update={"customers": {}, "keys": ()})


def test_the_example_passes_with_an_empty_environment():
    settings = load(ROOT / "config" / "edge.yaml", {})
    assert settings.workers == 2
    assert {route.label for route in settings.routes} >= {"anything", "get", "post", "status", "stream", "bytes"}
    keys = {key.sha256: key.customer for key in settings.keys}
    for secret, customer, tier, count in (
        ("ek_demo_basic", "demo-basic", "basic", 60),
        ("ek_demo_pro", "demo-pro", "pro", 600),
    ):
        assert keys[hashlib.sha256(secret.encode()).hexdigest()] == customer
        assert settings.customers[customer].tier == tier
        assert settings.tiers[tier].limits[0].count == count


def test_the_environment_moves_the_example():
    environ = {
        "EDGE_LISTEN": "127.0.0.1:18080",
        "EDGE_ADMIN": "127.0.0.1:19090",
        "EDGE_STATE": "elsewhere",
        "API_URL": "http://127.0.0.1:19001",
        "STAMP_SECRET": "s",
    }
    settings = load(ROOT / "config" / "edge.yaml", environ)
    assert str(settings.listen[0].address) == "127.0.0.1:18080"
    assert str(settings.admin) == "127.0.0.1:19090"
    assert str(settings.state) == "elsewhere"
    assert settings.upstreams["api"].endpoints[0].url == "http://127.0.0.1:19001"
    assert settings.stamp_secret == "s"


def test_the_digest_is_over_what_was_read(loaded):
    digest = hashlib.sha256((LEAST + "include: a.yaml\n" + "tiers: {}\n").encode()).hexdigest()
    assert loaded("include: a.yaml\n", files={"a.yaml": "tiers: {}\n"}).sha256 == digest


def test_a_configuration_with_problems_is_none(folder):
    write(folder, {"edge.yaml": "drain: 5\n"})
    with pytest.raises(ConfigErrors) as caught:
        load(Path("edge.yaml"), {})
    assert [problem.field for problem in caught.value.problems] == ["upstreams", "routes", "drain"]


def test_what_is_dumped_is_restored(loaded):
    settings = loaded(
        """\
listen:
  - "[::]:80"
  - {address: 0.0.0.0:81, tls: {cert: a.pem, key: a.key, certificates: [{cert: b.pem, key: b.key}], client_ca: ca.pem}}
access_log: {file: access.log, sample: 0.1%}
security_headers: yes
admin: 127.0.0.1:9090
trusted_proxies: [10.0.0.0/8, "::1"]
per_ip: {rate: 1/301ms}
meters: {a: {count: requests, when: success}}
tiers: {basic: {limits: [{rate: 60/min}, {rate: 7/1.1h}]}}
customers: {acme: {tier: basic, limits: []}, other: {tier: basic}}
keys:
  - {sha256: """
        + "ab" * 32
        + """, customer: acme, scopes: [read, write], expires: 2027-01-01T00:00:00.25Z}
  - {sha256: """
        + "cd" * 32
        + """, customer: other}
limits: {body: 1MiB, connections: 5, connections_per_ip: 4, pipelined: 3}
tables: {dir: /dev/shm/x}
stamp_secret: s
drain: 250ms
"""
    )
    restored, people = restore(dump(settings))
    assert restored == without_people(settings)
    assert type(restored) is Settings
    assert {name: people.customer(name) for name in settings.customers} == settings.customers
    assert tuple(people.key(bytes.fromhex(key.sha256)) for key in settings.keys) == settings.keys
    assert len(people) == 4
    assert people.key(bytes(32)) is None


def test_workers_are_not_told_where_usage_is_shipped(loaded):
    dumped = dump(loaded("usage: {collector: 'http://127.0.0.1:9100', token: hush}\n"))
    assert b"hush" not in dumped
    assert restore(dumped)[0].usage is None


def test_workers_are_told_of_a_hub_that_it_is_shared_and_not_how_it_is_reached(loaded):
    said = "hub: {url: 'rediss://me:hush@h:7000/2', sync: 250ms, on_loss: deny, tls: {verify: no}}\n"
    settings = loaded(said + "tiers: {t: {limits: [{rate: 1/s, sync: strict}]}}\n")
    dumped = dump(settings)
    assert b"hush" not in dumped
    restored, _ = restore(dumped)
    assert restored.hub == Hub(url="rediss://me@h:7000/2")
    assert restored.hub.is_shared
    assert restored.tiers == settings.tiers
    assert settings.hub.url == "rediss://me:hush@h:7000/2"


def test_all_of_an_upstream_is_restored(loaded):
    settings = loaded(
        """\
upstreams:
  api:
    endpoints: ["https://a", {url: "https://[::1]:9443", weight: 3, region: us-east}]
    health: {path: /healthz, every: 250ms}
    retry: {attempts: 3, budget: 100%}
    eject: {errors: 7, for: 1500ms}
    breaker: {pending: 9}
    tls: {ca: ca.pem, cert: edge.pem, key: edge.key, server_name: api.internal, verify: true}
  least: {endpoints: ["http://a"], eject: off, retry: {budget: 0%}}
routes: [{path: /*, upstream: api}]
""",
        alone=True,
    )
    restored, _ = restore(dump(settings))
    assert restored == settings
    assert (restored.upstreams["api"].eject.for_, restored.upstreams["least"].eject) == (1.5, None)


durations = st.integers(1, 10**6).map(lambda number: f"{number}ms")
rates = st.builds("{}/{}ms".format, st.integers(1, 10**6), st.integers(300, 10**9))


@given(drain=durations, rate=rates, limits=st.lists(rates, max_size=3, unique_by=lambda rate: rate.split("/")[1]))
def test_times_and_rates_survive_the_way_to_a_worker(tmp_path_factory, drain, rate, limits):
    path = tmp_path_factory.mktemp("config") / "edge.yaml"
    of_tier = ", ".join(f"{{rate: {one}}}" for one in limits)
    path.write_text(f"{LEAST}drain: {drain}\nper_ip: {{rate: {rate}}}\ntiers: {{t: {{limits: [{of_tier}]}}}}\n")
    settings = load(path, {})
    assert restore(dump(settings))[0] == settings
    assert [limit.count for limit in settings.tiers["t"].limits] == [int(one.split("/")[0]) for one in limits]


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_as_it_was(enabled):
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with unswept():
            during = gc.isenabled()
        assert (during, gc.isenabled()) == (False, enabled)
    finally:
        (gc.enable if before else gc.disable)()


def test_many_keys_are_read_in_seconds(loaded, tmp_path):
    many = 20_000
    keys = "".join(f'  - {{sha256: "{number:064x}", customer: acme}}\n' for number in range(many))
    settings = loaded("tiers: {t: {}}\ncustomers: {acme: {tier: t}}\nkeys:\n" + keys)
    assert len(settings.keys) == many
    restored, people = restore(dump(settings))
    assert (restored, len(people)) == (without_people(settings), many + 1)
    assert people.key(bytes.fromhex(settings.keys[7].sha256)) == settings.keys[7]


@pytest.mark.parametrize("text", ["tiers: {basic: {}}\n", "customers: {a: {tier: elsewhere}}\nmeters: {}\n"])
def test_a_part_is_well_by_itself_and_makes_no_settings(folder, text):
    (folder / "tiers.yaml").write_text(text)
    assert check(Path("tiers.yaml"), {}) is None
    with pytest.raises(ConfigErrors):
        load(Path("tiers.yaml"), {})


@pytest.mark.parametrize("text", ["", "region: x\n", "tiers: {}\nregion: x\n", "tiers: {a: {limits: [x]}}\n"])
def test_a_part_has_people_and_no_problem(folder, text):
    (folder / "tiers.yaml").write_text(text)
    with pytest.raises(ConfigErrors):
        check(Path("tiers.yaml"), {})


def test_a_whole_configuration_is_checked_as_it_is_loaded(folder):
    (folder / "edge.yaml").write_text(LEAST)
    assert check(Path("edge.yaml"), {}) == load(Path("edge.yaml"), {})


def test_people_are_loaded_of_a_file_that_serves_nothing(folder):
    write(folder, {"people.yaml": "tiers: {t: {}}\ncustomers: {c: {tier: t}}\n", "push.yaml": "include: people.yaml\n"})
    settings = load_customers(Path("push.yaml"), {})
    assert (settings.customers.keys(), settings.routes, settings.upstreams) == ({"c"}, (), {})
    write(folder, {"push.yaml": "include: people.yaml\nkeys: [{customer: d}]\n"})
    with pytest.raises(ConfigErrors) as found:
        load_customers(Path("push.yaml"), {})
    assert [problem.field for problem in found.value.problems] == ["keys.0.customer", "keys.0.sha256"]


def test_people_are_loaded_of_a_whole_configuration_whose_certificates_are_elsewhere(folder):
    tls = "listen: {address: 127.0.0.1:1, tls: {cert: not/here.pem, key: not/here.key}}\n"
    write(folder, {"edge.yaml": LEAST + tls})
    assert len(load_customers(Path("edge.yaml"), {}).routes) == 1
