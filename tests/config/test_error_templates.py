"""Templates of error bodies: their files, and places that would treat a value as more than text."""

import pytest

from edgeproxy.config.error_templates import TEMPLATE_BYTES_MAX, VARIABLES, find_template_fault
from edgeproxy.edge.http1.error_bodies import TemplateErrors
from edgeproxy.edge.proxy.exchange.error_bodies import create_error_bodies, find_errors
from tests.config.conftest import LEAST

UPSTREAM = LEAST.splitlines()[0] + "\n"
ROUTE = UPSTREAM + "routes: [{path: /a, upstream: api, errors: %s}]\n"


def test_the_text_of_a_file_is_part_of_the_configuration(loaded):
    text = ROUTE % "{template: page.html}"
    settings = loaded(text, files={"page.html": "<p>{{detail}}</p>"}, alone=True)
    errors = settings.routes[0].errors
    assert (errors.text, errors.media_type) == ("<p>{{detail}}</p>", "text/html")
    other = loaded(text, files={"page.html": "<b>{{detail}}</b>"}, alone=True)
    assert other.sha256 != settings.sha256, "a reload takes over what has changed in the file alone"


@pytest.mark.parametrize(
    ("written", "media_type"),
    [
        ("{template: a.json}", "application/json"),
        ("{template: a.TXT}", "text/plain"),
        ("{template: a.xml}", "application/xml"),
        ("{template: page}", "text/html"),
        ("{template: a.json, type: Application/Vnd.Own+JSON}", "application/vnd.own+json"),
        ("{text: '{}', type: application/json}", "application/json"),
    ],
)
def test_the_type_is_that_of_the_file_or_the_one_that_is_written(loaded, written, media_type):
    files = dict.fromkeys(("a.json", "a.TXT", "a.xml", "page"), "{}")
    assert loaded(ROUTE % written, files=files, alone=True).routes[0].errors.media_type == media_type


def test_error_format_follows_the_route_then_its_usage_then_the_default(loaded):
    text = UPSTREAM + (
        "errors: {text: <p>}\nmeters: {output: {count: output_tokens}}\nroutes:\n"
        "- {path: /a, upstream: api, errors: openai, response_usage: anthropic}\n"
        "- {path: /b, upstream: api, response_usage: anthropic}\n"
        "- {path: /c, upstream: api, response_usage: {format: {like: openai}}}\n"
        "- {path: /d, upstream: api, response_usage: gemini}\n"
        "- {path: /e, upstream: api, errors: problem, response_usage: openai}\n"
    )
    settings = loaded(text, alone=True)
    found = [find_errors(route) for route in settings.routes]
    assert [each and each.format for each in found] == ["openai", "anthropic", "openai", None, "problem"]
    assert isinstance(create_error_bodies(settings.errors), TemplateErrors)
    assert create_error_bodies(None) is create_error_bodies(found[4]) is None


@pytest.mark.parametrize(
    ("errors", "problem"),
    [
        ("{template: away.html}", "template: away.html cannot be read: No such file or directory, name a file that can "
         "be read"),
        ("{template: odd.html}", "template: odd.html is no UTF-8, save it as UTF-8"),
        ("{template: ''}", "template: '' is not a path, a file such as certs/edge.pem"),
        ("{type: text/plain}", "type: is for a template, write template: FILE, or leave type out"),
        ("{format: openai, text: x}", "format: is nothing for a template, leave one of them out"),
        ("{text: '{{secret}}'}", "text: has the unknown variable {{secret}}, there are {{status}}, {{title}}, "
         "{{code}}, {{detail}}, {{request_id}}"),
        ("{template: bad.json}", "template: is a template that is no JSON: Expecting value: line 1 column 7 (char 6), "
         'write texts in quotes: {"error": "{{detail}}"}'),
    ],
)  # fmt: skip
def test_invalid_error_template_is_reported(problems, errors, problem):
    files = {"odd.html": b"\xff", "bad.json": '{"a": x}'}
    (found,) = problems(ROUTE % errors, files=files)
    assert found.endswith(problem), found


@pytest.mark.parametrize(
    ("text", "media_type", "what"),
    [
        ("x" * (TEMPLATE_BYTES_MAX + 1), "text/plain", "is a template of more than 64 KiB"),
        ('{"a": {{detail}}}', "application/json", "has {{detail}} outside of quotes"),
        ('{"a": "\\"", "b": {{ code }}}', "application/json", "has {{ code }} outside of quotes"),
        ("<script>let a = '{{detail}}'</script>", "text/html", "has a variable in <script>"),
        ("<style>{{detail}}</style>", "text/html", "has a variable in <style>"),
        ("<p title={{detail}}>", "text/html", "has a variable in <p>, outside of quotes"),
        ("<p {{detail}}>", "text/html", "has a variable in <p>, outside of quotes"),
        ("<p onclick=\"f('{{detail}}')\">", "text/html", "has a variable in the attribute onclick"),
        ('<a href="{{detail}}">', "text/html", "has a variable in the attribute href"),
    ],
)
def test_places_where_a_value_would_not_be_text_are_refused(text, media_type, what):
    fault = find_template_fault(text, media_type)
    assert fault is not None
    assert fault[0] == what


@pytest.mark.parametrize(
    ("text", "media_type"),
    [
        ("".join(f"<p class='a b' title=\"{{{{{name}}}}}\">{{{{ {name} }}}}</p>" for name in VARIABLES), "text/html"),
        ("<script>let braces = {a: {b: 1}}</script><style>p { color: red }</style>{{detail}}", "text/html"),
        ('{"error": {"code": {{status}}, "say": "\\"{{detail}}\\"", "id": "{{request_id}}"}}', "application/json"),
        ("{{detail}} <script>{{detail}}</script>", "text/plain"),
    ],
)
def test_ordinary_templates_are_taken(text, media_type):
    assert find_template_fault(text, media_type) is None


def test_errors_of_other_shapes_are_left_to_the_model(problems):
    assert len(problems(ROUTE % "[x]")) == 1
    assert len(problems(UPSTREAM + "routes: 5\nerrors: problem\n")) == 1
    assert len(problems(ROUTE % "xml")) == 1
