"""From files to settings, and from one process to another."""

import gc
import hashlib
import socket
from pathlib import Path

import pytest

from edgeproxy.base.sealed_memory import MemoryReceiver
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.edge import load
from edgeproxy.config.edge.admin import Admin
from edgeproxy.config.edge.load import dump_settings, load_customers, load_edge, restore_settings, share_settings
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.file_kinds import check_file
from edgeproxy.config.hub_settings import Hub
from edgeproxy.config.load import pause_garbage_collection
from edgeproxy.config.problems import ConfigError
from tests.config.conftest import LEAST, write


@pytest.fixture
def reads_files():
    return False


ROOT = Path(__file__).parents[2]


def find_key(people, sha256):
    """Return a worker's key in the form of the files."""
    held = people.find_key(bytes.fromhex(sha256))
    return held.terms.model_copy(update={"sha256": held.digest.hex(), "customer": held.customer})


def without_people(settings):
    return settings.model_copy(update={"customers": {}, "keys": (), "admin": Admin()})


def test_the_example_passes_with_a_signer_to_trust_and_nothing_else():
    settings = load_edge(ROOT / "config" / "edge.yaml", {"DIRECTORY_TRUST": f"ed25519:{'A' * 43}="})
    assert settings.workers == 2
    assert {route.label for route in settings.routes} >= {"anything", "get", "post", "status", "stream", "bytes"}
    assert (settings.customers, settings.keys) == ({}, ()), "customers and keys belong to the collector"
    demonstration = load_collector(ROOT / "config" / "demo.yaml", {})
    assert demonstration.tiers == settings.tiers
    assert demonstration.meters == settings.meters
    keys = {key.sha256: key.customer for key in demonstration.keys}
    for secret, customer, tier, count in (
        ("ek_demo_basic", "demo-basic", "free", 60),
        ("ek_demo_pro", "demo-pro", "pro", 600),
    ):
        assert keys[hashlib.sha256(secret.encode()).hexdigest()] == customer
        assert demonstration.customers[customer].tier == tier
        assert settings.tiers[tier].limits[0].count == count


def test_settings_of_a_large_file_are_copied_whole(monkeypatch):
    example = ROOT / "config" / "edge.yaml", {"DIRECTORY_TRUST": f"ed25519:{'A' * 43}="}
    settings = load_edge(*example)
    monkeypatch.setattr(load, "MANY_CUSTOMERS", 0)
    assert load_edge(*example) == settings


def test_digest_covers_all_files_read(loaded):
    digest = hashlib.sha256((LEAST + "include: a.yaml\n" + "tiers: {}\n").encode()).hexdigest()
    assert loaded("include: a.yaml\n", files={"a.yaml": "tiers: {}\n"}).sha256 == digest


def test_configuration_with_problems_does_not_load(folder):
    write(folder, {"edge.yaml": "drain: 5\n"})
    with pytest.raises(ConfigError) as caught:
        load_edge(Path("edge.yaml"), {})
    assert [problem.field for problem in caught.value.problems] == ["upstreams", "routes", "drain"]


def test_dumped_settings_are_restored(loaded):
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
    restored, people = restore_settings(dump_settings(settings))
    assert restored == without_people(settings)
    assert type(restored) is EdgeSettings
    assert {name: people.get_customer(name) for name in settings.customers} == settings.customers
    assert tuple(find_key(people, key.sha256) for key in settings.keys) == settings.keys
    assert len(people) == 4
    assert people.find_key(bytes(32)) is None


def test_shared_settings_have_their_customers_in_memory(loaded):
    key = "ab" * 32
    settings = loaded(
        f"tiers: {{t: {{}}}}\ncustomers: {{acme: {{tier: t}}}}\nkeys: [{{sha256: {key}, customer: acme}}]\n"
    )
    before = dump_settings(settings)
    dumped, memory = share_settings(settings)
    assert b"acme" in before
    assert b"acme" not in dumped
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        memory.send(ours)
        restored, people = restore_settings(dumped, MemoryReceiver(theirs))
    assert restored == without_people(settings)
    assert find_key(people, key) == settings.keys[0]
    assert dump_settings(settings) == before


