"""Pages of a service that charges in yen: no amount and no sentence is about dollars."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from loadtest.testbed.collector import ADMIN
from loadtest.testbed.waiting import until
from tests.support.filled_site import is_worked_out
from tests.support.site import PagesStage


class YenStage(PagesStage):
    """A service with one plan, of 4,600 yen a month."""

    def _paying(self, folder: Path) -> dict[str, object]:
        file = folder / "plans.yaml"
        plan = {"name": "Yen", "tier": "pro", "fee": "4600", "meters": {"tokens": {"price": "0.15"}}}
        file.write_text(yaml.safe_dump({"currency": "jpy", "plans": {"yen@1": plan}}))
        paying = super()._paying(folder) | {"plans": str(file), "breaker": {"enabled": False}}
        for settings in (paying, self.collector.settings["billing"]):
            del settings["credits"]
        return paying


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[YenStage]:
    meters = {name: {"count": "events"} for name in ("tokens", "agent_executions", "requests")}
    with closing(YenStage(tmp_path_factory.mktemp("yen"), collector={"meters": meters})) as stage:
        assert (
            stage.collector.send("POST", "/billing/subscription?customer=acme", {"plan": "yen"}, token=ADMIN).status
            == 201
        )
        yield stage


@pytest.mark.parametrize("path", ["", "/month", "/invoices", "/plan"])
def test_a_customer_reads_nothing_of_dollars(stage: YenStage, path: str) -> None:
    with stage.customer("acme") as acme:
        text = acme.get(f"/account{path}?lang=en&currency=EUR").text
        assert "¥4,600" in text
        assert re.findall(r".{0,40}(?:\$|€|dollar|USD|EUR).{0,40}", text) == []


def test_operators_read_nothing_of_dollars(stage: YenStage) -> None:
    until(lambda: is_worked_out(stage, "/console/business-metrics"), "the figures are worked out")
    text = stage.operator.get("/console?lang=en").text
    assert ("Revenue this month" in text, "¥0" in text) == (True, True)
    assert re.findall(r".{0,40}\$.{0,40}", text) == []
