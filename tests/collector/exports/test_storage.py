"""The targets of exports, by URL and environment."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadtest.testbed.ports import HOST

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
def test_invalid_storage_url_is_refused_without_its_secret(url: str, environ: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidStorageError, match=why) as raised:
        Storage(url, environ)
    assert "a-secret" not in str(raised.value)


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


def test_upload_requests_server_side_encryption() -> None:
    arn, seen = "arn:aws:kms:eu-west-1:123456789012:key/1", list[dict[str, str]]()

    class Recording(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer((HOST, 0), Recording)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        environ = {**KEY, "AWS_ENDPOINT_URL": f"http://{HOST}:{server.server_port}", "AWS_REGION": "eu-west-1"}
        told = {"AWS_SERVER_SIDE_ENCRYPTION": "aws:kms", "AWS_SSE_KMS_KEY_ID": arn}
        assert Storage("s3://usage/a", environ).create("one", b"1")
        assert Storage("s3://usage/a", environ | told).create("two", b"2")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    header = "x-amz-server-side-encryption"
    assert [one.get(header) for one in seen] == [None, "aws:kms"]
    assert seen[1][f"{header}-aws-kms-key-id"] == arn
    for wrong in ({"AWS_SERVER_SIDE_ENCRYPTION": "kms"}, {"AWS_SSE_KMS_KEY_ID": arn}):
        with pytest.raises(InvalidStorageError, match="AWS_S"):
            Storage("s3://usage/a", KEY | wrong)
