"""Tickets, whose they are, and how fast reports may come."""

import ipaddress

import pytest

from edgeproxy.base.addresses import parse_ip
from edgeproxy.regions import ticket as tickets
from edgeproxy.regions.networks import find_client, get_network, get_voter
from edgeproxy.regions.pace import DEPTH, NETWORK_DEPTH, NETWORKS_MAX, PER_NETWORK_SECOND, Pace
from edgeproxy.regions.ticket import TICKET_SECONDS, InvalidTicketError, Tickets

HERE, THERE = "192.0.2.0/24", "198.51.100.0/24"
NOW = 1000.0


def test_a_ticket_is_good_once_in_its_network_for_a_while() -> None:
    ours = Tickets(b"secret")
    first, second = (ours.issue_ticket(HERE, nonce, NOW) for nonce in ("0" * 16, "1" * 16))
    ours.redeem_ticket(first, HERE, NOW + 1)
    with pytest.raises(InvalidTicketError, match="was used"):
        ours.redeem_ticket(first, HERE, NOW + 1)
    with pytest.raises(InvalidTicketError, match="another network's"):
        ours.redeem_ticket(second, THERE, NOW + 1)
    with pytest.raises(InvalidTicketError, match="too old"):
        ours.redeem_ticket(second, HERE, NOW + TICKET_SECONDS + 1)
    ours.redeem_ticket(second, HERE, NOW + TICKET_SECONDS)


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "..",
        "1120.0000000000000000.",
        "9" * 400 + ".0.0",
        "1120.0000000000000000.é",
        "١١٢٠.0.0",
        "-5.0.0",
        "a.b.c.d",
    ],
)
def test_forged_ticket_is_refused(forged: str) -> None:
    with pytest.raises(InvalidTicketError, match="none of ours"):
        Tickets(b"secret").redeem_ticket(forged, HERE, NOW)


def test_foreign_or_prolonged_ticket_is_refused() -> None:
    theirs = Tickets(b"other").issue_ticket(HERE, "0" * 16, NOW)
    with pytest.raises(InvalidTicketError, match="none of ours"):
        Tickets(b"secret").redeem_ticket(theirs, HERE, NOW)
    ours = Tickets(b"secret").issue_ticket(HERE, "0" * 16, NOW)
    longer = ours.replace(str(int(NOW) + TICKET_SECONDS), str(int(NOW) + 10 * TICKET_SECONDS))
    with pytest.raises(InvalidTicketError, match="none of ours"):
        Tickets(b"secret").redeem_ticket(longer, HERE, NOW)


def test_used_tickets_are_remembered_until_they_expire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tickets, "USED_MAX", 2)
    ours = Tickets(b"secret")
    issued = [ours.issue_ticket(HERE, f"{number:016x}", NOW) for number in range(3)]
    for ticket in issued[:2]:
        ours.redeem_ticket(ticket, HERE, NOW)
    with pytest.raises(InvalidTicketError, match="too many"):
        ours.redeem_ticket(issued[2], HERE, NOW)
    later = NOW + TICKET_SECONDS + 1
    ours.redeem_ticket(ours.issue_ticket(HERE, "f" * 16, later), HERE, later)


def test_a_network_that_floods_is_slowed_down_and_others_are_not() -> None:
    pace = Pace(NOW)
    assert sum(pace.admits(HERE, NOW) for _ in range(1000)) == NETWORK_DEPTH
    assert pace.admits(THERE, NOW)
    assert not pace.admits(HERE, NOW + 0.9 / PER_NETWORK_SECOND)
    assert pace.admits(HERE, NOW + 1.1 / PER_NETWORK_SECOND)


def test_all_networks_together_are_held_to_a_pace_and_to_room() -> None:
    pace = Pace(NOW)
    assert sum(pace.admits(f"net-{number}", NOW) for number in range(NETWORKS_MAX + 1000)) == DEPTH
    assert len(pace) == NETWORKS_MAX


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
    ],
)
def test_networks_are_24_bits_of_ipv4_and_48_of_ipv6(address: str, network: str) -> None:
    ip = parse_ip(address)
    assert ip is not None
    assert get_network(ip) == network
    assert address not in get_voter(ip, b"secret")


def test_ipv6_addresses_of_one_network_have_one_vote() -> None:
    votes = {
        get_voter(ip, b"secret")
        for ip in map(parse_ip, ("2001:db8:1:2::3", "2001:db8:1:2:ffff::1", "192.0.2.1", "192.0.2.2"))
        if ip is not None
    }
    assert len(votes) == 3


@pytest.mark.parametrize(
    ("peer", "forwarded", "client", "proxy"),
    [
        ("203.0.113.5", None, "203.0.113.5", "None"),
        ("203.0.113.5", "192.0.2.1", "203.0.113.5", "None"),
        ("10.0.0.1", "192.0.2.1", "192.0.2.1", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9, 192.0.2.1, 10.0.0.2", "192.0.2.1", "10.0.0.2"),
        ("10.0.0.1", None, "10.0.0.1", "None"),
        ("10.0.0.1", "192.0.2.1, nonsense", "None", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.1:4711, 10.0.0.2:80", "192.0.2.1", "10.0.0.2"),
    ],
    ids=[
        "by itself",
        "who is not trusted says nothing of others",
        "behind a proxy",
        "what it claims is not believed",
        "a proxy's own",
        "no address",
        "with ports",
    ],
)
def test_client_address_comes_only_from_trusted_proxies(
    peer: str, forwarded: str | None, client: str, proxy: str
) -> None:
    addresses = find_client(peer, forwarded, [ipaddress.ip_network("10.0.0.0/8")])
    assert tuple(map(str, addresses)) == (client, proxy)
