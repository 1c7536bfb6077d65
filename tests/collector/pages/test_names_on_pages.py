"""Pages show customers by the names that people wrote. The names in the API are where people need them."""

import html
import io
import re
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from pypdf import PdfReader

from loadtest.testbed.collector import ADMIN
from tests.support.filled_site import fill, held, invoice_of, key_of, pages_of, schedule_price_change
from tests.support.site import PagesStage

SHOWN = {"acme": "Zéphyr & Söhne", "bolt": "مؤسسة النور", "zebra": "Quagga B.V."}
LINK = re.compile(r'<a [^>]*href="/console/customers/(\w+)(?:/\w+)?(?:#\w+)?"[^>]*>(.*?)</a>', re.DOTALL)
API_NAME = re.compile(r"(?<![\w@/.=-])(acme|bolt|zebra)(?![\w@.-])")
WITH_API_NAMES = {
    "/console/customers": "below each name, for commands and the API",
    "/console/search": "as in the list",
    "/console/customers/{customer}": "a fact of its own",
    "/account/data": "what its owner types to have it deleted",
    "/account/get-started": "an example request",
    "/console/quarantine": "an event as a service sent it",
    "/console/audit": "the whole entry, as it was written",
}
"""The pages that have names in the API, and why."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesStage]:
    """A filled site whose customers have names that people wrote."""
    with closing(PagesStage(tmp_path_factory.mktemp("names"))) as stage:
        fill(stage)
        for customer, name in SHOWN.items():
            changed = stage.collector.send("PATCH", f"/v1/customers/{customer}", {"metadata": {"name": name}})
            assert changed.status == 200, changed
        yield stage


def test_each_page_names_customers_as_people_wrote_them(stage: PagesStage) -> None:
    ids = {"key": key_of(stage, "acme"), "change": schedule_price_change(stage)}
    paths = pages_of("operator", held(stage), **ids)
    linking = set()
    for place, path in paths.items():
        shown = stage.operator.get(path)
        for customer, label in LINK.findall(stage.operator.answer.text):
            words = html.unescape(re.sub("<[^>]*>", "", label))
            if not API_NAME.sub("", words).strip():
                pytest.fail(f"{place} names {customer} by {words!r}")
            linking.add(place)
        assert place in WITH_API_NAMES or not API_NAME.search(shown.text), (place, API_NAME.findall(shown.text))
    assert {"/console", "/console/alerts", "/console/audit", "/console/customers", "/console/refusals"} <= linking
    assert {"/console/price-changes/{change}", "/console/reconciliation"} <= linking
    with stage.customer("acme") as acme:
        for place, path in pages_of("customer", invoice_of(stage, "acme"), **ids).items():
            shown = acme.get(path)
            assert SHOWN["acme"] in shown.text, place
            assert place in WITH_API_NAMES or not API_NAME.search(shown.text), place


def test_statement_is_headed_by_the_name_that_a_person_wrote(stage: PagesStage) -> None:
    month = time.strftime("%Y-%m", time.gmtime())
    pdf = stage.collector.get(f"/billing/statements/{month}.pdf", customer="acme", token=ADMIN)
    assert pdf.status == 200, pdf
    assert SHOWN["acme"] in PdfReader(io.BytesIO(pdf.body)).pages[0].extract_text()
    assert (
        stage.collector.get(f"/billing/statements/{month}", customer="acme", token=ADMIN).json()["customer"] == "acme"
    )
