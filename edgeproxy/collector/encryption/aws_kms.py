"""AWS KMS as key service. The master key never leaves AWS.

Credentials, profiles and endpoints are configured as for AWS's own tools: by environment, files, or roles of a machine
or a pod.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Protocol

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.session import get_session

from edgeproxy.base.outgoing_proxy import OutgoingProxy, describe_way, find_proxy
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.base.trust import Stamps, TlsFilesError, stamp_file, stamp_files, write_bundle
from edgeproxy.collector.encryption.key_services import REASON_CHARACTERS_MAX, KeyServiceError

AUTHORITIES_VARIABLE = "AWS_CA_BUNDLE"
NO_ANSWER = "does not answer as AWS KMS does: is its endpoint a proxy, or another service?"
CALL_SECONDS = 20.0
"""Seconds for a call with all its attempts, including fetching credentials."""
CLIENT = Config(connect_timeout=3, read_timeout=4, retries={"mode": "standard", "total_max_attempts": 3})
CONTEXT = {"purpose": "edgeproxy wrapped key"}
"""The encryption context bound to ciphertexts. CloudTrail shows it, and a policy may require it."""
REASONS = {
    "AccessDeniedException": "denies access, grant kms:Encrypt and kms:Decrypt on it",
    "DisabledException": "is disabled",
    "IncorrectKeyException": "is another key than this was wrapped by",
    "InvalidCiphertextException": "is another key than this was wrapped by",
    "KMSInvalidStateException": "is pending deletion, or not usable yet",
    "KeyUnavailableException": "is not available at the moment",
    "NotFoundException": "does not exist there",
    "ThrottlingException": "throttles requests",
}
"""Texts for KMS errors about the key, by code."""


class KmsClient(Protocol):
    """The used part of botocore's client, which is generated at run time."""

    def encrypt(self, **parameters: object) -> Mapping[str, bytes]:
        """Call Encrypt."""

    def decrypt(self, **parameters: object) -> Mapping[str, bytes]:
        """Call Decrypt."""


def _create_client(region: str, proxy: OutgoingProxy | None) -> KmsClient:
    """Return a client with the site's proxy and trusted authorities. AWS's own variable overrides the authorities.

    Raises TlsFilesError.
    """
    session = get_session()
    config = (
        CLIENT if proxy is None else CLIENT.merge(Config(proxies={"https": proxy.full_url, "http": proxy.full_url}))
    )
    verify = None if AUTHORITIES_VARIABLE in os.environ else write_bundle()
    client: KmsClient = session.create_client("kms", region_name=region, config=config, verify=verify)
    return client


def _find_url(region: str) -> str:
    """Return the URL of KMS in a region. The environment may name another one."""
    return str(get_session().create_client("kms", region_name=region).meta.endpoint_url)


def _list_credential_files() -> list[str]:
    """List the files with AWS's credentials and profiles."""
    variables = get_session().get_config_variable
    return [os.path.expanduser(variables(name)) for name in ("credentials_file", "config_file")]


class AwsKmsKeyService:
    """A symmetric key of AWS KMS, by its ARN."""

    def __init__(self, arn: str) -> None:
        self.name = f"aws-kms {arn}"
        self._arn = arn
        self._client: KmsClient | None = None
        self._region = arn.split(":")[3]
        self._url: str | None = None
        self._began: tuple[Stamps, OutgoingProxy | None] | None = None
        """The state of the files, and the proxy, that the client began with. It keeps them."""

    async def wrap(self, key: bytes) -> bytes:
        return await self._call(
            lambda client: client.encrypt(KeyId=self._arn, Plaintext=key, EncryptionContext=CONTEXT)["CiphertextBlob"]
        )

    async def unwrap(self, wrapped: bytes) -> bytes:
        return await self._call(
            lambda client: client.decrypt(KeyId=self._arn, CiphertextBlob=wrapped, EncryptionContext=CONTEXT)[
                "Plaintext"
            ]
        )

    async def _call(self, call: Callable[[KmsClient], bytes]) -> bytes:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await run_in_thread("call AWS KMS", lambda: self._call_now(call))
        except TimeoutError:
            way = describe_way(self._url or "")
            raise KeyServiceError(f"{self.name} did not answer within {CALL_SECONDS:g} seconds{way}") from None

    def _call_now(self, call: Callable[[KmsClient], bytes]) -> bytes:
        """Call the service in a thread. Raises KeyServiceError."""
        try:
            if self._url is None:
                self._url = _find_url(self._region)
            now = (*stamp_files(), *map(stamp_file, _list_credential_files())), find_proxy(self._url)
            if self._client is None or now != self._began:
                self._client, self._began = _create_client(self._region, now[1]), now
            if answer := bytes(call(self._client)):
                return answer
            reason = NO_ANSWER
        except ClientError as error:
            code, message = (str(error.response["Error"].get(name)) for name in ("Code", "Message"))
            reason = f"{REASONS.get(code, f'answers {code}')}: {message}"
        except NoCredentialsError:
            reason = "cannot be asked: there are no credentials of AWS (environment, profile or role)"
        except (BotoCoreError, TlsFilesError) as error:
            reason = f"cannot be asked{describe_way(self._url or '')}: {error}"
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):  # An invalid answer, in botocore.
            reason = NO_ANSWER
        raise KeyServiceError(f"{self.name} {' '.join(reason.split())[:REASON_CHARACTERS_MAX]}")
