"""Typed values survive a refusal, an expired session and a sign-in, and no other user sees them."""

import time
from collections.abc import Callable
from typing import Any, cast

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from markupsafe import escape

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.languages.catalogs import load_catalog
from edgeproxy.collector.languages.reader import choose_reader
from edgeproxy.collector.pages import refusals, serving, sessions
from edgeproxy.collector.pages.sessions import SignedIn
from edgeproxy.collector.pages.site import Page, PageError, Site, Visit
from edgeproxy.collector.problems.page_codes import SESSION_ENDED
from edgeproxy.collector.problems.table import CODES
from edgeproxy.config.collector.pages import Pages
from edgeproxy.config.collector.settings import CollectorSettings
from tests.support.credited import run
from tests.support.site import PagesStage
from tests.support.visitor import Read, Visitor

HOSTILE = '"><script>alert(1)</script>'


def end_sessions(stage: PagesStage) -> None:
    """Advance the time beyond the idle limit of sessions."""
    stage.collector.execute("UPDATE sessions SET seen_at = seen_at - 7200")


def count_held(stage: PagesStage) -> int:
    """Return the number of held forms."""
    ((count,),) = stage.collector.execute("SELECT count(*) FROM held_forms")
    return int(count)


def test_refused_form_keeps_its_values_and_shows_the_error_at_its_field(stage: PagesStage) -> None:
    with Visitor(stage.site) as ops:
        ops.client.cookies.update(stage.operator.client.cookies)
        ops.get("/console/new-customer?lang=de")
        once = ops.read.form("/console/customers").fields["once"]
        outside = HOSTILE + "x" * 255
        ops.send("/console/customers", name="Any name", tier="pro", external_id=outside)
        assert ops.status == 422
        fields = ops.read.form("/console/customers").fields
        assert (fields["name"], fields["tier"], fields["external_id"]) == ("Any name", "pro", outside)
        assert fields["once"] != once, "the next form is another request"
        assert "script" not in ops.read.tags
        text = ops.answer.text
        assert "<title>Fehler: " in text
        assert 'aria-invalid="true" aria-describedby="refused-external_id-error"' in text
        assert '<a href="#refused-external_id">Externe ID</a>' in text
        ops.send("/console/customers", name="mended", external_id="")
        assert (ops.status, ops.answer.url.path) == (200, "/console/customers/mended")
        ops.get("/console/customers?lang=en")


class Api:
    """The API of pages that ask for nothing."""

    def show_names(self, *_: object) -> None:
        """Show no names."""

    def count_page(self, _: object) -> int:
        """Let each page pass."""
        return 0


async def show_form(_: Visit) -> web.Response:
    """Show a form, as every rendering does with an Idempotency-Key of its own."""
    html = (
        '<form method="post" action="/console"><input type="hidden" name="once" value="new"><input name="why"></form>'
    )
    return web.Response(text=html, content_type="text/html")


def test_form_without_a_known_result_is_resent_with_its_idempotency_key(database: str) -> None:
    async def work(opened: Database) -> None:
        async def refuse(visit: Visit) -> web.Response:
            status = int(visit.form["status"])
            raise PageError(ProblemCode("later", status, "", ""), "later")

        api, settings = cast(Any, Api()), cast(Any, None)
        site = Site(opened, Pages.model_validate({}), "http://127.0.0.1", api, settings, lambda: None)
        application = web.Application()
        pages = [Page("GET", "/console", "operator", show_form), Page("POST", "/console", "operator", refuse)]
        serving.add_pages(site, application, pages)
        async with opened.writing() as connection:
            who = SignedIn("operator:ops", frozenset({"admin"}))
            secret = await sessions.begin_session(connection, who, time.time())
        form = {"form": sessions.compute_digest(f"form {secret}"), "once": "sent", "why": "asked"}
        async with TestClient(TestServer(application), cookies={site.cookie: secret}) as client:
            for status, once in ((503, "sent"), (422, "new")):
                fields = {"Origin": str(client.make_url("")).rstrip("/")}
                answer = await client.post("/console", data={**form, "status": str(status)}, headers=fields)
                (shown,) = Read(await answer.text()).forms
                assert (answer.status, shown.fields) == (status, {"once": once, "why": "asked"})

    run(database, work)


REASONED = [code for code in CODES.values() if code.has_reason]
TOKEN = {"sha256": "0" * 64, "role": "read"}
REASON = 'gate <"errors"> & 7, required 0'


