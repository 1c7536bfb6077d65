"""Rotation of keys: `rotation` of collector.yaml."""

from pathlib import Path

import pytest

from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.rotation import Rotation
from edgeproxy.config.problems import ConfigError
from tests.config.conftest import write

TOKENS = f"tokens: [{{sha256: {'a' * 64}, role: admin}}]\n"
DAY = 86400.0
GROWING = "at most 5 times that grow, such as [7d, 30d]"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("pages: {}\nrotation: {deliver: portal}", (7 * DAY, (7 * DAY, 30 * DAY))),
        ("pages: {}\nrotation: {deliver: portal, grace: 12h, remind: []}", (DAY / 2, ())),
    ],
)
def test_customers_rotate_keys_where_the_file_says_how(text: str, expected: object) -> None:
    write(Path(), {"collector.yaml": TOKENS + text})
    rotation = load_collector(Path("collector.yaml"), {}).rotation
    assert (None if rotation is None else (rotation.grace, rotation.remind)) == expected


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rotation: {deliver: portal}", "rotation.deliver: needs the portal, and there are no pages, write pages: {}"),
        (
            "listen: {address: 127.0.0.1:1, serve: [edges, api, console]}\npages: {}\nrotation: {deliver: portal}",
            "listen: serves no portal, and customers rotate their keys there, write portal in the serve of a listener",
        ),
        (
            "pages: {}\nrotation: {deliver: webhook}",
            'rotation.deliver: needs webhooks, and there are none, write webhooks: {encryption: "${WEBHOOK_KEY}"}',
        ),
        ("pages: {}\nrotation: {deliver: mail}", "rotation.deliver: 'mail' is not known here, write portal or webhook"),
        ("pages: {}\nrotation: {deliver: portal, overlap: 7d}", "rotation.overlap: has another name now, write grace"),
        ("pages: {}\nrotation: {deliver: portal, remind: 7d}", f"rotation.remind: is no list of times, {GROWING}"),
        ("pages: {}\nrotation: {deliver: portal, remind: [7d, 7d]}", f"rotation.remind: does not grow, {GROWING}"),
        (
            "pages: {}\nrotation: {deliver: portal, grace: 0s}",
            "rotation.grace: '0s' is out of range, from 1h to 90day",
        ),
    ],
)
def test_invalid_rotation_is_reported(text: str, expected: str) -> None:
    write(Path(), {"collector.yaml": TOKENS + text})
    with pytest.raises(ConfigError) as caught:
        load_collector(Path("collector.yaml"), {})
    assert [line.split(": ", 1)[1] for line in str(caught.value).splitlines()] == [expected]


@pytest.mark.parametrize(
    ("grace", "remind", "expected"),
    [
        ("7d", ["1d", "30d"], (DAY, 7 * DAY, 30 * DAY)),
        ("7d", ["7d", "30d"], (7 * DAY, 30 * DAY)),
        ("12h", [], (DAY / 2,)),
    ],
)
def test_alerts_come_at_each_reminder_and_once_at_the_grace(
    grace: str, remind: list[str], expected: tuple[float, ...]
) -> None:
    rotation = Rotation.model_validate({"deliver": "portal", "grace": grace, "remind": remind})
    assert rotation.reminders == expected
