"""Names of customers for subjects of tokens: one each, and back."""

import base64
import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeproxy.config.parsers import NAME
from edgeproxy.config.subject_names import name_subject, subject_name

NAMES = [
    ("acme", "acme"),
    ("Acme_1", "Acme_1"),
    ("auth0|5f7c8ec7c33c6c004bbafe82", "sub--auth0_7c5f7c8ec7c33c6c004bbafe82"),
    ("abc@clients", "sub--abc_40clients"),
    ("user@example.com", "sub--user_40example_2ecom"),
    ("google-oauth2|1", "sub--google-oauth2_7c1"),
    ("_x", "sub--_5fx"),
    ("../x", "sub--_2e_2e_2fx"),
    ("é", "sub--_c3_a9"),
    ("a|" + "b" * 55, "sub--a_7c" + "b" * 55),
    ("a|" + "b" * 56, "sha--"),
    ("a" * 65, "sha--"),
    # A name with the prefix of a generated name must be generated itself.
    ("sub--auth0_7c1", "sub--sub--auth0_5f7c1"),
    ("sha--x", "sub--sha--x"),
]


@pytest.mark.parametrize(("subject", "name"), NAMES)
def test_a_subject_has_a_name(subject: str, name: str) -> None:
    created = subject_name(subject)
    if name == "sha--":
        name += base64.urlsafe_b64encode(hashlib.sha256(subject.encode()).digest()).decode().rstrip("=")
    assert created == name
    assert name_subject(created) == (None if created.startswith("sha--") else subject)


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"), min_size=1))
@example("auth0|1", "sub--auth0_7c1")
@example("A@x", "a@x")
@example("a" * 65, "sha--" + "a" * 43)
def test_no_two_subjects_have_one_name(one: str, other: str) -> None:
    names = subject_name(one), subject_name(other)
    assert all(map(NAME.fullmatch, names))
    assert (names[0] == names[1]) == (one == other)
    assert name_subject(names[0]) in (one, None)


@pytest.mark.parametrize("subject", ["", "\ud800"])
def test_non_text_subject_has_no_name(subject: str) -> None:
    with pytest.raises(ValueError):
        subject_name(subject)


@pytest.mark.parametrize("name", ["sub--", "sub--acme", "sub--a_7C", "sub--a_7", "sub--_ff", "sub--é", "sha--x", "a|b"])
def test_invalid_subject_name_resolves_to_none(name: str) -> None:
    assert name_subject(name) is None
