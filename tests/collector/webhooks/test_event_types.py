"""The types of events: the types that are sent equal the documented ones."""

import re

from edgeproxy.collector.webhooks.event_types import SUMMARIES, EventType
from loadtest.testbed.process import ROOT

ROW = re.compile(r"^\| `([a-z_]+\.[a-z_]+)` \| (.+?) \|", re.MULTILINE)
PAGE = ROOT / "docs/usage/webhooks.md"


def test_the_documentation_lists_each_type_with_its_condition() -> None:
    assert dict(ROW.findall(PAGE.read_text())) == {kind.value: SUMMARIES[kind] for kind in EventType}
