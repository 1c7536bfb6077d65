"""The setting `fallback` of a route and its problems."""

import pytest

from edgeproxy.config.edge.fallback import Fallback

TEXT = (
    "region: test\nupstreams: {api: {endpoints: [http://h]}, other: {endpoints: [http://o]}}\n"
    "routes: [{path: /v1/*, upstream: api, fallback: %s}]\n"
)


@pytest.mark.parametrize("text", ["other", "{upstream: other, statuses: [429, 5xx], after: 1s, buffer: 1MiB}"])
def test_a_fallback_is_another_upstream(problems, text):
    assert problems(TEXT % text) == []


def test_a_class_of_statuses_is_all_of_them():
    assert Fallback.model_validate({"upstream": "other"}).list_statuses() == {429, *range(500, 600)}


@pytest.mark.parametrize(
    ("text", "path", "what"),
    [
        (TEXT % "othr", "", "there is no upstream othr, did you mean other"),
        (TEXT % "{upstream: otr}", ".upstream", "there is no upstream otr"),
        (TEXT % "api", "", "leads to api, which has failed then"),
        (TEXT % "{upstream: api}", "", "leads to api, which has failed then"),
        (TEXT % "{upstream: other, statuses: [200]}", ".statuses.0", "is not the status of an error"),
        (TEXT % "{upstream: other, statuses: [6xx]}", ".statuses.0", "is not the status of an error"),
        (TEXT % "{upstream: other, statuses: []}", ".statuses", "is empty"),
        (TEXT % "{upstream: other, buffer: 2GiB}", ".buffer", "is more than limits.buffered"),
        (TEXT % "{upstream: other, rewrite: {strip: /v2}}", ".rewrite.strip", "/v1/* does not begin with it"),
        (
            TEXT % "{upstream: other, rewrite: {response: {remove: [Server]}}}",
            ".rewrite.response",
            "cannot be said of one upstream alone",
        ),
        (TEXT.replace("upstream: api", "respond: {}") % "other", "", "is for where an upstream fails"),
    ],
)
def test_problem_of_a_fallback_names_its_field(problems, text, path, what):
    (problem,) = problems(text)
    assert f"routes.0.fallback{path}: " in problem
    assert what in problem
