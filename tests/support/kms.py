"""A server that speaks as AWS KMS does: moto, in a process of its own."""

import shutil
import sys
from pathlib import Path
from urllib.request import urlopen

from botocore.session import get_session

from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import until

PROGRAM = shutil.which(str(Path(sys.executable).parent / "moto_server"))
REGION = "eu-central-1"


class Kms:
    """Its keys are there as long as it runs."""

    def __init__(self, log: Path) -> None:
        assert PROGRAM is not None, "the fixture skips where there is none"
        self._ports = Ports(1)
        self.endpoint = f"http://{HOST}:{self._ports.numbers[0]}"
        self._process = Process([PROGRAM, "-H", HOST, "-p", str(self._ports.numbers[0])], log)
        until(lambda: not self._process.running or self._answers(), "moto answers")
        assert self._process.running, self._process.output
        self.client = get_session().create_client(
            "kms",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="key-of-a-test",
            aws_secret_access_key="secret-of-a-test",
        )

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment variables of clients."""
        return {
            "AWS_ENDPOINT_URL_KMS": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key-of-a-test",
            "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create_key(self) -> str:
        """Return the ARN of a new key."""
        arn: str = self.client.create_key()["KeyMetadata"]["Arn"]
        return arn

    def close(self) -> None:
        """End it, and its ports are refused."""
        self._process.stop()
        self._ports.close()

    def _answers(self) -> bool:
        try:
            urlopen(f"{self.endpoint}/moto-api/", timeout=5).close()
        except OSError:
            return False
        return True