async def show_layout(visit: Visit) -> web.Response:
    """Show a page in the layout, with the refusal of its form."""
    return visit.render("waiting.html")


async def refuse_with_reason(visit: Visit) -> web.Response:
    """Refuse a request with the problem that its query names."""
    raise PageError(CODES[visit.request.query["code"]], REASON)


def test_a_page_shows_the_reason_of_each_problem_that_has_more_than_one(database: str) -> None:
    async def work(opened: Database) -> None:
        settings = CollectorSettings.model_validate({"sha256": "", "tokens": [TOKEN]})
        site = Site(opened, Pages.model_validate({}), "http://127.0.0.1", cast(Any, Api()), lambda: settings, str)
        application = web.Application()
        pages = [
            Page("GET", "/console", "operator", show_layout),
            Page("POST", "/console", "operator", refuse_with_reason),
            Page("GET", "/console/refused", "operator", refuse_with_reason),
        ]
        serving.add_pages(site, application, pages)
        async with opened.writing() as connection:
            secret = await sessions.begin_session(
                connection, SignedIn("operator:ops", frozenset({"admin"})), time.time()
            )
        form = {"form": sessions.compute_digest(f"form {secret}"), "once": "sent"}
        async with TestClient(TestServer(application), cookies={site.cookie: secret}) as client:
            fields = {"Origin": str(client.make_url("")).rstrip("/"), "Accept-Language": "de"}
            for code in REASONED:
                words = load_catalog("de").gettext(code.words)
                for answer in (
                    await client.get(f"/console/refused?code={code.name}", headers=fields),
                    await client.post(f"/console?code={code.name}", data=form, headers=fields),
                ):
                    text = await answer.text()
                    assert answer.status == code.status, code.name
                    assert f"<bdi>{escape(words)}</bdi>" in text, code.name
                    assert f'<p lang="en"><bdi>{escape(REASON)}</bdi></p>' in text, code.name
            ended = await client.get(f"/console/refused?code={SESSION_ENDED.name}", headers=fields)
            assert escape(REASON) not in await ended.text(), "its words say everything"

    assert len(REASONED) >= 20
    run(database, work)


