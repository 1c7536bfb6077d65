"""Operators who sign in with a browser at a real OpenID provider: code flow, PKCE, roles, a second factor."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.collector import Collector
from tests.support.oidc import AUDIENCE, THERE, Provider
from tests.support.ports import HOST
from tests.support.visitor import Visitor

ROLES = {"claim": "groups", "admin": ["ops"], "support": ["helpdesk"]}


class Stage:
    """A collector whose operators sign in at a provider."""

    def __init__(self, folder: Path) -> None:
        self.provider = Provider(folder)
        self.collector = Collector(folder / "collector", f"sqlite:///{folder}/ledger.db")
        self.site = f"http://{HOST}:{self.collector.port}"
        self.provider.start(redirect=f"{self.site}/sign-in/back")
        operators = {"issuer": self.provider.issuer, "audience": AUDIENCE, "roles": ROLES}
        pages = {"client": "console", "client_secret": "secret-of-console"}
        self.collector.settings |= {"operators": operators, "pages": pages}
        self.collector.start()

    def sign_in(self, visitor: Visitor, person: str, path: str = "/sign-in/operator") -> None:
        """Sign in as somebody."""
        visitor.get(path)
        visitor.read.form("").fields["person"] = person
        visitor.send("", person=person)

    def close(self) -> None:
        """End it all."""
        self.collector.close()
        self.provider.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if not THERE:
        pytest.skip("oidc-provider is not on this machine")
    with closing(Stage(tmp_path_factory.mktemp("operators"))) as made:
        yield made


def test_roles_of_the_issuer_are_those_of_the_pages(stage: Stage) -> None:
    assert "sign-in/link" not in stage.collector.output  # There is an issuer, and no link.
    with Visitor(stage.site) as ops, Visitor(stage.site) as helpdesk, Visitor(stage.site) as stranger:
        stage.sign_in(ops, "ops", "/sign-in/operator?next=/console/audit")
        assert (ops.status, ops.answer.url.path) == (200, "/console/audit"), " ".join(ops.read.text.split())
        assert "operator:ops" in ops.read.text
        ops.get("/console/customers")
        ops.send("/console/customers", name="acme", tier="basic")
        assert ops.status == 200

        stage.sign_in(helpdesk, "helpdesk")
        assert "/console/audit" not in helpdesk.read.links
        assert helpdesk.get("/console/audit").text
        assert helpdesk.status == 403
        helpdesk.get("/console/customers/acme")
        helpdesk.send("/pause", why="unpaid")
        assert stage.collector.get("/v1/customers/acme").json()["paused"]["why"] == "unpaid"
        assert not [one for one in helpdesk.read.forms if one.action.endswith(("/keys", "/contacts"))]
        token = helpdesk.read.form("/sign-out").fields["form"]
        form = {"form": token, "once": "0" * 32, "emails": "me@example.com"}
        helpdesk.post("/console/customers/acme/contacts", form)
        assert helpdesk.status == 403

        stage.sign_in(stranger, "stranger")
        assert stranger.status == 403
        stranger.get("/console")
        assert stranger.answer.url.path == "/sign-in"


def test_what_comes_back_must_belong_to_what_was_begun_here(stage: Stage) -> None:
    with Visitor(stage.site) as victim, Visitor(stage.site) as attacker:
        attacker.client.follow_redirects = False
        attacker.get("/sign-in/operator")
        asked = parse_qs(urlsplit(attacker.answer.headers["location"]).query)
        assert asked["code_challenge_method"] == ["S256"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", asked["code_challenge"][0])
        victim.get(f"/sign-in/back?code=stolen&state={asked['state'][0]}")
        assert victim.status == 400
        victim.client.follow_redirects = False
        victim.get("/sign-in/operator")
        victim.get(f"/sign-in/back?code=stolen&state={asked['state'][0]}")
        assert victim.status == 403
        attacker.get(f"/sign-in/back?code=made-up&state={asked['state'][0]}")
        assert attacker.status == 403
        assert "edgeproxy-session" not in attacker.client.cookies


def test_a_second_factor_is_asked_for_anew(stage: Stage) -> None:
    with Visitor(stage.site) as ops:
        ops.client.follow_redirects = False
        ops.get("/sign-in/operator?again=1")
        asked = parse_qs(urlsplit(ops.answer.headers["location"]).query)
        assert (asked["prompt"], asked["max_age"]) == (["login"], ["0"])
