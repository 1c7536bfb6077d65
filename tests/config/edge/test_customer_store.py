"""The customers of a worker: packed, and each one is read from the text that it shares with equal ones."""

import errno
import socket

import msgspec
import pytest

from edgeproxy.base.sealed_memory import MemoryReceiver
from edgeproxy.config.customers import Customer, Key
from edgeproxy.config.edge import customer_store
from edgeproxy.config.edge.customer_store import (
    CustomerMap,
    Customers,
    PackedCustomers,
    dump_customers,
    share_customers,
)
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.key_list import KeyList

MANY = 3000


def build_settings() -> EdgeSettings:
    """Return settings with customers of two kinds, each with a key, and every third key with scopes."""
    customers = {f"c{number}": Customer(tier="free" if number % 2 else "pro") for number in range(MANY)}
    keys = [
        Key(sha256=f"{number:064x}", customer=f"c{number}", **({} if number % 3 else {"scopes": ["read"]}))
        for number in range(1, MANY)
    ]
    return EdgeSettings.model_construct(upstreams={}, routes=(), sha256="", customers=customers, keys=tuple(keys))


def test_each_of_many_customers_and_keys_is_restored() -> None:
    settings = build_settings()
    dumped = dump_customers(settings)
    customers = Customers(dumped)
    assert len(customers) == 2 * MANY - 1
    assert {name: customers.get_customer(name) for name in settings.customers} == settings.customers
    for key in settings.keys:
        held = customers.find_key(bytes.fromhex(key.sha256))
        assert held is not None
        assert (held.customer, held.terms.scopes, held.digest.hex()) == (key.customer, key.scopes, key.sha256)
    assert len(msgspec.msgpack.decode(dumped, type=PackedCustomers).texts) == 4
    assert [customers.has_customer(name) for name in ("c0", "c", "c3000", "c1\nc2", "")] == [True, *[False] * 4]
    for digest in (bytes(32), b"", bytes(31) + b"\x01" + bytes(32)):
        assert customers.find_key(digest) is None
    with pytest.raises(KeyError):
        customers.get_customer("c3000")


def test_names_of_customers_with_a_key_each_are_sent_once() -> None:
    names = [f"c{number}" for number in range(MANY)]
    keys = [Key(sha256=f"{number:064x}", customer=name) for number, name in enumerate(names)]
    customers = dict.fromkeys(names, Customer(tier="pro"))
    settings = EdgeSettings.model_construct(upstreams={}, routes=(), sha256="", customers=customers, keys=tuple(keys))
    dumped = dump_customers(settings)
    restored = Customers(dumped)
    assert dumped.count(b"\nc1\n") == 1
    packed = settings.model_copy(update={"keys": KeyList.from_keys(settings.keys)})
    share_customers(packed)
    assert packed.keys == settings.keys
    assert isinstance(packed.keys, KeyList)
    assert [list(packed.keys.find_digests(name)) for name in ("c7", "c3000")] == [[bytes.fromhex(f"{7:064x}")], []]
    for key in keys:
        held = restored.find_key(bytes.fromhex(key.sha256))
        assert held is not None
        assert (held.customer, restored.get_customer_of(held.subject).tier) == (key.customer, "pro")


def test_a_key_leads_to_its_own_customer_after_another_look_up() -> None:
    tiers = {"acme": "pro", "globex": "free"}
    keys = tuple(Key(sha256=f"{number:064x}", customer=name) for number, name in enumerate(tiers))
    people = {name: Customer(tier=tier) for name, tier in tiers.items()}
    settings = EdgeSettings.model_construct(upstreams={}, routes=(), sha256="", customers=people, keys=keys)
    restored = Customers(dump_customers(settings))
    held = [restored.find_key(bytes.fromhex(key.sha256)) for key in keys]
    assert [restored.get_customer_of(each.subject).tier for each in held if each] == ["pro", "free"]
    assert restored.get_customer("acme").tier == "pro"


def test_customers_are_restored_when_no_more_texts_are_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("read_terms", "read_customer"):
        monkeypatch.setattr(customer_store, name, getattr(customer_store, name).__wrapped__)
    customers = Customers(dump_customers(build_settings()))
    assert [customers.get_customer(f"c{number}").tier for number in range(3)] == ["pro", "free", "pro"]


