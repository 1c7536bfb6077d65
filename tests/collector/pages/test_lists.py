"""Lists that the API tells as a whole, and pages a part at a time."""

from typing import Any

from edgeproxy.collector.pages.lists import paginate


def test_the_pages_of_a_list_are_all_of_it_once() -> None:
    whole = [{"name": f"n{number}"} for number in range(5)]
    for most in range(1, 7):
        seen: list[dict[str, Any]] = []
        cursor, pages = "", 0
        while cursor or not pages:
            some, cursor = paginate(whole, "name", most, cursor)
            seen += some
            pages += 1
        assert (seen, pages) == (whole, -(-5 // most))
