"""Explanations of pydantic's errors."""

import re
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from edgeproxy.config.edge.settings import EdgeFile
from edgeproxy.config.explain import EXAMPLES, explain_errors, list_fields
from edgeproxy.config.part import Part

QUOTA = ("meter", "per", "included", "cap", "timezone")


def test_fields_are_located_behind_every_kind_of_container():
    limit = {
        "name",
        "rate",
        "algorithm",
        "burst",
        "scope",
        "per",
        "of",
        "reserve",
        "reserve_max",
        "routes",
        "scopes",
        "mode",
        "cost_header",
        "sync",
    }
    assert list_fields(EdgeFile, ("tiers", "basic", "limits", 0)) == limit
    assert list_fields(EdgeFile, ("customers", "acme", "limits", 3)) == limit
    assert list_fields(EdgeFile, ("routes", 2, "limits", 0)) == limit
    assert list_fields(EdgeFile, ("tiers", "basic", "burst_credits")) == {"earn", "max"}
    assert list_fields(EdgeFile, ("customers", "acme", "burst_credits")) == {"earn", "max"}
    assert list_fields(EdgeFile, ("customers", "acme", "quotas", 0)) == {*QUOTA, "routes", "scopes"}
    assert list_fields(EdgeFile, ("customers", "acme", "regions")) == {"allow", "prefer"}
    assert list_fields(EdgeFile, ("flags", "new")) == {"percent", "tiers", "customers"}
    assert list_fields(EdgeFile, ("listen", 0)) == {"address", "tls", "authorize", "http2", "proxy_protocol"}
    assert list_fields(EdgeFile, ("upstreams", "api", "endpoints", 0)) == {"url", "path", "weight", "region"}
    assert list_fields(EdgeFile, ("listen", 0, "tls", "certificates", 0)) == {"cert", "key"}
    assert list_fields(EdgeFile, ("upstreams", "api", "eject")) == {"errors", "for"}
    assert list_fields(EdgeFile, ("access_log",)) == {"file", "sample", "mask_addresses"}
    assert list_fields(EdgeFile, ("upstreams", "api", "timeouts")) == {
        "connect",
        "response_head",
        "idle",
        "total",
        "tunnel",
    }
    assert "routes" in list_fields(EdgeFile, ())


@pytest.mark.parametrize(
    "path", [("region",), ("region", "x"), ("nowhere",), ("nowhere", 0, "x"), ("keys",), ("keys", 0, "scopes", 0)]
)
def test_list_fields_is_empty_for_a_path_without_fields(path):
    assert list_fields(EdgeFile, path) == set()


def test_fields_may_have_another_name_in_the_file():
    class Directory(BaseModel):
        source: Annotated[str, Field(alias="from")]

    assert list_fields(dict[str, Directory | None], ("x",)) == {"from"}


def test_errors_that_no_row_explains_are_reported_in_pydantics_words():
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[str, float]).validate_python({"a": "x"})
    (finding,) = explain_errors(caught.value, lambda _: set())
    assert finding.path == ("a",)
    assert finding.what.startswith("Input should be a valid number")
    assert finding.hint == "see `edgeproxy schema`"


def test_a_missing_field_is_reported_from_a_wrong_one():
    with pytest.raises(ValidationError) as caught:
        EdgeFile.model_validate(
            {"routes": [{"path": "x", "redirect": {}}], "upstreams": {"a": {"endpoints": ["http://a"]}}}
        )
    result: list[Any] = [(finding.path, finding.missing) for finding in explain_errors(caught.value, lambda _: set())]
    assert result == [(("routes", 0, "path"), False), (("routes", 0, "redirect", "to"), True)]


def list_parts(part):
    return [inner for child in part.__subclasses__() for inner in (child, *list_parts(child))]


def test_each_required_field_has_an_example():
    needed = {
        name.removesuffix("_")
        for part in list_parts(Part)
        if re.match(r"edgeproxy\.config\.(edge\.)?\w+$", part.__module__)
        for name, field in part.model_fields.items()
        if field.is_required()
    }
    # By what reads the files, by default, or by the collector alone.
    made = {"sha256", "name", "factor", "ends_at", "id"}
    assert needed - made <= set(EXAMPLES)
