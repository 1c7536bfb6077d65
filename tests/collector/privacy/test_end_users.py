"""End users are hashed with a secret of their customer, counted once, and erased one by one."""

from collections.abc import Sequence
from typing import Any

from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.accounts.end_user_pseudonyms import is_pseudonym
from edgeproxy.collector.accounts.end_users import HASHED
from loadtest.testbed.collector import ADMIN, SERVICE, Collector, verified
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector, only_sqlite

ADA, BOB = "ada-planted", "bob-planted"
QUOTED = 'eve "the \\ cat"-planted'
METERS = {
    "people": {"count": "events", "aggregate": "unique"},
    "desks": {"count": "holdings"},
    "tokens": {"count": "events", "dimensions": {"model": 50, "user": {"values": 50, "person": True}}},
}
HASHING = {"hash_end_users": True}


def report(collector: Collector, *reported: tuple[str, str], customer: str = "acme") -> tuple[int, int]:
    """Report pairs of event id and person. Return the numbers of accepted and duplicate events."""
    sent = [
        {"id": id_, "source": "app", "customer": customer, "meter": "people", "value": who} for id_, who in reported
    ]
    taken = collector.send("POST", "/v1/events", sent, token=SERVICE).json()
    assert taken["rejected"] == []
    return taken["accepted"], taken["duplicates"]


def count(collector: Collector, customer: str = "acme") -> int:
    """Return the number of different people that a customer reported."""
    rows = collector.usage(customer=customer, meter="people")["rows"]
    return sum(row["value"] for row in rows)


def hold(collector: Collector, method: str, item: str) -> Any:
    """Take a desk (PUT) or release it (DELETE)."""
    return collector.send(method, f"/v1/customers/acme/holdings/desks/{item}", token=SERVICE)


def list_stored(collector: Collector) -> Sequence[str]:
    """Return the stored items of events and places."""
    both = "SELECT item FROM events WHERE item IS NOT NULL UNION ALL SELECT item FROM holdings"
    return [item for (item,) in collector.execute(both)]


