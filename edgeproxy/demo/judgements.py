"""Judgements of a tour line's output. Each returns the error, or None."""

import json
import re
from collections.abc import Callable, Collection

from edgeproxy.base.json_values import JsonDocument

Judgement = Callable[[str], str | None]

STAMPS = (
    "X-Request-Id", "Traceparent", "X-Edge-Region", "X-Customer-Id", "X-Customer-Tier",
    "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Via",
)  # fmt: skip


def field(name: str, head: str) -> str | None:
    """Return the value of a field in the head of a response, or None."""
    match = re.search(rf"^{name}: *(.*)$", head, re.MULTILINE | re.IGNORECASE)
    return match[1] if match else None


def status(expected: int, *fields: str) -> Judgement:
    """Judge `curl -i`: a response with this status that has these fields."""

    def judge(output: str) -> str | None:
        head = output.replace("\r", "").partition("\n\n")[0]
        if not head.startswith(f"HTTP/1.1 {expected} "):
            return f"not a {expected}"
        missing = [name for name in fields if field(name, head) is None]
        return f"the answer has no {', '.join(missing)}" if missing else None

    return judge


def stamped(output: str) -> str | None:
    """A 200 whose body, httpbin's account of the request that it received, has every stamp and no key."""
    if fault := status(200, "RateLimit", "RateLimit-Policy", "X-Request-Id", "X-Edge-Region")(output):
        return fault
    received = json.loads(output[output.index("{") :])["headers"]
    if missing := [name for name in STAMPS if name not in received]:
        return f"the upstream received no {', '.join(missing)}"
    return "the upstream received the key" if "X-Api-Key" in received else None


def counts(limit: Collection[int], sent: int) -> Judgement:
    """Judge `uniq -c` of statuses: as many passed as the limit allows, and the others were refused."""

    def judge(output: str) -> str | None:
        numbers = {status: int(count) for count, status in (line.split() for line in output.splitlines())}
        passed = numbers.pop("200", 0)
        if passed not in limit:
            return f"{passed} of {sent} passed, not {min(limit)} to {max(limit)}"
        return None if numbers == {"429": sent - passed} else f"besides {passed} × 200 there were {numbers}"

    return judge


def refused(output: str) -> str | None:
    """Judge a 429 that says when to retry, within the window."""
    if fault := status(429, "Retry-After", "RateLimit", "RateLimit-Policy")(output):
        return fault
    seconds = int(field("Retry-After", output) or 0)
    return None if 1 <= seconds <= 70 else f"Retry-After is {seconds} s for a window of a minute"


def statuses(*expected: int) -> Judgement:
    """Judge lines of statuses: just these."""

    def judge(output: str) -> str | None:
        return None if output.split() == [str(each) for each in expected] else f"not {expected}"

    return judge


def policies(limit: int, regions: int) -> Judgement:
    """Judge fields `RateLimit-Policy`: one of each region, with this limit a minute."""

    def judge(output: str) -> str | None:
        limits = re.findall(r"^RateLimit-Policy:.*?;q=(\d+);w=60", output, re.MULTILINE | re.IGNORECASE)
        return None if limits == [str(limit)] * regions else f"limits a minute of {limits}"

    return judge


def json_has(**expected: object) -> Judgement:
    """Judge a JSON object that has these members."""

    def judge(output: str) -> str | None:
        response = json.loads(output)
        wrong = {name: response.get(name) for name, value in expected.items() if response.get(name) != value}
        return f"{wrong}" if wrong else None

    return judge


def priced(*expected: tuple[str, int]) -> Judgement:
    """Judge an invoice: its lines by model, in cents."""

    def judge(output: str) -> str | None:
        lines: list[dict[str, JsonDocument]] = json.loads(output)["lines"]
        models = [(str(line.get("value") or ""), line["amount"]) for line in lines if line["meter"] == "llm_tokens"]
        charged = [(model, amount) for model, amount in models if amount]
        return None if charged == list(expected) else f"the lines of llm_tokens are {models}"

    return judge


def billed(state: str, *expected: tuple[str, int]) -> Judgement:
    """Judge an invoice: its state, and its lines by model, in cents."""

    def judge(output: str) -> str | None:
        return json_has(state=state)(output) or priced(*expected)(output)

    return judge


def invoices(*states: str) -> Judgement:
    """Judge a list of invoices: the newest are in these states."""

    def judge(output: str) -> str | None:
        rows = json.loads(output)["invoices"]
        newest = tuple(row["state"] for row in rows[: len(states)])
        return None if newest == states else f"the states are {newest}"

    return judge


def mailed(*words: str) -> Judgement:
    """Judge the mailbox: one mail has all of these words."""

    def judge(output: str) -> str | None:
        mails = [f"{mail['recipients']} {mail['subject']} {mail['text']}" for mail in json.loads(output)]
        return None if any(all(word in mail for word in words) for mail in mails) else f"{len(mails)} mails, none of it"

    return judge


def spent(output: str) -> str | None:
    """Statuses of requests that credits pay for until they are spent."""
    return None if re.fullmatch(r"(200\s)+(402\s)+", output) else "not 200s and then 402s"


def shipped(customer: str, regions: Collection[str]) -> Judgement:
    """Judge the ledger's rows by region: the requests of a customer, from each of these."""

    def judge(output: str) -> str | None:
        seen = {row["region"] for row in json.loads(output)["rows"] if row["value"]}
        return None if seen == set(regions) else f"the ledger has requests of {customer} in {sorted(seen)}"

    return judge


def scraped(regions: Collection[str]) -> Judgement:
    """Judge an answer of Prometheus: a sample for each region."""

    def judge(output: str) -> str | None:
        seen = {row["metric"].get("region") for row in json.loads(output)["data"]["result"]}
        return None if seen == set(regions) else f"Prometheus has samples of {sorted(map(str, seen))}"

    return judge


def passed(output: str) -> str | None:
    """A verdict of the load test."""
    verdict = re.search(r"^verdict: (\w+)", output, re.MULTILINE)
    return None if verdict and verdict[1] == "pass" else f"the verdict is {verdict and verdict[1]}"
