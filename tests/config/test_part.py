"""Secrets of settings that otherwise need a restart."""

import pytest

from edgeproxy.config.collector.pages import Pages
from edgeproxy.config.part import replace_secrets

MAIL = {"server": "mail.example.com:465", "sender": "a@example.com", "user": "me", "password": "one"}


def build_pages(**mail: str) -> Pages:
    return Pages.model_validate(
        {"client": "edgeproxy", "client_secret": mail.get("password", "one"), "mail": MAIL | mail}
    )


@pytest.mark.parametrize(
    ("mail", "secrets"),
    [
        ({}, ("one", "one")),
        ({"password": "two"}, ("two", "two")),
        # Another server must not get the password before the restart, and the old server not the new one.
        ({"password": "two", "server": "other.example.com:465"}, ("two", "one")),
    ],
)
def test_secrets_are_replaced_in_parts_that_are_the_same_otherwise(
    mail: dict[str, str], secrets: tuple[str, str]
) -> None:
    pages = replace_secrets(build_pages(), build_pages(**mail))
    assert pages.mail is not None
    assert (pages.client_secret, pages.mail.password) == secrets
    assert pages.mail.server == build_pages().mail.server  # type: ignore[union-attr]
