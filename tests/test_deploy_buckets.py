"""An S3 server accepts the settings of buckets in deploy/buckets and applies them."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from loadtest.testbed.process import ROOT

pytest.importorskip("botocore", reason="there is no botocore on this machine")
from botocore.exceptions import ClientError
from botocore.session import get_session

from tests.support.kms import PROGRAM, REGION, Kms

BUCKETS = ROOT / "deploy/buckets"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if PROGRAM is None:
        pytest.skip("there is no moto on this machine")
    with closing(Kms(tmp_path_factory.mktemp("buckets") / "log")) as server:
        keys = {"aws_access_key_id": "key-of-a-test", "aws_secret_access_key": "secret-of-a-test"}
        yield get_session().create_client("s3", region_name=REGION, endpoint_url=server.endpoint, **keys)


def load(name: str) -> Any:
    return json.loads((BUCKETS / name).read_text())


@pytest.mark.parametrize("kind", ["usage", "backups", "audit"])
def test_each_lifecycle_is_taken_and_ends_each_file(s3: Any, kind: str) -> None:
    s3.create_bucket(Bucket=kind, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_lifecycle_configuration(Bucket=kind, LifecycleConfiguration=load(f"lifecycle-{kind}.json"))
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=kind)["Rules"]
    assert rule["Status"] == "Enabled"
    days = rule["Expiration"]["Days"]
    assert all(90 == one["Days"] < days for one in rule.get("Transitions", []))
    assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] <= 30
    s3.put_bucket_encryption(Bucket=kind, ServerSideEncryptionConfiguration=load("encryption.json"))
    (encryption,) = s3.get_bucket_encryption(Bucket=kind)["ServerSideEncryptionConfiguration"]["Rules"]
    assert encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"


def test_an_export_of_the_audit_log_is_locked(s3: Any) -> None:
    place = {"Bucket": "locked", "CreateBucketConfiguration": {"LocationConstraint": REGION}}
    s3.create_bucket(**place, ObjectLockEnabledForBucket=True)
    s3.put_object_lock_configuration(Bucket="locked", ObjectLockConfiguration=load("lock-audit.json"))
    version = s3.put_object(Bucket="locked", Key="edgeproxy/audit.jsonl", Body=b"{}")["VersionId"]
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket="locked", Key="edgeproxy/audit.jsonl", VersionId=version)
