"""The commands `edgeproxy usage`: the counts of a recorded answer, and why; the table of dialects."""

import sys
from pathlib import Path
from typing import Annotated, Final, get_args

import typer

from edgeproxy.cli.outcome import fail
from edgeproxy.config.edge.response_usage import FormatName
from edgeproxy.edge.body_usage.body_kind import BodyKind, describe_body
from edgeproxy.edge.body_usage.content_coding import create_decoder
from edgeproxy.edge.body_usage.dialect_rows import ROWS
from edgeproxy.edge.body_usage.dialects import NUMBERS, STEPS
from edgeproxy.edge.body_usage.format_paths import list_paths
from edgeproxy.edge.body_usage.formats import get_usage_format
from edgeproxy.edge.body_usage.json_fields import Value
from edgeproxy.edge.body_usage.operations import (
    Work,
    find_results,
    find_work,
    is_failure,
    is_pending,
)
from edgeproxy.edge.body_usage.statement import COUNTS, StatedCounts

BLANK_LINES: Final = (b"\r\n\r\n", b"\n\n")
WORKS: Final = {
    Work.GENERATES: "a model works for it: a missing number is estimated",
    Work.STORED: "it returns a stored answer: its usage counts once, by its id",
    Work.DEFERRED: "it returns what its own request did not wait for: its usage counts once, by its id",
    Work.NONE: "no model works for it: nothing is estimated",
}


def explain(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A recorded answer, with or without its head; - is the standard input."),
    ],
    format_name: Annotated[
        str, typer.Option("--format", metavar="NAME", help="The response_usage of its route.")
    ] = "openai",
    request: Annotated[
        str, typer.Option("--request", help="Method and path of its request.")
    ] = "POST /v1/chat/completions",
) -> None:
    """Print the counted usage of a recorded answer, and the reason. Exit with 1 if it states no usage."""
    if format_name not in get_args(FormatName):
        fail(f"--format: {format_name!r} is none of {', '.join(get_args(FormatName))}", 2)
    method, _, path = request.partition(" ")
    if not path.startswith("/"):
        fail(f"--request: {request!r} is no method and path, such as 'POST /v1/chat/completions'", 2)
    head, body = split_head(read_recorded(file))
    kind, coding = describe_body(head)
    usage_format = get_usage_format(format_name)  # type: ignore[arg-type]  # It is one of them.
    decoder = create_decoder(coding)
    texts = [body] if decoder is None else list(decoder.feed(body))
    operation = method.encode(), path.partition("?")[0].encode()
    lines: list[dict[str, Value]] = []
    on_line = lines.append if find_results(*operation) is not None else None
    reader = usage_format.create_reader(kind if head else BodyKind.TEXT, on_line)
    for text in texts:
        reader.feed(text)
    reader.finish()
    lines = lines or usage_format.read_results(reader.values)
    work, has_output = find_work(*operation)
    print(f"{request}: {WORKS[work]}")
    for values in lines or [dict(reader.values)]:
        counts = usage_format.compute_counts(values, has_output=has_output)
        print_counts(format_name, counts, has_content=reader.has_content)
    if not any(usage_format.compute_counts(values).has_numbers for values in lines or [reader.values]):
        fail("no usage is stated in a way that this format knows", 1)


def read_recorded(file: str) -> bytes:
    """Return the bytes of a file, or of the standard input for `-`. Exit with 2 if they cannot be read."""
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", 2)


def split_head(recorded: bytes) -> tuple[bytes, bytes]:
    """Return the head of a recorded answer as lines with CRLF, or empty without a head, and its body."""
    if not recorded.startswith(b"HTTP/"):
        return b"", recorded
    blank = min(BLANK_LINES, key=lambda blank_line: recorded.find(blank_line) % (len(recorded) + 1))
    head, _, body = recorded.partition(blank)
    return b"\r\n".join(head.splitlines()) + b"\r\n", body


def print_counts(format_name: str, counts: StatedCounts, *, has_content: bool) -> None:
    """Print the counts of one answer, or of one line of results, and the members that state them."""
    if is_failure(counts, has_content=has_content):
        print("  it is an error and nothing else: it counts nothing")
    if is_pending(counts):
        print("  it is not finished: it counts nothing yet")
    print(f"  model: {counts.model or 'not stated'}")
    facts = {fact: path for path, (fact, _) in reversed([*list_paths(format_name).items()])}  # type: ignore[arg-type]
    for fact, value in counts.values.items():
        if fact in NUMBERS:
            stated = value.decode(errors="replace") if isinstance(value, bytes) else value
            print(f"  stated: {fact} {stated} (such as {facts.get(fact, fact)})")
    if STEPS in counts.values:
        print("  stated: steps, of which those are added that the other numbers do not have")
    for count in COUNTS:
        unreadable, number = counts.find_unreadable(count), counts.find_number(count)
        if unreadable is not None:
            print(f"  {count}: not stated, as {unreadable.decode(errors='replace')} is no whole number")
        elif number is not None:
            print(f"  {count}: {number}")
    if counts.rule:
        print(f"  parts and total disagree; the rule is: {counts.rule}")


def dialects(
    format_name: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="Only rows of this format.")
    ] = None,
) -> None:
    """Print the table of dialects: providers, operations, charged numbers, and sources."""
    for row in ROWS:
        if format_name in (None, row.format):
            print(f"{row.format:10} {row.provider}: {row.operation}; {row.billed} ({row.source})")