def erase(collector: Collector, customer: str, end_user: str) -> str:
    """Erase an end user by the command, and return its output."""
    words = ["privacy", "erase", "-c", str(collector.file), customer, "--end-user", end_user, "--yes"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    return done.output


def holds_nothing_of(collector: Collector, text: str) -> bool:
    """Return whether no file of the database contains a text."""
    return not any(text.encode() in file.read_bytes() for file in collector.database.parent.glob("ledger.db*"))


@only_sqlite("database")
def test_people_count_once_after_hashing_is_enabled_and_are_erased_singly(start_collector: StartCollector) -> None:
    collector = start_collector(meters=METERS)
    assert report(collector, ("1", ADA), ("2", BOB)) == (2, 0)
    assert hold(collector, "PUT", ADA).status == 201
    assert hold(collector, "PUT", BOB).status == 201
    assert set(list_stored(collector)) == {ADA, BOB}
    collector.end()

    collector.settings["privacy"] = HASHING
    collector.write()
    collector.start()
    until(lambda: all(item.startswith(HASHED) for item in list_stored(collector)), "each plain value is hashed")
    assert report(collector, ("1", ADA), ("2", BOB), ("3", ADA)) == (1, 2), "an event is the same as before"
    assert count(collector) == 2
    assert report(collector, ("4", ADA), customer="bolt") == (1, 0)
    assert len(set(list_stored(collector))) == 3, "the stored end users of two customers differ"
    again = hold(collector, "PUT", ADA)
    assert (again.status, again.json()["item"], again.json()["used"]) == (200, ADA, 2)
    assert hold(collector, "DELETE", BOB).status == 204
    held = collector.get("/v1/customers/acme/holdings/desks", token=SERVICE).json()
    assert (held["used"], [holding["item"].startswith(HASHED) for holding in held["holdings"]]) == (1, [True])
    rejected = {"id": "9", "source": "app", "customer": "acme", "meter": "nobody", "value": QUOTED}
    assert collector.send("POST", "/v1/events", rejected, token=SERVICE).json()["accepted"] == 0
    collector.end()
    assert holds_nothing_of(collector, ADA)
    assert holds_nothing_of(collector, BOB)

    assert erase(collector, "acme", ADA) == "erased: 2 events, 1 holdings\n"
    assert erase(collector, "acme", ADA) == "nothing of acme names this end user\n"
    assert erase(collector, "acme", QUOTED) == "erased: 1 dead_letters\n"
    collector.start()
    assert (count(collector), count(collector, "bolt")) == (2, 1), "counted usage remains"
    assert report(collector, ("1", ADA)) == (0, 1)
    assert report(collector, ("5", ADA)) == (1, 0)
    assert count(collector) == 3, "a returning end user counts as new"
    collector.end()
    assert verified(collector)[0] == 0


@only_sqlite("database")
def test_replayed_dead_letter_keeps_its_person(start_collector: StartCollector) -> None:
    collector = start_collector(meters=METERS, privacy=HASHING)
    assert report(collector, ("1", ADA), ("2", BOB)) == (2, 0)

    def reject(who: str) -> dict[str, Any]:
        """Send a different person with a known event id, and return the dead letter."""
        event = {"id": "1", "source": "app", "customer": "acme", "meter": "people", "value": who}
        assert len(collector.send("POST", "/v1/events", event, token=SERVICE).json()["rejected"]) == 1
        (letter,) = collector.get("/v1/dead-letters", token=ADMIN).json()["dead_letters"]
        assert letter["event"]["value"].startswith(HASHED)
        return dict(letter)

    letter = reject(BOB)
    again = {**letter["event"], "id": "3"}
    assert collector.send("POST", f"/v1/dead-letters/{letter['id']}/replay", again).json()["accepted"] == 1
    assert count(collector) == 2, "no end user changes its identity"
    assert report(collector, ("4", again["value"])) == (1, 0)
    assert again["value"] in list_stored(collector)
    assert count(collector) == 3, "a name that a service sends is a name, whatever it looks like"
    reject(BOB)
    collector.end()
    assert erase(collector, "acme", BOB) == "erased: 1 dead_letters, 2 events\n"
    assert holds_nothing_of(collector, again["value"])


def use(collector: Collector, id_: str, **dimensions: str) -> tuple[int, int]:
    """Report tokens with dimensions. Return the numbers of accepted and duplicate events."""
    event = {"id": id_, "source": "app", "customer": "acme", "meter": "tokens", "value": 5, "dimensions": dimensions}
    event["request_id"] = f"of-{id_}"
    taken = collector.send("POST", "/v1/events", event, token=SERVICE).json()
    assert taken["rejected"] == []
    return taken["accepted"], taken["duplicates"]


def list_users(collector: Collector, **where: str) -> dict[str, int]:
    """Return the tokens of each person, by the value that `/v1/usage` returns."""
    rows = collector.usage(customer="acme", meter="tokens", by="user", **where)["rows"]
    return {row.get("user", ""): row["value"] for row in rows}


@only_sqlite("database")
def test_erasure_detaches_the_pseudonym_of_a_person_in_a_dimension(
    start_collector: StartCollector,
) -> None:
    collector = start_collector(meters=METERS)
    assert use(collector, "1", user=ADA, model="m1") == (1, 0)
    assert use(collector, "2", user=BOB) == (1, 0)
    assert use(collector, "3", user=ADA) == (1, 0)
    assert use(collector, "3", user=ADA) == (0, 1)
    assert use(collector, "4", user="~other", model="m1") == (1, 0)
    users = list_users(collector)
    assert sorted(users.values()) == [5, 5, 10]
    assert [is_pseudonym(name) for name in sorted(users)] == [True, True, False]
    (ada,) = (name for name, tokens in users.items() if tokens == 10)
    assert list_users(collector, where=f"user:{ADA}") == list_users(collector, where=f"user:{ada}") == {ada: 10}
    assert use(collector, "5", user=ada) == (1, 0), "a service may send back what it read here"
    page = collector.usage(customer="acme", meter="tokens", by="user,model", where=f"user:{ADA}", limit="1")
    rest = collector.usage(
        customer="acme", meter="tokens", by="user,model", where=f"user:{ADA}", limit="1", cursor=page["next"]
    )
    assert [row["value"] for row in (*page["rows"], *rest["rows"])] == [10, 5]
    collector.end()
    assert holds_nothing_of(collector, "planted")

    assert erase(collector, "acme", ADA) == "erased: 1 end_users, 3 events\n"
    assert erase(collector, "acme", ADA) == "nothing of acme names this end user\n"
    collector.start()
    assert list_users(collector) == {**users, ada: 15}, "counted usage remains"
    assert list_users(collector, where=f"user:{ADA}") == {}
    assert use(collector, "3", user=ADA) == (0, 1), "an event is the same as before"
    assert use(collector, "6", user=ADA) == (1, 0)
    assert len(list_users(collector)) == 4, "a returning end user counts as new"
    rows = collector.execute("SELECT request_id FROM events WHERE request_id IS NOT NULL ORDER BY 1")
    assert rows == [("of-2",), ("of-4",), ("of-6",)]
    collector.end()
    assert verified(collector)[0] == 0
