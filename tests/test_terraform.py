"""The files of deploy/terraform fit together, and say of the hub what its page says. They were never applied."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

hcl2 = pytest.importorskip("hcl2", reason="there is no python-hcl2 on this machine")
ROOT = Path(__file__).parents[1]
MODULES = {path.name: path for path in (ROOT / "deploy" / "terraform").iterdir()}
REFERENCE = re.compile(r"\b(var|local|module|data|aws_\w+)\.(\w+)(?:\.(\w+))?")
Blocks = dict[str, dict[str, Any]]


def read(name: str) -> dict[str, Blocks]:
    """Return the blocks of a module by kind and name; of resources and data TYPE.NAME."""
    module: dict[str, Blocks] = {}
    for file in MODULES[name].glob("*.tf"):
        for kind, blocks in hcl2.loads(file.read_text()).items():
            for labels, body in list_blocks([] if kind.startswith("__") else blocks):
                module.setdefault(kind, {}).setdefault(".".join(labels), {}).update(body)
    return module


def list_blocks(blocks: list[dict[str, Any]]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield the labels and the content of each block."""
    for block in blocks:
        labels: list[str] = []
        body = block
        while "__is_block__" not in body:
            ((label, body),) = ((key, value) for key, value in body.items() if not key.startswith("__"))
            labels.append(label.strip('"'))
        yield labels, {key: value for key, value in body.items() if not key.startswith("__")}


def flatten(body: dict[str, Any]) -> str:
    """Return a block as text, however its strings are put together."""
    return re.sub(r"[\"${}]", "", str(sorted(body.items())))


def names_in(value: Any) -> Iterator[tuple[str, ...]]:
    """Yield the names that a value refers to."""
    if isinstance(value, dict):
        for each in value.values():
            yield from names_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from names_in(each)
    elif isinstance(value, str):
        yield from (tuple(filter(None, found)) for found in REFERENCE.findall(value))


@pytest.mark.parametrize("name", MODULES)
def test_terraform_references_exist_and_variables_are_used(name: str) -> None:
    module = read(name)
    there = {
        "var": set(module.get("variable", {})),
        "local": {key for body in module.get("locals", {}).values() for key in body},
        "module": set(module.get("module", {})),
    }
    used = set()
    for kind, blocks in module.items():
        for label, body in blocks.items():
            for root, first, *rest in names_in(body):
                if root in there:
                    assert first in there[root], f"{kind} {label}: {root}.{first}"
                elif root == "data":
                    assert ".".join([first, *rest]) in module["data"], f"{kind} {label}: data.{first}.{rest}"
                else:
                    assert f"{root}.{first}" in module["resource"], f"{kind} {label}: {root}.{first}"
                if kind != "variable":
                    used.add((root, first))
    assert there["var"] == {first for root, first in used if root == "var"}
    assert all({"description", "type"} <= body.keys() for body in module.get("variable", {}).values())


def test_terraform_example_matches_module_variables_and_outputs() -> None:
    example = read("example")
    for label, body in example["module"].items():
        module = read(body["source"].strip('"').removeprefix("../"))
        variables = module["variable"]
        given = body.keys() - {"source", "providers"}
        assert given <= variables.keys(), label
        assert {name for name, variable in variables.items() if "default" not in variable} <= given, label
    outputs = {each for body in example["output"].values() for each in names_in(body)}
    for _, label, name in outputs:
        module = read(example["module"][label]["source"].strip('"').removeprefix("../"))
        assert name in module["output"], f"module.{label}.{name}"


def test_terraform_buckets_are_private_encrypted_and_versioned() -> None:
    resources = read("storage")["resource"]
    kinds = {label.partition(".")[0] for label in resources if label.startswith("aws_s3_bucket_")}
    assert kinds == {
        "aws_s3_bucket_lifecycle_configuration",
        "aws_s3_bucket_object_lock_configuration",
        "aws_s3_bucket_policy",
        "aws_s3_bucket_public_access_block",
        "aws_s3_bucket_replication_configuration",
        "aws_s3_bucket_server_side_encryption_configuration",
        "aws_s3_bucket_versioning",
    }
    for kind in kinds - {"aws_s3_bucket_replication_configuration"}:
        source, copy = resources[f"{kind}.source"], resources[f"{kind}.copy"]
        assert "provider" not in source
        assert "aws.copy" in copy["provider"], kind
        del copy["provider"]
        assert re.sub(r"-?\bcopy\b", "", flatten(copy)) == re.sub(r"\bsource\b", "", flatten(source)), kind
    block = resources["aws_s3_bucket_public_access_block.source"]
    closed = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    assert all(block[name] is True for name in closed)


def test_the_hubs_users_have_the_rights_of_its_page() -> None:
    page = (ROOT / "docs" / "operations" / "hub.md").read_text()
    resources = read("region")["resource"]
    for user in ("edge", "loader"):
        lines = re.findall(rf"^ACL SETUSER {user} (.*)$", page, re.MULTILINE)
        rights = {right for line in lines for right in line.split()} - {"on", ">PASSWORD"}
        string = resources[f"aws_elasticache_user.{user}"]["access_string"].strip('"')
        assert set(string.split()) - {"on", "-@all", "resetchannels"} == rights
    assert resources["aws_elasticache_user.default"]["access_string"].strip('"') == "off -@all"


@pytest.mark.skipif(shutil.which("terraform") is None, reason="there is no terraform here")
def test_terraform_files_are_formatted() -> None:
    command = ["terraform", "fmt", "-recursive", "-check", "-diff", ROOT / "deploy" / "terraform"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["region/region.tf", "storage/storage_replication.tf", "example/main.tf"])
def test_unapplied_terraform_module_states_so(file: str) -> None:
    head = (ROOT / "deploy" / "terraform" / file).read_text().partition("\n\n")[0]
    assert "It was never applied" in head
