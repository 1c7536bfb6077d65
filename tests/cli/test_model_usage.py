"""`edgeproxy usage explain` explains the counts of a recorded answer; `usage dialects` prints the table."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.edge.body_usage.dialect_rows import ROWS
from tests.edge.body_usage.test_dialects import ANSWERS, get_body, name


def explain(file: Path, *options: str) -> Result:
    return CliRunner().invoke(cli.app, ["usage", "explain", str(file), *options])


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer["type"] != "websocket"], ids=name)
def test_recorded_answer_is_explained_with_its_counts_and_rule(answer: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "answer"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {answer['type']}\r\n\r\n".encode()
    file.write_bytes(head + get_body(answer))
    request = f"{answer['method']} {answer['path']}?a=1"
    result = explain(file, "--format", answer["format"], "--request", request)
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert {f"{count}: {number}" for count, number in answer["counts"].items() if number} <= {*lines}
    assert f"model: {answer['model'] or 'not stated'}" in lines
    assert ("rule" in answer) == any(line.endswith(f"the rule is: {answer.get('rule')}") for line in lines)


@pytest.mark.parametrize(
    ("body", "options", "exit_code", "printed"),
    [
        ({"usage": {"prompt_tokens": "12", "completion_tokens": 3}}, (), 0, '"12" is no whole number'),
        ({"error": {"message": "no"}}, (), 1, "an error and nothing else"),
        ({"id": "r", "status": "queued", "usage": {"input_tokens": 1}}, (), 0, "counts nothing yet"),
        ({"usage": {"input": 5}}, (), 1, "no usage is stated"),
        (
            {
                "response": {
                    "inlinedResponses": {"inlinedResponses": [{"response": {"usageMetadata": {"promptTokenCount": 7}}}]}
                }
            },
            ("--format", "gemini", "--request", "GET /v1beta/batches/b"),
            0,
            "input_tokens: 7",
        ),
        ({}, ("--format", "gpt"), 2, "'gpt' is none of"),
        ({}, ("--request", "GET"), 2, "no method and path"),
    ],
)
def test_answers_that_count_otherwise_say_why(
    body: object, options: tuple[str, ...], exit_code: int, printed: str, tmp_path: Path
) -> None:
    file = tmp_path / "answer"
    file.write_text(json.dumps(body))
    result = explain(file, *options)
    assert (result.exit_code, printed in result.output) == (exit_code, True), result.output


def test_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert explain(tmp_path / "nothing").exit_code == 2


def test_table_has_a_line_for_each_row_of_a_format() -> None:
    result = CliRunner().invoke(cli.app, ["usage", "dialects", "--format", "cohere"])
    assert len(result.stdout.splitlines()) == sum(row.format == "cohere" for row in ROWS)