def test_form_without_a_session_writes_no_row(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(opened: Database) -> None:
        api, settings = cast(Any, Api()), cast(Any, None)
        site = Site(opened, Pages.model_validate({}), "http://127.0.0.1", api, settings, lambda: None)
        visit = Visit(site, make_mocked_request("POST", "/console"), choose_reader(None, None), form={"form": "0" * 64})
        monkeypatch.setattr(opened, "writing", None)
        monkeypatch.setattr(visit, "render_error", lambda error, **_: web.Response(status=error.status))
        ended = PageError(SESSION_ENDED, "the session has ended")
        assert (await refusals.respond_refusal(visit, ended, serving.serve_page)).status == 401

    run(database, work)


def test_form_sent_after_the_session_ended_is_restored_and_not_applied(stage: PagesStage) -> None:
    with stage.customer("acme") as acme:
        acme.get("/account/keys")
        end_sessions(stage)
        acme.send("/account/keys", name=HOSTILE)
        assert (acme.status, "What you wrote is kept for 10 minutes." in acme.read.text) == (401, True)
        assert count_held(stage) == 1
        acme.get(stage.mailed_link("acme"))
        acme.send("/sign-in/link")
        assert acme.answer.url.path == "/account/keys"
        assert "It has not been sent yet." in acme.read.text
        assert acme.read.form("/account/keys").fields["name"] == HOSTILE
        assert "script" not in acme.read.tags
        assert count_held(stage) == 0
        assert stage.collector.get("/v1/customers/acme/keys").json()["keys"] == []
        acme.send("/account/keys")
        assert acme.read.secret.startswith("edge_v1_")


def test_held_form_is_hidden_from_another_customer_in_the_same_browser(stage: PagesStage) -> None:
    with stage.customer("acme") as shared:
        shared.get("/account/keys")
        end_sessions(stage)
        shared.send("/account/keys", name="of acme alone")
        assert shared.status == 401
        shared.get(stage.mailed_link("bolt"))
        shared.send("/sign-in/link")
        assert "of acme alone" not in shared.get("/account/keys").text + shared.answer.text
        assert count_held(stage) == 0


def sign_in_again(stage: PagesStage, visitor: Visitor, name: str) -> None:
    visitor.get(stage.mailed_link(name))
    visitor.send("/sign-in/link")


def sign_out(visitor: Visitor) -> None:
    visitor.get("/account")
    visitor.send("/sign-out")


def sign_out_in_another_browser(visitor: Visitor) -> None:
    cookies = list(visitor.client.cookies.jar)
    sign_out(visitor)
    for cookie in cookies:
        visitor.client.cookies.jar.set_cookie(cookie)


def sign_out_and_in(stage: PagesStage, visitor: Visitor) -> None:
    sign_out(visitor)
    sign_in_again(stage, visitor, "acme")


def idle_and_sign_in(stage: PagesStage, visitor: Visitor) -> None:
    end_sessions(stage)
    sign_in_again(stage, visitor, "acme")


ELSEWHERE: dict[str, tuple[Callable[[PagesStage, Visitor], None], int]] = {
    "signed out": (lambda _, visitor: sign_out(visitor), 401),
    "signed out in another browser": (lambda _, visitor: sign_out_in_another_browser(visitor), 401),
    "signed out and in": (sign_out_and_in, 200),
    "signed in over the session": (lambda stage, visitor: sign_in_again(stage, visitor, "acme"), 200),
    "idle, then signed in": (idle_and_sign_in, 200),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_form_of_session_ended_in_another_tab_returns_without_secrets(stage: PagesStage, case: str) -> None:
    end_elsewhere, status = ELSEWHERE[case]
    with stage.customer("acme") as acme:
        keys = len(stage.collector.get("/v1/customers/acme/keys").json()["keys"])
        form, page = acme.get("/account/keys").form("/account/keys"), acme.answer
        end_elsewhere(stage, acme)
        acme.answer = page  # The tab that was left open.
        acme.post(form.action, {**form.fields, "name": HOSTILE, "key": "edge_v1_pasted", "password": "pasted"})
        assert acme.status == status
        if status == 401:
            assert "What you wrote is kept for 10 minutes." in acme.read.text
            (row,) = stage.collector.execute("SELECT fields FROM held_forms")[0]
            assert ("pasted" in row, HOSTILE in orjson.loads(row).values()) == (False, True)
            sign_in_again(stage, acme, "acme")
        assert acme.answer.url.path == "/account/keys"
        assert "It has not been sent yet." in acme.read.text
        assert acme.read.form("/account/keys").fields["name"] == HOSTILE
        assert (acme.read.form("/account/keys").fields["form"] != form.fields["form"], count_held(stage)) == (True, 0)
        assert "pasted" not in acme.answer.text
        assert len(stage.collector.get("/v1/customers/acme/keys").json()["keys"]) == keys, "nothing was sent"


@pytest.mark.parametrize("is_signed_out", [True, False])
def test_form_left_open_is_hidden_from_next_user(stage: PagesStage, is_signed_out: bool) -> None:
    with stage.customer("acme") as shared:
        form, page = shared.get("/account/keys").form("/account/keys"), shared.answer
        if is_signed_out:
            sign_out(shared)
            shared.answer = page
            shared.post(form.action, {**form.fields, "name": "of acme alone"})
            assert (shared.status, count_held(stage)) == (401, 1)
        sign_in_again(stage, shared, "bolt")
        shown = shared.answer.text + shared.get("/account/keys").text
        assert count_held(stage) == 0
        shared.answer = page
        shared.post(form.action, {**form.fields, "name": "of acme alone"})
        assert (shared.status, count_held(stage)) == (403, 0)
        assert "of acme alone" not in shown + shared.answer.text + shared.get("/account/keys").text


def test_secrets_of_an_ended_session_are_refused(stage: PagesStage) -> None:
    with stage.customer("acme") as acme, Visitor(stage.site) as thief:
        (cookie,) = [one for one in acme.client.cookies.jar if "session" in one.name]
        token = acme.get("/account").form("/sign-out").fields["form"]
        acme.send("/sign-out")
        for secret in (cookie.value or "", token):
            thief.client.cookies.set(cookie.name, secret)
            assert thief.get("/account").forms[0].action == "/sign-in"


def test_form_of_no_session_is_not_held(stage: PagesStage) -> None:
    with stage.customer("acme") as acme, Visitor(stage.site) as stranger:
        form = acme.get("/account/keys").form("/account/keys").fields
        stranger.get("/sign-in")
        stranger.post("/account/keys", {**form, "name": "x"})
        end_sessions(stage)
        acme.post("/account/keys", {**form, "form": "0" * 64, "name": "x"})
        assert (stranger.status, acme.status, count_held(stage)) == (401, 401, 0)
