"""Export storage: an S3-compatible bucket or a directory.

Bucket settings other than the name come from the environment variables of the AWS tools.
"""

import configparser
import ipaddress
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from obstore import exceptions
from obstore.store import LocalStore, S3Store

from edgeproxy.base.outgoing_proxy import OutgoingProxy, find_proxy
from edgeproxy.base.trust import trusted_by_variable

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PREFIX = re.compile(r"[A-Za-z0-9_.=-]+(/[A-Za-z0-9_.=-]+)*")
STORAGE_FORMS = "s3://BUCKET/PREFIX, or file:///DIRECTORY"
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
"""S3's values for the encryption of files, as in its header."""
RETRIES = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
REQUEST_SECONDS_MAX = 120
DETAILS = "\nDebug source:"
"""The library's text for developers begins here. It alone has the reason for a failed connection."""
REASON = re.compile(r"""Error\(\s*Connect,\s*(?P<reason>\w+)""")


class InvalidStorageError(Exception):
    """The named storage is unusable. The message tells the user why."""


class StorageUnavailableError(OSError):
    """The storage is unreachable or denies access."""


class ConcurrentExportError(Exception):
    """Another process has written the file meanwhile."""


class Storage:
    """Files by path. Raises StorageUnavailableError."""

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        """Raises InvalidStorageError."""
        self.url = self._title = url
        self._store: Any
        parts = urlsplit(url)
        if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
            self._store = LocalStore(parts.path, mkdir=True)
        elif parts.scheme == "s3":
            self._store, proxy = _open_bucket(url, environ)
            if proxy is not None:
                self._title = f"{url} through {proxy.title}"
        else:
            raise InvalidStorageError(f"--parquet: is no place for files: write {STORAGE_FORMS}")
        self._is_here = parts.scheme == "file"

    def sizes(self) -> dict[str, int]:
        """Return all existing files with their sizes in bytes."""
        with _convert_errors(self._title):
            return {one["path"]: one["size"] for some in self._store.list() for one in some}

    def get(self, path: str) -> tuple[bytes, str | None]:
        """Return a file and its version tag. Raises FileNotFoundError."""
        with _convert_errors(self._title):
            response = self._store.get(path)
            return bytes(response.bytes()), response.meta["e_tag"]

    def create(self, path: str, body: bytes) -> bool:
        """Create a file completely or not at all. Return False if it exists."""
        with _convert_errors(self._title):
            try:
                self._store.put(path, body, mode="create", use_multipart=False)
            except exceptions.AlreadyExistsError:
                return False
            except NotImplementedError:  # Disabled by AWS_CONDITIONAL_PUT=disabled.
                return self._create_plainly(path, body)
        return True

    def _create_plainly(self, path: str, body: bytes) -> bool:
        try:
            self._store.head(path)
        except FileNotFoundError:
            self._store.put(path, body, use_multipart=False)
            return True
        return False

    def replace(self, path: str, body: bytes, tag: str | None) -> str | None:
        """Create a file (`tag` None), or replace the version with this tag. Return the new tag.

        Raises ConcurrentExportError if there is another version now.
        """
        mode: Any = "create" if tag is None else {"e_tag": tag}
        if self._is_here:  # A local directory has only one exporter.
            mode = "overwrite"
        with _convert_errors(self._title):
            try:
                response = self._store.put(path, body, mode=mode, use_multipart=False)
            except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
                raise ConcurrentExportError(f"{path} was written by somebody else meanwhile: say it again") from None
            except NotImplementedError:
                response = self._store.put(path, body, use_multipart=False)
        new: str | None = response["e_tag"]
        return new


