"""The OpenAPI description of the owner's API: what `check` refuses of it, with what to do."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from edgeproxy.config.collector.customer_api import CustomerApi, InvalidDescriptionError, load_description

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nopenapi: 3.1.0\npaths: {/: *b}\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "neither JSON nor YAML"),
        ("[1]", "no OpenAPI 3 description"),
        ("swagger: '2.0'\npaths: {/: {}}", "no OpenAPI 3 description"),
        ("openapi: 3.1.0\npaths: {}", "has no paths"),
        (BOMB, "has aliases"),
        ("openapi: 3.1.0\nx: !!python/object/apply:os.system ['true']\npaths: {/: {}}", "neither JSON nor YAML"),
        (" " * (4 << 20) + "{}", "has more than"),
    ],
)
def test_a_file_that_is_no_description_is_refused(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "openapi.yaml"
    file.write_text(content)
    with pytest.raises(InvalidDescriptionError, match=why):
        load_description(file)
    with pytest.raises(ValidationError, match=why):
        CustomerApi.model_validate({"url": "https://api.example.com", "openapi": str(file)})


def test_a_description_in_yaml_is_read_as_one_in_json_is(tmp_path: Path) -> None:
    file = tmp_path / "openapi.yaml"
    file.write_text("openapi: 3.1.0\npaths:\n  /v1/ping:\n    get: {responses: {200: {description: Fine.}}}\n")
    assert load_description(file)["paths"] == {"/v1/ping": {"get": {"responses": {200: {"description": "Fine."}}}}}
    told = {"url": "https://api.example.com", "openapi": str(file), "example": "/v1/ping"}
    known = CustomerApi.model_validate(told)
    assert (known.openapi, known.example) == (file, "/v1/ping")
    with pytest.raises(InvalidDescriptionError, match="cannot be read"):
        load_description(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", ["v1/ping", "/v1/'; reboot", "/$(reboot)", "/a b", "/\N{SNOWMAN}"])
def test_an_example_that_a_shell_would_read_otherwise_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="is not a path"):
        CustomerApi.model_validate({"url": "https://api.example.com", "example": path})
