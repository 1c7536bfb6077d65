"""Encryption at rest: `encryption` of collector.yaml."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from edgeproxy.config.collector.encryption import Encryption


def test_the_master_key_is_in_a_file_or_asked_of_a_command() -> None:
    of_file = Encryption.model_validate({"file": "/etc/edgeproxy/master.key", "old": [{"command": ["vault", "key"]}]})
    assert (of_file.file, of_file.cache) == (Path("/etc/edgeproxy/master.key"), 3600.0)
    assert of_file.old[0].command == ("vault", "key")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "either `file` or `command`"),
        ({"file": "a", "command": ["b"]}, "either `file` or `command`"),
        ({"command": ["a", 1]}, "a text"),
        ({"command": ["a", "b\0c"]}, "a text"),
        ({"command": []}, "command"),
        ({"file": "a", "kms": "aws-kms:arn:aws:kms:eu-west-1:1:key/2"}, "is not available yet"),
    ],
)
def test_what_names_no_key_is_refused(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Encryption.model_validate(settings)


def test_no_provider_is_none() -> None:
    assert Encryption.model_validate({"file": "a", "kms": None}).kms is None
