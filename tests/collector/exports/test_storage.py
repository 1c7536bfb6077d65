"""Where an export may go, by what its URL and the environment say."""

from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="there is no obstore on this machine")
from edgeproxy.collector.exports.storage import InvalidStorageError, Storage, find_credentials

KEY = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "a-secret"}


@pytest.mark.parametrize(
    ("url", "environ", "why"),
    [
        ("s3://id:a-secret@bucket/x", KEY, "has credentials in it"),
        ("s3://bucket", KEY, "names no bucket and prefix"),
        ("s3://bucket/a//b", KEY, "names no bucket and prefix"),
        ("s3://bucket/a?x=1", KEY, "names no bucket and prefix"),
        ("s3://b u/a", KEY, "names no bucket and prefix"),
        ("https://bucket/a", KEY, "is no place for files"),
        ("file://host/a", {}, "is no place for files"),
        ("s3://bucket/a", {**KEY, "AWS_ENDPOINT_URL": "http://10.0.0.1:9000"}, "is not https://"),
        ("s3://bucket/a", {**KEY, "AWS_ENDPOINT_URL": "http://127.0.0.1.example.com"}, "is not https://"),
        ("s3://bucket/a", {**KEY, "AWS_ENDPOINT": "ftp://127.0.0.1"}, "is not https://"),
        ("s3://bucket/a", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "HOME": "/nonexistent"}, "no credentials"),
        ("s3://bucket/a", {"AWS_ACCESS_KEY_ID": "id"}, "half there"),
    ],
)
def test_what_cannot_be_used_is_refused_and_no_secret_repeated(url: str, environ: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidStorageError, match=why) as no:
        Storage(url, environ)
    assert "a-secret" not in str(no.value)


def test_credentials_may_be_in_a_file_as_the_tools_of_aws_keep_them(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = one\naws_secret_access_key = 1%\n[two]\naws_access_key_id = 2\n")
    named = {"AWS_SHARED_CREDENTIALS_FILE": str(file)}
    assert find_credentials(named) == {"access_key_id": "one", "secret_access_key": "1%"}
    assert find_credentials({**named, **KEY}) == {"access_key_id": "id", "secret_access_key": "a-secret"}
    for wrong in ({**named, "AWS_PROFILE": "two"}, {**named, "AWS_PROFILE": "three"}):
        with pytest.raises(InvalidStorageError):
            find_credentials(wrong)
    assert find_credentials({"HOME": str(tmp_path)}) == {}
