"""Encryption at rest: `encryption` of collector.yaml."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from edgeproxy.config.collector.encryption import Encryption

KMS = "aws-kms:arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def test_the_master_key_is_in_a_file_or_asked_of_a_command() -> None:
    of_file = Encryption.model_validate({"file": "/etc/edgeproxy/master.key", "old": [{"command": ["vault", "key"]}]})
    assert (of_file.file, of_file.cache) == (Path("/etc/edgeproxy/master.key"), 3600.0)
    assert of_file.old[0].command == ("vault", "key")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "one of `file`, `command` and `kms`"),
        ({"file": "a", "command": ["b"]}, "one of `file`, `command` and `kms`"),
        ({"command": ["a", 1]}, "a text"),
        ({"command": ["a", "b\0c"]}, "a text"),
        ({"command": []}, "command"),
        ({"file": "a", "kms": KMS}, "one of `file`, `command` and `kms`"),
        ({"kms": KMS.removeprefix("aws-kms:")}, "aws-kms:arn"),
        ({"kms": "aws-kms:arn:aws:s3:::keys"}, "aws-kms:arn"),
        ({"kms": KMS + "\n"}, "aws-kms:arn"),
    ],
)
def test_encryption_without_a_key_is_refused(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Encryption.model_validate(settings)


def test_a_key_of_aws_is_named_by_its_arn() -> None:
    assert Encryption.model_validate({"kms": KMS}).kms == KMS.removeprefix("aws-kms:")
