"""Latencies measured by clients: medians of votes, in bounded memory, for any forged votes."""

import pytest

from edgeproxy.regions.choice import choose_region
from edgeproxy.regions.latencies import (
    COUNTRY_NETWORKS_MAX,
    VOTE_SECONDS,
    VOTERS_MAX,
    VOTERS_MIN,
    Latencies,
    Report,
)

HERE, THERE = "192.0.2.0/24", "198.51.100.0/24"
NOW = 1000.0


def heard(network: str = HERE, votes: int = VOTERS_MIN, country: str | None = None, **measured: float) -> Latencies:
    """Latencies after so many voters of a network have measured that."""
    return more(Latencies(("eu", "us")), network, votes, country, **measured)


def more(known: Latencies, network: str, votes: int, country: str | None = None, **measured: float) -> Latencies:
    for voter in range(votes):
        known.add(Report(network, f"voter-{voter}", measured, country), NOW)
    return known


def test_a_network_has_the_medians_of_its_voters_and_each_votes_once() -> None:
    known = heard(votes=2, eu=10.0, us=90.0)
    assert known.compute_network_medians(HERE, NOW) == {}, "two are too few"
    for ms in (20.0, 30.0, 70.0):
        known.add(Report(HERE, "voter-9", {"eu": ms}), NOW)
    assert known.compute_network_medians(HERE, NOW) == {"eu": 10.0}, (
        "the last vote of three counts, and of us there are two"
    )
    assert known.compute_network_medians(THERE, NOW) == {}


def test_fewer_than_half_cannot_move_a_choice_however_often_they_report() -> None:
    known = heard(votes=5, eu=10.0, us=90.0)
    for _ in range(1000):
        for liar in range(4):
            known.add(Report(HERE, f"liar-{liar}", {"eu": 9999.0, "us": 0.001}), NOW)
    assert choose_region(known, "us", NOW, network=HERE).region == "eu"


def test_forged_reports_of_one_network_do_not_affect_another() -> None:
    known = heard(votes=3, eu=10.0, us=90.0)
    more(known, THERE, VOTERS_MAX, eu=9000.0, us=1.0)
    assert known.compute_network_medians(HERE, NOW) == {"eu": 10.0, "us": 90.0}


def test_each_network_of_a_country_has_one_vote() -> None:
    known = Latencies(("eu", "us"))
    for number in range(3):
        more(known, f"192.0.{number}.0/24", 3, "DE", eu=10.0 + number, us=90.0)
    for _ in range(50):
        more(known, THERE, VOTERS_MAX, "DE", eu=9000.0, us=1.0)
    assert known.compute_country_medians("DE", NOW) == {"eu": 11.5, "us": 90.0}
    assert known.compute_country_medians("FR", NOW) == {}
    known.add(Report(THERE, "voter-0", {"eu": 1.0}, "FR"), NOW)
    assert known.compute_country_medians("DE", NOW) == {"eu": 11.0, "us": 90.0}, "a voter counts for its last country"


def test_two_networks_do_not_speak_for_a_country() -> None:
    known = more(heard(country="DE", eu=1.0, us=2.0), THERE, 3, "DE", eu=1.0, us=2.0)
    assert known.compute_country_medians("DE", NOW) == {}


@pytest.mark.parametrize("ms", [0.0, -1.0, 10_001.0, float("nan"), float("inf")])
def test_impossible_latency_report_is_ignored(ms: float) -> None:
    known = Latencies(("eu", "us"))
    assert not known.add(Report(HERE, "voter", {"eu": ms}), NOW)
    assert not known.add(Report(HERE, "voter", {"moon": 5.0}), NOW)
    assert len(known) == 0


def test_votes_are_forgotten_after_a_week() -> None:
    known = heard(eu=10.0, us=90.0)
    assert known.compute_network_medians(HERE, NOW + VOTE_SECONDS - 1)
    assert known.compute_network_medians(HERE, NOW + VOTE_SECONDS) == {}


def test_latency_table_stays_bounded_under_a_flood_of_reports() -> None:
    known = Latencies(("eu", "us"), networks_max=500)
    more(known, HERE, 3, "DE", eu=10.0, us=90.0)
    for number in range(3000):
        known.add(Report(f"net-{number}", "voter", {"eu": 1.0}, f"{number % 50}"), NOW)
        if number % 100 == 0:
            more(known, HERE, 3, "DE", eu=10.0, us=90.0)
    assert len(known) == 500
    assert known.compute_network_medians(HERE, NOW) == {"eu": 10.0, "us": 90.0}, "an active reporter stays in the table"
    assert sum(map(len, known._countries.values())) <= 500
    more(known, HERE, 10 * VOTERS_MAX, eu=5.0)
    assert len(known._networks[HERE].by_voter) == VOTERS_MAX
    speaking = Latencies(("eu", "us"))
    for number in range(2 * COUNTRY_NETWORKS_MAX):
        more(speaking, f"net-{number}", 1, "DE", eu=5.0)
    assert len(speaking._countries["DE"]) == COUNTRY_NETWORKS_MAX


def test_region_follows_preference_then_network_then_country_then_default() -> None:
    known = Latencies(("eu", "us", "ap"))
    for number in range(3):
        more(known, f"192.0.{number}.0/24", 3, "DE", eu=50.0, us=20.0, ap=90.0)
    more(known, THERE, 3, "DE", eu=10.0, us=90.0)
    known.add(Report("lonely", "voter", {"ap": 1.0}), NOW)

    def chosen(**about: object) -> tuple[str, str, tuple[str, ...]]:
        created = choose_region(known, "us", NOW, **about)  # type: ignore[arg-type]
        return created.region, created.because, created.order

    assert chosen(network=THERE, country="DE") == ("eu", "network", ("eu", "us", "ap"))
    assert chosen(network="lonely", country="DE") == ("us", "country", ("us", "eu", "ap"))
    assert chosen(network="lonely") == ("us", "default", ("us", "eu", "ap"))
    assert chosen(network=THERE, prefer="ap") == ("ap", "prefer", ("ap", "eu", "us"))
    assert chosen(network=THERE, allow={"us", "ap"}) == ("us", "default", ("us", "ap")), (
        "a single region allows no comparison"
    )
    assert chosen(network="192.0.1.0/24", allow={"eu", "ap"}) == ("eu", "network", ("eu", "ap"))
    assert chosen(network=THERE, allow={"moon"}) == ("moon", "default", ("moon",))