def test_a_message_whose_parts_do_not_fit_is_refused() -> None:
    packed = msgspec.msgpack.decode(dump_customers(build_settings()), type=PackedCustomers)
    shorter = packed.block[:-4]
    # A number less in each section of numbers, and one more in the next.
    moved = [[*packed.sizes] for _ in range(3)]
    for sizes, (less, more) in zip(moved, ((5, 6), (6, 7), (8, 9)), strict=True):
        sizes[less] -= 4
        sizes[more] += 4
    for change in ({"block": shorter}, {"sizes": packed.sizes[:-1]}, *({"sizes": sizes} for sizes in moved)):
        with pytest.raises(ValueError, match="do not fit"):
            Customers(msgspec.msgpack.encode(msgspec.structs.replace(packed, **change)))
    with pytest.raises(msgspec.DecodeError):
        Customers(b"")


def build_packed_settings() -> EdgeSettings:
    """Return the settings in the form of a loaded file."""
    settings = build_settings()
    packed = {"customers": CustomerMap(settings.customers), "keys": KeyList.from_keys(settings.keys)}
    return settings.model_copy(update=packed)


def test_shared_customers_are_read_from_memory_by_both_sides() -> None:
    settings, packed = build_settings(), build_packed_settings()
    dumped, memory = share_customers(packed)
    assert memory is not None
    assert len(dumped) < len(memory.map()) // 20
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        memory.send(ours)
        customers = Customers(dumped, MemoryReceiver(theirs))
    held = [customers.find_key(bytes.fromhex(key.sha256)) for key in settings.keys]
    assert [(each.customer, each.terms.scopes) for each in held if each] == [
        (key.customer, key.scopes) for key in settings.keys
    ]
    assert {name: customers.get_customer(name) for name in settings.customers} == settings.customers
    # The settings have given up their own memory, and are the same.
    assert dump_customers(packed) == dump_customers(settings)
    assert packed.customers == CustomerMap(settings.customers) == settings.customers
    assert packed.keys == KeyList.from_keys(settings.keys)
    assert packed.keys == settings.keys
    assert isinstance(packed.keys, KeyList)
    assert list(packed.keys.find_digests("c7")) == [bytes.fromhex(f"{7:064x}")]
    assert list(packed.keys.find_digests("c0")) == []


@pytest.mark.parametrize("call", ["os.memfd_create", "edgeproxy.base.sealed_memory.map_memory"])
def test_customers_are_in_the_message_if_the_system_has_no_memory_to_share(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(call, refuse)
    settings = build_packed_settings()
    assert share_customers(settings) == (dump_customers(build_settings()), None)


def test_customers_whose_memory_has_not_come_are_refused() -> None:
    dumped, _ = share_customers(build_settings())
    with pytest.raises(ValueError, match="has not come"):
        Customers(dumped)


def test_packed_customers_of_a_file_are_read_as_a_mapping() -> None:
    customers = dict(build_settings().customers)
    packed = CustomerMap(customers)
    assert packed == customers
    assert list(packed) == list(customers)
    assert packed["c1"] is customers["c1"]
    assert (packed.get("c3000"), "c1\nc2" in packed, repr(packed) == repr(customers)) == (None, False, True)
    assert (len(CustomerMap({})), list(CustomerMap({}))) == (0, [])


def test_packed_customers_are_equal_if_their_names_have_equal_customers() -> None:
    one, two = Customer(tier="one"), Customer(tier="two")
    packed = CustomerMap({"a": one, "b": two, "c": one})
    assert packed == CustomerMap({"a": Customer(tier="one"), "b": Customer(tier="two"), "c": one})
    assert packed == CustomerMap({"c": one, "b": two, "a": one})
    for others in ({"a": one, "b": two, "c": two}, {"a": one, "b": two, "d": one}, {"a": one, "b": two}):
        assert packed != CustomerMap(others)
    assert packed != []


def test_settings_with_packed_customers_are_dumped_as_before() -> None:
    settings = build_settings()
    packed = settings.model_copy(update={"customers": CustomerMap(settings.customers)})
    assert dump_customers(packed) == dump_customers(settings)
