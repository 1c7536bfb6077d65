"""Lists that the API tells as a whole, and pages a part at a time."""

from typing import Any, cast

from aiohttp.test_utils import make_mocked_request

from edgeproxy.collector.pages.site import Visit


def test_the_pages_of_a_list_are_all_of_it_once() -> None:
    whole = [{"name": f"n{number}"} for number in range(5)]
    for most in range(1, 7):
        seen: list[dict[str, Any]] = []
        cursor, pages = "", 0
        while cursor or not pages:
            request = make_mocked_request("GET", f"/?cursor={cursor}")
            some, cursor = Visit(cast(Any, None), request, cast(Any, None)).paginate(whole, "name", most)
            seen += some
            pages += 1
        assert (seen, pages) == (whole, -(-5 // most))