def test_workers_are_not_reported_where_usage_is_shipped(loaded):
    dumped = dump_settings(loaded("usage: {collector: 'http://127.0.0.1:9100', token: hush}\n"))
    assert b"hush" not in dumped
    assert restore_settings(dumped)[0].usage is None


def test_worker_settings_omit_the_hub_url(loaded):
    reported = "hub: {url: 'rediss://me:hush@h:7000/2', sync: 250ms, on_loss: deny, tls: {verify: no}}\n"
    settings = loaded(reported + "tiers: {t: {limits: [{rate: 1/s, sync: strict}]}}\n")
    dumped = dump_settings(settings)
    assert b"hush" not in dumped
    restored, _ = restore_settings(dumped)
    assert restored.hub == Hub(url="rediss://me@h:7000/2")
    assert restored.hub.is_shared
    assert restored.tiers == settings.tiers
    assert settings.hub.url == "rediss://me:hush@h:7000/2"


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_as_it_was(enabled):
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pause_garbage_collection():
            during = gc.isenabled()
        assert (during, gc.isenabled()) == (False, enabled)
    finally:
        (gc.enable if before else gc.disable)()


def test_many_keys_are_read_in_seconds(loaded, tmp_path):
    many = 20_000
    keys = "".join(f'  - {{sha256: "{number:064x}", customer: acme}}\n' for number in range(many))
    settings = loaded("tiers: {t: {}}\ncustomers: {acme: {tier: t}}\nkeys:\n" + keys)
    assert len(settings.keys) == many
    restored, people = restore_settings(dump_settings(settings))
    assert (restored, len(people)) == (without_people(settings), many + 1)
    assert find_key(people, settings.keys[7].sha256) == settings.keys[7]


@pytest.mark.parametrize("text", ["tiers: {basic: {}}\n", "customers: {a: {tier: elsewhere}}\nmeters: {}\n"])
def test_included_file_passes_the_check_but_does_not_load_alone(folder, text):
    (folder / "tiers.yaml").write_text(text)
    assert check_file(Path("tiers.yaml"), {}) is None
    with pytest.raises(ConfigError):
        load_edge(Path("tiers.yaml"), {})


@pytest.mark.parametrize("text", ["", "region: x\n", "tiers: {}\nregion: x\n", "tiers: {a: {limits: [x]}}\n"])
def test_a_part_has_people_and_no_problem(folder, text):
    (folder / "tiers.yaml").write_text(text)
    with pytest.raises(ConfigError):
        check_file(Path("tiers.yaml"), {})


def test_check_of_a_whole_configuration_equals_its_load(folder):
    (folder / "edge.yaml").write_text(LEAST)
    assert check_file(Path("edge.yaml"), {}) == load_edge(Path("edge.yaml"), {})


def test_people_are_loaded_of_a_file_that_serves_nothing(folder):
    write(folder, {"people.yaml": "tiers: {t: {}}\ncustomers: {c: {tier: t}}\n", "push.yaml": "include: people.yaml\n"})
    settings = load_customers(Path("push.yaml"), {})
    assert (settings.customers.keys(), settings.routes, settings.upstreams) == ({"c"}, (), {})
    write(folder, {"push.yaml": "include: people.yaml\nkeys: [{customer: d}]\n"})
    with pytest.raises(ConfigError) as result:
        load_customers(Path("push.yaml"), {})
    assert [problem.field for problem in result.value.problems] == ["keys.0.customer", "keys.0.sha256"]


def test_customers_load_from_a_configuration_with_missing_certificates(folder):
    tls = "listen: {address: 127.0.0.1:1, tls: {cert: not/here.pem, key: not/here.key}}\n"
    write(folder, {"edge.yaml": LEAST + tls})
    assert len(load_customers(Path("edge.yaml"), {}).routes) == 1
