"""Names that must exist, and things that may be there only once."""

import pytest

from tests.config.conftest import LEAST

UPSTREAM = "upstreams: {api: {endpoints: [http://127.0.0.1:9001]}}\n"


def routes(problems, *lines):
    """What is said of these routes, the first of which is in line 3."""
    return problems(UPSTREAM + "routes:\n" + "".join(f"  - {{upstream: api, {line}}}\n" for line in lines))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("path: /a", "path: /a"),
        ("path: /a/*, host: A.example.", "path: /a/*, host: a.example"),
        ("path: /a, methods: [GET, PUT]", "path: /a, methods: [PUT, POST]"),
    ],
)
def test_two_routes_cannot_take_the_same_requests(problems, first, second):
    method = "PUT " if "PUT" in first else ""
    assert routes(problems, first, second) == [
        f"edge.yaml:4: routes.1: takes the {method}requests of the route at edge.yaml:3, "
        "leave one of them out, or give them other methods"
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("path: /a", "path: /b"),
        ("path: /a", "path: /a/*"),
        ("path: /a", "path: /a, host: a.example"),
        ("path: /a, methods: [GET]", "path: /a, methods: [PUT]"),
        ("path: /a, methods: [GET]", "path: /a"),
    ],
)
def test_routes_that_differ_live_together(problems, first, second):
    assert routes(problems, first, second) == []


def test_a_route_has_a_name_of_its_own(problems):
    assert routes(problems, "path: /a, name: x", "path: /b, name: x") == [
        "edge.yaml:4: routes.1.name: is defined already at edge.yaml:3, give one of them another name"
    ]


def test_a_long_label_needs_a_name(problems):
    host, path = "a" * 60 + ".example", "/" + "p" * 32
    assert routes(problems, f"host: {host}, path: {path}") == [
        "edge.yaml:3: routes.0: host and path make a label of 101 bytes, above 100, give the route a name"
    ]
    assert routes(problems, f"host: {host}, path: {path[:-1]}") == []
    assert routes(problems, f"host: {host}, path: {path}, name: x") == []


def test_scopes_need_a_key(problems):
    assert routes(problems, "path: /a, auth: none, scopes: [read]") == [
        "edge.yaml:3: routes.0.scopes: nobody's key is looked at with auth: none, leave one of them out"
    ]
    assert routes(problems, "path: /a, auth: none, scopes: []", "path: /b, auth: optional, scopes: [read]") == []


def test_routes_of_another_shape_are_left_to_the_models(problems):
    assert len(routes(problems, "path: [a], name: [b]", "path: /b, host: [c], methods: [[d]]")) == 4


def test_a_key_is_there_once(problems):
    keys = "".join(f"  - {{sha256: {sha}, customer: acme}}\n" for sha in ("ab" * 32, "cd" * 32, "AB" * 32))
    assert problems(LEAST + "tiers: {t: {}}\ncustomers: {acme: {tier: t}}\nkeys:\n" + keys) == [
        "edge.yaml:8: keys.2.sha256: is the key that is defined already at edge.yaml:6, leave one of them out"
    ]


@pytest.mark.parametrize(
    "section", ["tiers: {t: {limits: LIMITS}}", "tiers: {t: {}}\ncustomers: {a: {tier: t, limits: LIMITS}}"]
)
@pytest.mark.parametrize(
    ("limits", "index", "what", "hint"),
    [
        (
            "[{rate: 5/s}, {rate: 5/min}, {rate: 9/60s, algorithm: sliding_window, scope: customer, mode: enforce}]",
            2,
            "has the window, algorithm, scope and mode of the one at",
            "leave one of them out",
        ),
        (
            "[{rate: 5/s, name: x}, {rate: 5/min, name: x}]",
            1,
            "is called x like the one at",
            "give one of them another name",
        ),
        (
            "[{rate: 5/s, name: t-2}, {rate: 5/min}]",
            1,
            "is called t-2 like the one at",
            "give one of them another name",
        ),
    ],
)
def test_limits_that_are_alike_would_be_one(problems, section, limits, index, what, hint):
    text = LEAST + section.replace("LIMITS", limits)
    line = len(text.splitlines())
    whose = "customers.a" if "customers" in section else "tiers.t"
    assert problems(text) == [f"edge.yaml:{line}: {whose}.limits.{index}: {what} edge.yaml:{line}, {hint}"]


def test_limits_of_another_shape_are_left_to_the_models(problems):
    assert problems(LEAST + "tiers: {t: {limits: [x, {rate: y}]}, u: {limits: z}}\n") == [
        "edge.yaml:3: tiers.t.limits.0: is not a mapping, its fields are algorithm, burst, cost_header, mode, name, "
        "rate, scope, sync",
        "edge.yaml:3: tiers.t.limits.1.rate: 'y' is not a rate, N/UNIT such as 60/min, 200/s or 100/10s",
        "edge.yaml:3: tiers.u.limits: is not a list, write [ ] around it",
    ]  # fmt: skip


def test_an_address_is_listened_on_once(problems):
    text = (
        LEAST
        + "listen: [127.0.0.1:80, {address: '[::1]:80'}, '[0::1]:80', 127.0.0.1:0, 127.0.0.1:0]\nadmin: 127.0.0.1:80\n"
    )
    assert problems(text) == [
        "edge.yaml:3: listen.2: is [::1]:80 like edge.yaml:3, listen at another port",
        "edge.yaml:4: admin: is 127.0.0.1:80 like edge.yaml:3, listen at another port",
    ]
    assert problems(LEAST + "listen: a:80\nadmin: a:80\n") == [
        "edge.yaml:4: admin: is a:80 like edge.yaml:3, listen at another port"
    ]
    assert problems(LEAST + "listen: {address: a:80}\nadmin: a:81\n") == []


@pytest.mark.parametrize(
    ("listen", "admin", "overlap"),
    [
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "0.0.0.0:80", True),
        ("'[::]:80'", "'[::1]:80'", True),
        ("'[::1]:80'", "'[::]:80'", True),
        ("0.0.0.0:80", "'[::]:80'", False),
        ("0.0.0.0:80", "'[::1]:80'", False),
        ("'[::]:80'", "127.0.0.1:80", False),
        ("0.0.0.0:80", "localhost:80", False),
        ("0.0.0.0:80", "127.0.0.1:81", False),
    ],
)
def test_an_address_is_within_that_which_means_any(problems, listen, admin, overlap):
    one, other = listen.strip("'"), admin.strip("'")
    what = f"edge.yaml:4: admin: is {other}, which overlaps {one} at edge.yaml:3, listen at another port"
    assert problems(LEAST + f"listen: {listen}\nadmin: {admin}\n") == ([what] if overlap else [])
