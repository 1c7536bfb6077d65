"""kill -9 of the collector in the middle of changes: each is there whole with its audit entry, or not at all."""

import itertools
import random
from collections import Counter
from http.client import HTTPException
from threading import Event, Thread

from tests.support.collector import ADMIN, Collector, checked
from tests.support.collector_fixtures import StartCollector
from tests.support.waiting import until

ROUNDS = 2


def change(collector: Collector, stop: Event, numbers: "itertools.count[int]", done: list[str]) -> None:
    """Make customers with a key each until the collector is gone; `done` has what was acknowledged."""
    try:
        while not stop.is_set():
            name = f"k{next(numbers)}"
            if collector.send("POST", "/v1/customers", {"name": name, "tier": "basic"}).status == 201:
                done.append(name)
            if collector.send("POST", f"/v1/customers/{name}/keys", {}).status == 201:
                done.append(f"{name}/key")
    except (OSError, HTTPException):
        pass  # Killed, as it was to be.


def test_each_change_is_there_with_its_entry_or_not_at_all(start_collector: StartCollector) -> None:
    collector, numbers, done = start_collector(), itertools.count(), []  # type: ignore[var-annotated]
    chance = random.Random(7)
    for _ in range(ROUNDS):
        stop, goal = Event(), len(done) + chance.randrange(5, 25)
        threads = [Thread(target=change, args=(collector, stop, numbers, done)) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda goal=goal: len(done) >= goal, "some changes are made")  # type: ignore[misc]
        collector.kill()
        stop.set()
        for thread in threads:
            thread.join()
        collector.start()
    made, keys = [], []
    cursor: dict[str, str] = {}
    while True:
        page = collector.get("/v1/customers", limit="1000", **cursor).json()
        made += [one["name"] for one in page["customers"]]
        if "next" not in page:
            break
        cursor = {"cursor": page["next"]}
    for name in made:
        keys += [f"{name}/{one['id']}" for one in collector.get(f"/v1/customers/{name}/keys").json()["keys"]]
    record: Counter[tuple[str, str]] = Counter()
    after = "0"
    while True:
        page = collector.get("/v1/audit", token=ADMIN, after=after, limit="1000").json()
        record.update((one["action"], one["target"]) for one in page["entries"])
        if "next" not in page:
            break
        after = str(page["next"])
    created = {
        (action, target): 1 for action, some in (("customer.create", made), ("key.create", keys)) for target in some
    }
    assert {what: count for what, count in record.items() if what[0] != "denied"} == created
    acknowledged = {name for name in done if "/" not in name}
    assert acknowledged <= set(made)
    assert {f"{key.partition('/')[0]}/key" for key in keys} >= {one for one in done if "/" in one}
    code, said = checked(collector)
    assert (code, f"{len(created)} audit records" in said) == (0, True), said
