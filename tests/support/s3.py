"""A server with S3's protocol: SeaweedFS in its own process, with its own key."""

import json
import shutil
import sys
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process, kill
from loadtest.testbed.waiting import until

PROGRAM = shutil.which(str(Path(sys.executable).parent / "weed")) or shutil.which("weed")
KEY, SECRET = "key-of-a-test", "secret-of-a-test"
PARTS = ("master", "volume", "filer", "s3")


class S3:
    """A server with a bucket, `usage`."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAM is not None, "the fixture skips where there is none"
        folder.mkdir()
        (folder / "data").mkdir()
        may = {"credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin", "Read", "Write", "List"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [{"name": "test", **may}]}))
        self._ports = Ports(2 * len(PARTS))
        numbers = iter(self._ports.numbers)
        ports = [f"-{part}.port{kind}={next(numbers)}" for part in PARTS for kind in ("", ".grpc")]
        self.endpoint = f"http://{HOST}:{self._ports.numbers[-2]}"
        command = [
            *(PROGRAM, "server", f"-dir={folder}/data", f"-ip={HOST}", f"-ip.bind={HOST}", "-filer", "-s3", *ports),
            *("-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-s3.config={folder}/s3.json", "-s3.iam=false", "-volume.max=100", "-master.volumeSizeLimitMB=64"),
        ]
        self._process = Process(command, folder / "log")
        until(lambda: not self._process.running or self._answers(), "SeaweedFS answers")
        assert self._process.running, self._process.output
        until(self._has_bucket, "SeaweedFS keeps something")

    @property
    def environ(self) -> dict[str, str]:
        """The environment of clients."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def _answers(self) -> bool:
        try:
            urlopen(self.endpoint, timeout=5).close()
        except HTTPError as answer:
            return answer.code == 403  # The request has no key.
        except (URLError, OSError):
            return False
        return True

    def _has_bucket(self) -> bool:
        """Return whether a write succeeds, which creates the bucket."""
        from edgeproxy.collector.exports.storage import Storage, StorageUnavailableError

        try:
            Storage("s3://usage/first", self.environ).create("file", b"")
        except StorageUnavailableError:
            return False
        return True

    def close(self) -> None:
        """Send SIGKILL."""
        kill(self._process.pid)
        self._process.wait(10.0)
        for left in (
            path for number in self._ports.numbers for path in Path("/tmp").glob(f"seaweedfs-*-{number}.sock")
        ):
            left.unlink()
        self._ports.close()
