"""Keys in little memory: equal to the models in their place, however they are read."""

import re
import zlib
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config import key_list
from edgeproxy.config.customers import Key
from edgeproxy.config.edge import warnings
from edgeproxy.config.edge.load import load_edge
from edgeproxy.config.key_form import BASE62, REGEX, generate_key, get_key_start, is_miswritten
from edgeproxy.config.key_list import KeyList
from edgeproxy.config.problems import ConfigError
from tests.config.conftest import LEAST

NAMES = [f"c{number % 50}" for number in range(100)]
DIGESTS = [sha256(b"%d" % number).hexdigest() for number in range(100)]


def read(folder: Path, more: dict[int, str]) -> KeyList:
    """Read a hundred keys, some with more fields."""
    customers = "".join(f"  c{number}: {{tier: t}}\n" for number in range(50))
    keys = "".join(
        f"  - {{sha256: {digest}, customer: {name}{more.get(place, '')}}}\n"
        for place, (digest, name) in enumerate(zip(DIGESTS, NAMES, strict=True))
    )
    file = folder / "edge.yaml"
    file.write_text(f"{LEAST}tiers: {{t: {{}}}}\ncustomers:\n{customers}keys:\n{keys}")
    keys_of_file = load_edge(file, {}).keys
    assert isinstance(keys_of_file, KeyList)
    return keys_of_file


def test_keys_are_equal_to_their_models(tmp_path: Path) -> None:
    models = [Key(sha256=digest, customer=name) for digest, name in zip(DIGESTS, NAMES, strict=True)]
    keys = read(tmp_path, {})
    assert keys == tuple(models)
    assert (list(keys), keys[-1], keys[3:9:2], len(keys)) == (models, models[-1], tuple(models[3:9:2]), 100)
    assert (keys[0].model_dump(), repr(keys[0])) == (models[0].model_dump(), repr(models[0]))
    assert keys == read(tmp_path, {})
    assert list(keys.list_others()) == []
    with pytest.raises(IndexError):
        keys[100]


def test_keys_with_more_settings_keep_their_places(tmp_path: Path) -> None:
    keys, plain = read(tmp_path, {7: ", expires: 2030-01-01", 57: ", expires: 2031-01-01"}), read(tmp_path, {})
    assert [place for place, _ in keys.list_others()] == [7, 57]
    assert [place for place in range(100) if keys[place] != plain[place]] == [7, 57]
    assert keys not in (plain, tuple(plain))
    assert keys == tuple(keys)
    other = read(tmp_path, {7: ", expires: 2030-01-01", 57: ", expires: 2032-01-01"})
    assert keys != other
    with pytest.raises(ConfigError, match=r"keys\.57\.expires"):
        read(tmp_path, {7: ", expires: 2030-01-01", 57: ", expires: never-ever"})


def test_search_by_customer_returns_all_its_keys(tmp_path: Path) -> None:
    keys = read(tmp_path, {7: ", expires: 2030-01-01"})
    for name in ("c0", "c1", "c7", "c49", "c", "c50", "0"):
        expected = [bytes.fromhex(key.sha256) for key in keys if key.customer == name]
        assert list(keys.find_digests(name)) == expected
        assert list(KeyList.from_keys(tuple(keys)).find_digests(name)) == expected
        assert len(expected) == (2 if name in NAMES else 0)


def test_list_from_models_equals_the_one_from_a_file(tmp_path: Path) -> None:
    keys = read(tmp_path, {7: ", expires: 2030-01-01"})
    assert KeyList.from_keys(tuple(keys)) == keys
    assert KeyList.from_keys(keys) is keys


def test_list_of_digests_creates_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = read(tmp_path, {7: ", expires: 2030-01-01"})
    settings, models = load_edge(tmp_path / "edge.yaml", {}), tuple(keys)
    monkeypatch.delattr(key_list, "create_plain_key")
    assert (
        keys.list_digests() == KeyList.from_keys(models).list_digests() == [bytes.fromhex(digest) for digest in DIGESTS]
    )
    monkeypatch.setattr(warnings, "DEMONSTRATION", {DIGESTS[42]})
    places = [
        warning.partition(":")[0] for warning in warnings.list_edge_warnings(settings) if warning.startswith("keys.")
    ]
    assert places == ["keys.42"]


# ---- the form of keys that are made here


def test_a_key_has_the_form_and_carries_its_check():
    for prefix in ("edge", "edgetest", "a1"):
        key = generate_key(prefix)
        assert re.fullmatch(REGEX, key)
        assert key.startswith(f"{prefix}_v1_")
        body, _, check = key.rpartition("_")
        number = 0
        for character in check:
            number = number * 62 + BASE62.index(character)
        assert number == zlib.crc32(body.encode())
        assert not is_miswritten(key.encode())
        assert get_key_start(key) == key[: len(prefix) + 10]
    assert generate_key() != generate_key()


@given(st.integers(0, 49), st.sampled_from(BASE62))
def test_any_other_character_is_noticed(place, character):
    key = generate_key()
    changed = key[:place] + character + key[place + 1 :]
    if changed != key and re.fullmatch(REGEX, changed):
        assert is_miswritten(changed.encode())


def test_keys_of_other_forms_are_not_judged():
    for other in (b"", b"ek_live_acme_6f1d0c9a7b3e4852", b"edge_v1_short_000000", b"\xff" * 50):
        assert not is_miswritten(other)
