"""Sign-up creates a customer and its owner through a mailed link, and stops robots, probing and stolen links."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.collector.pages import sign_in
from edgeproxy.collector.pages.sign_up import build_name
from edgeproxy.config.parsers import NAME
from loadtest.testbed.collector import ADMIN
from loadtest.testbed.waiting import until
from tests.support.mailbox import text_of
from tests.support.site import SCRAPE, PagesStage
from tests.support.visitor import Visitor

HOSTILE = "<img src=x onerror=alert(1)>\u202e Acme & Söhne"
PER_HOUR = 400


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesStage]:
    offered = {"tier": "basic", "plan": "free", "per_hour": PER_HOUR}
    with closing(PagesStage(tmp_path_factory.mktemp("sign-up"), sign_up=offered)) as stage:
        yield stage


@pytest.fixture(autouse=True)
def unhurried(stage: PagesStage) -> None:
    """Delete the recorded sign-ups, so that no test reaches the hourly limits because of another."""
    stage.collector.execute("DELETE FROM sign_ups")


def request_link(stage: PagesStage, email: str, address: str = "127.0.0.1", language: str = "en") -> str:
    """Request a link from an address, and return the next page."""
    with Visitor(stage.site, address, **{"Accept-Language": language}) as visitor:
        visitor.get("/sign-up")
        visitor.send("/sign-up", email=email)
        return f"{visitor.status} {visitor.read.text.replace(email, '')}"


def mailed(stage: PagesStage, email: str) -> str:
    """Request a link and return it."""
    count = len(stage.mailbox.mails) + 1
    assert request_link(stage, email).startswith("200")
    mail = stage.mailbox.wait_for(count)
    assert mail["To"] == email
    return next(word for word in text_of(mail).split() if word.startswith(stage.site))


def test_new_customer_gets_a_free_plan_and_can_sign_in_again(stage: PagesStage) -> None:
    with Visitor(stage.site) as ann:
        assert "/sign-up" in ann.get("/sign-in").links
        link = mailed(stage, "ann@new.example")
        ann.get(link)
        assert "ann@new.example" in ann.read.text, "whose link this is"
        assert not stage.collector.get("/v1/customers", search="new.example").json()["customers"], "opened by a scanner"
        ann.send("/sign-up/confirm", organisation=HOSTILE)
        assert (ann.status, ann.answer.url.path) == (200, "/account/get-started")
        assert not ann.read.tags & {"img"}
        (customer,) = stage.collector.get("/v1/customers", search="ann@new.example").json()["customers"]
        assert customer["name"].startswith("img-src-x-onerror-alert-1-acme-s-")
        assert "\u202e" not in customer["metadata"]["name"]
        shown = ann.get("/account").text
        assert "<img src=x onerror=alert" in shown, "the menu names the organisation, and not the id made from it"
        plan = stage.collector.get("/billing/subscription", token=ADMIN, customer=customer["name"]).json()["plan"]
        assert plan == "free@1"
        ann.get("/account/team")
        assert "Everything, and who else may come in" in ann.read.text
        (entry, *_) = stage.entries("customer.create")[-1:]
        assert entry["actor"] == "contact:ann@new.example"
        with Visitor(stage.site) as thief:
            thief.get(link)
            assert thief.status == 403, "a link works once"
            thief.post(f"{stage.site}/sign-up/confirm", {"token": link.partition("token=")[2], "organisation": "again"})
            assert thief.status == 403
        # The address is registered now. It gets a sign-in link, and the page does not reveal the difference.
        known, new = request_link(stage, "ann@new.example"), request_link(stage, "bob@new.example")
        assert known == new
        until(lambda: len(stage.mailbox.mails) >= 3, "both are mailed")
        texts = {str(mail["To"]): text_of(mail) for mail in stage.mailbox.mails[-2:]}
        assert "/sign-in/link" in texts["ann@new.example"]
        assert "/sign-up/confirm" in texts["bob@new.example"]


def test_address_gets_one_mail_an_hour_and_all_addresses_a_number(stage: PagesStage) -> None:
    mailed(stage, "one@robots.example")
    before = len(stage.mailbox.mails)
    assert len({request_link(stage, "one@robots.example") for _ in range(2)}) == 1
    others = [f"r{number}@robots.example" for number in range(PER_HOUR)]
    rows = [(email, email, 2_000_000_000) for email in others]
    stage.collector.execute("INSERT INTO sign_ups (email, sha256, requested_at) VALUES (?, ?, ?)", *rows)
    # A registered address gets an identical page, so the page does not reveal which addresses are registered.
    late, known = (request_link(stage, email) for email in ("late@robots.example", "acme@example.com"))
    assert late == known
    assert late.startswith("429")
    assert "Too many mails were asked for. None was sent. Try again in 60 min." in late
    # Sign-in links are created in order. If the last one exists, all earlier requests are finished.
    stage.mailed_link("acme")
    assert [str(mail["To"]) for mail in stage.mailbox.mails[before:]] == ["acme@example.com"]


def test_sign_up_mail_limit_counts_each_network_separately(tmp_path: Path) -> None:
    with closing(PagesStage(tmp_path, sign_up={"tier": "basic", "plan": "free", "per_hour": 20})) as stage:
        asked = [
            request_link(stage, f"junk{number}@robots.example", address=f"127.0.0.{100 + number}", language="de")
            for number in range(10)
        ]
        refused = [page for page in asked if page.startswith("429")]
        assert refused
        assert all("Aus Ihrem Netz wurden zu viele E-Mails angefordert. Es wurde keine" in page for page in refused)
        sent = len(asked) - len(refused)
        assert request_link(stage, "ann@newcomer.example", address="127.0.1.1").startswith("200")
        stage.mailbox.wait_for(sent + 1)
        assert "ann@newcomer.example" in {mail["To"] for mail in stage.mailbox.mails}
        metrics = stage.collector.get("/metrics", token=SCRAPE).body.decode()
        assert f'collector_scarce_refused_total{{good="sign_up_mails"}} {len(refused)}.0' in metrics
        assert f'collector_scarce_in_use{{good="sign_up_mails"}} {sent + 1}.0' in metrics
        assert "a share of a scarce good is used up" in stage.collector.output


@pytest.mark.parametrize("email", ["x", "a@b.example\r\nBcc: c@d.example", "a@b.example, c@d.example", HOSTILE, ""])
def test_invalid_address_is_refused_and_gets_no_mail(stage: PagesStage, email: str) -> None:
    before = len(stage.mailbox.mails)
    with Visitor(stage.site) as visitor:
        visitor.get("/sign-up")
        visitor.send("/sign-up", email=email)
        assert visitor.status in (422, 429)
        assert not visitor.read.tags & {"img"}
    assert len(stage.mailbox.mails) == before


def test_forms_without_a_link_are_refused_and_few_in_a_minute(stage: PagesStage) -> None:
    with Visitor(stage.site) as robot:
        robot.get("/sign-up")
        with Visitor(stage.site) as guesser:
            guesser.get("/sign-up/confirm?token=guessed")
            assert guesser.status == 403
        statuses = []
        for _ in range(sign_in.REQUESTS_PER_MINUTE + 2):
            robot.post(f"{stage.site}/sign-up/confirm", {"token": "guessed", "organisation": "x"})
            statuses.append(robot.status)
        assert statuses[-1] == 429
        assert int(robot.answer.headers["Retry-After"]) >= 1
        assert set(statuses) <= {403, 429}
        elsewhere = {"Origin": "https://attacker.example"}
        assert robot.client.post("/sign-up", data={"email": "a@b.example"}, headers=elsewhere).status_code == 403


@pytest.mark.parametrize("organisation", ["", "Acme", "\N{SNOWMAN}", "x" * 500, "--", HOSTILE, "../../etc"])
def test_built_names_are_valid_and_unique(organisation: str) -> None:
    names = {build_name(organisation) for _ in range(50)}
    assert len(names) == 50
    assert all(NAME.fullmatch(name) for name in names)