def _open_bucket(url: str, environ: Mapping[str, str]) -> tuple[S3Store, OutgoingProxy | None]:
    """Return a bucket, and the site's proxy if calls go through it."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise InvalidStorageError("--parquet: has credentials in it: they belong into the environment, or into a file")
    prefix = parts.path.strip("/")
    if not BUCKET.fullmatch(parts.netloc) or not PREFIX.fullmatch(prefix) or parts.query or parts.fragment:
        raise InvalidStorageError(f"--parquet: names no bucket and prefix: write {STORAGE_FORMS}")
    endpoint = next((environ[name] for name in ENDPOINTS if environ.get(name)), None)
    config: dict[str, Any] = find_credentials(environ)
    if endpoint is not None:
        if not config:  # The role of an AWS host is useless at another provider.
            raise InvalidStorageError("there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        config["endpoint"] = endpoint
    is_plain = endpoint is not None and not endpoint.lower().startswith("https://")
    if is_plain and not _is_loopback(endpoint or ""):
        raise InvalidStorageError("the endpoint of S3 is not https://, which only one on this host may be")
    options = {"allow_http": is_plain, "timeout": timedelta(seconds=REQUEST_SECONDS_MAX)}
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    config |= {"region": region} if region else {}
    config |= find_encryption(environ)
    proxy = find_proxy(endpoint or f"https://{parts.netloc}.s3.amazonaws.com")
    # The library would read proxy and authority variables itself. It does not know our settings.
    options |= {"proxy_excludes": "*"} if proxy is None else {"proxy_url": proxy.full_url}
    with _convert_errors(url), trusted_by_variable():
        store = S3Store(parts.netloc, prefix=prefix, config=config, client_options=options, retry_config=RETRIES)
    return store, proxy


def find_encryption(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the encryption that the environment requests from the store. Raises InvalidStorageError.

    `AWS_SERVER_SIDE_ENCRYPTION=aws:kms` uses the key AWS_SSE_KMS_KEY_ID, or the bucket's key.
    """
    kind, key = environ.get("AWS_SERVER_SIDE_ENCRYPTION", ""), environ.get("AWS_SSE_KMS_KEY_ID", "")
    if kind not in ("", *ENCRYPTIONS):
        raise InvalidStorageError(f"AWS_SERVER_SIDE_ENCRYPTION is none of {', '.join(ENCRYPTIONS)}")
    if key and kind in ("", "AES256"):
        raise InvalidStorageError("AWS_SSE_KMS_KEY_ID needs AWS_SERVER_SIDE_ENCRYPTION=aws:kms")
    names = {"server_side_encryption": kind, "sse_kms_key_id": key}
    return {name: value for name, value in names.items() if value}


def find_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the credentials from the environment, or from the file that it names; empty to use the host's role.

    AWS_SHARED_CREDENTIALS_FILE and AWS_PROFILE name the file. Raises InvalidStorageError.
    """
    names = ("access_key_id", "secret_access_key", "session_token")
    keys = {name: environ[f"AWS_{name.upper()}"] for name in names if environ.get(f"AWS_{name.upper()}")}
    given = environ.get("AWS_SHARED_CREDENTIALS_FILE")
    file = Path(given or Path(environ.get("HOME", "/nonexistent")) / ".aws/credentials")
    if not keys and (given or file.is_file()):
        profile = environ.get("AWS_PROFILE", "default")
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(file.read_text())
            section = parser[profile]
        except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
            raise InvalidStorageError(
                f"{file}: has no credentials of the profile {profile}: {type(error).__name__}"
            ) from None
        keys = {name: section[f"aws_{name}"] for name in names if f"aws_{name}" in section}
    if keys and not {*names[:2]} <= keys.keys():
        raise InvalidStorageError("the credentials are half there: an access key has an id and a secret")
    return keys


def _is_loopback(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname or ""
        return parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False


@contextmanager
def _convert_errors(title: str) -> Iterator[None]:
    """Convert the library's errors into StorageUnavailableError with a one-line message that begins with `title`."""
    try:
        yield
    except (FileNotFoundError, NotImplementedError, exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise
    except (exceptions.BaseError, OSError, ValueError) as error:
        text, _, details = str(error).partition(DETAILS)
        reason = REASON.search(details)
        shown = [" ".join(text.split()), *([] if reason is None else [reason["reason"]])]
        raise StorageUnavailableError(f"{title}: {': '.join(shown)}") from None
